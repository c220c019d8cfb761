"""Dead letters: grouped by their error, to be redriven or discarded."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from holdfast.base.errors import HoldfastError
from holdfast.dashboard import humanize
from holdfast.dashboard.forms import Form
from holdfast.dashboard.site import Site

GROUPS = 200
"""Groups shown at most."""
PAGE = 50
STATES = ("dead", "redriven", "discarded")


async def show(site: Site, request: Request) -> Response:
    params = request.query_params
    state = params.get("state", "dead")
    state = state if state in STATES else "dead"
    fingerprint, function = params.get("fingerprint", ""), params.get("function", "")
    cursor = params.get("cursor") or None
    groups, (letters, older) = await asyncio.gather(
        site.reader.letter_groups(state=state, function=function or None, limit=GROUPS),
        site.reader.dead_letters(
            state=state, function=function or None, fingerprint=fingerprint or None, limit=PAGE, cursor=cursor
        ),
    )
    group = next((one for one in groups if one.fingerprint == fingerprint), None)
    return await site.page(
        request,
        "dead_letters.html",
        title="Dead letters",
        section="dead",
        live="dead run",
        state=state,
        states=STATES,
        groups=groups,
        group=group,
        total=sum(one.count for one in groups),
        most=GROUPS,
        letters=letters,
        older=older,
        fingerprint=fingerprint,
        function=function,
        cursor=cursor,
    )


async def redrive(site: Site, request: Request, form: Form) -> Response:
    """Make a new run of each chosen letter, with its finished steps."""
    done, refused, last = 0, "", ""
    for run_id in _chosen(form):
        try:
            last = await site.engine.redrive(run_id)
        except HoldfastError as error:
            refused = str(error)
            continue
        done += 1
        await site.audit(request, "run.redrive", run_id, f"as {last}")
    if done == 1 and not refused:
        return site.redirect(
            request, site.url(request, f"/runs/{last}"), "Redriven, as this new run. Finished steps were kept."
        )
    return _answer(site, request, done, "redriven", refused)


async def discard(site: Site, request: Request, form: Form) -> Response:
    """Give the chosen letters up."""
    done, refused = 0, ""
    for run_id in _chosen(form):
        try:
            changed = await site.engine.discard(run_id)
        except HoldfastError as error:
            refused = str(error)
            continue
        if changed:
            done += 1
            await site.audit(request, "run.discard", run_id)
    return _answer(site, request, done, "discarded", refused)


def _chosen(form: Form) -> list[str]:
    return list(dict.fromkeys(form.all("run")))[:PAGE]


def _answer(site: Site, request: Request, done: int, verb: str, refused: str) -> Response:
    said = f"{humanize.plural(done, 'dead letter')} {verb}." if done else "Nothing was changed."
    if refused:
        said += f" {refused}"
    return site.redirect(
        request, site.url(request, "/dead-letters"), said, tone="ok" if done and not refused else "bad"
    )
