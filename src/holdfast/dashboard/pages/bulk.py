"""Changing many runs at once: those that were selected, or all that the list's filter matches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from urllib.parse import parse_qsl

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from holdfast.base.errors import HoldfastError
from holdfast.dashboard import humanize
from holdfast.dashboard.forms import Form
from holdfast.dashboard.search import RunQuery, from_params
from holdfast.dashboard.site import Site

LIMIT = 1000
"""Runs changed at once at most."""
_SHOWN = 20
_TOGETHER = 50


class Action(msgspec.Struct, frozen=True):
    """Something to do with runs."""

    verb: str
    done: str


ACTIONS = {
    "cancel": Action("Cancel", "cancelled"),
    "rerun": Action("Rerun", "started again"),
    "redrive": Action("Redrive", "redriven"),
}


async def change(site: Site, request: Request, form: Form) -> Response:
    """Ask, then do."""
    name = form.get("action")
    action = ACTIONS.get(name)
    if action is None:
        raise HTTPException(400, f"'{name[:40]}' is not something to do with runs; there are {', '.join(ACTIONS)}.")
    query, _ = from_params(dict(parse_qsl(form.get("back"))))
    ids = list(dict.fromkeys(form.all("run")))[:LIMIT]
    back = site.url(request, "/runs", **query.params())
    if not ids:
        return site.redirect(request, back, "Nothing was selected.", tone="bad")
    if form.get("confirmed") != "yes":
        return await _ask(site, request, name, action, ids, query, form.get("back"))
    if form.get("all") == "yes":
        ids = [run.id for run in (await site.reader.runs(query.where(site.now()), limit=LIMIT))[0]]
    done, refusals = 0, []
    for start in range(0, len(ids), _TOGETHER):
        answers = await asyncio.gather(
            *(_apply(site, request, name, run_id) for run_id in ids[start : start + _TOGETHER]), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, HoldfastError):
                refusals.append(str(answer))
            elif isinstance(answer, BaseException):
                raise answer
            else:
                done += answer
    said = f"{humanize.plural(done, 'run')} of {humanize.number(len(ids))} {action.done}."
    if refusals:
        said += f" {humanize.plural(len(refusals), 'refusal')}: {refusals[0]}"
    return site.redirect(request, back, said, tone="bad" if refusals else "ok")


async def _ask(
    site: Site, request: Request, name: str, action: Action, ids: Sequence[str], query: RunQuery, back_field: str
) -> Response:
    matching, *views = await asyncio.gather(
        site.reader.count_runs(query.where(site.now()), cap=LIMIT + 1),
        *(site.reader.run_view(run_id) for run_id in ids[:_SHOWN]),
    )
    return await site.page(
        request,
        "confirm.html",
        title=f"{action.verb} runs",
        section="runs",
        action=name,
        verb=action.verb,
        ids=ids,
        views=[view for view in views if view is not None],
        matching=matching,
        limit=LIMIT,
        text=query.text(),
        back=site.url(request, "/runs", **query.params()),
        back_field=back_field,
    )


async def _apply(site: Site, request: Request, name: str, run_id: str) -> int:
    new = ""
    if name == "cancel":
        changed = await site.engine.cancel(run_id)
    else:
        new = await (site.engine.rerun(run_id) if name == "rerun" else site.engine.redrive(run_id))
        changed = True
    if changed:
        await site.engine.audit(site.guard.actor(request), f"run.{name}", run_id, f"as {new}" if new else "")
    return int(changed)
