"""The list of runs: filtered, searched, paged, and changed in bulk."""

from __future__ import annotations

import asyncio

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from holdfast.base.errors import HoldfastError
from holdfast.dashboard import humanize
from holdfast.dashboard.forms import Form
from holdfast.dashboard.search import Known, RunQuery, from_params, known_from, parse
from holdfast.dashboard.site import Site

PAGE = 50
COUNT_CAP = 10_000
BULK_LIMIT = 1000
TABS = (
    ("All", ()),
    ("Active", ("QUEUED", "RUNNING", "WAITING")),
    ("Completed", ("COMPLETED",)),
    ("Failed", ("FAILED",)),
    ("Cancelled", ("CANCELLED",)),
)
_FINE_TABS = {"QUEUED": "Queued", "RUNNING": "Running", "WAITING": "Waiting", "SKIPPED": "Skipped"}
ACTIONS = {"cancel": ("Cancel", "cancelled"), "rerun": ("Rerun", "started again"), "redrive": ("Redrive", "redriven")}


class Tab(msgspec.Struct, frozen=True):
    """A status tab."""

    label: str
    count: str
    params: dict[str, str]
    current: bool


async def show(site: Site, request: Request) -> Response:
    if request.query_params.get("q") is not None:
        return await search(site, request)
    now = site.now()
    query, problem = from_params(request.query_params)
    cursor = request.query_params.get("cursor") or None
    (found, older), tabs, functions, names = await asyncio.gather(
        site.reader.runs(query.where(now), limit=PAGE, cursor=cursor),
        count_tabs(site, query, now),
        site.reader.functions(),
        site.reader.event_names(),
    )
    return await site.page(
        request,
        "runs.html",
        title="Runs",
        section="runs",
        live="" if cursor else "run dead",
        query=query,
        problem=problem,
        text=query.text(),
        runs=found,
        older=older,
        cursor=cursor,
        tabs=tabs,
        functions=functions,
        event_names=names,
        apps=sorted({f.app for f in functions}),
        params=query.params(),
        filtered=bool(query.params()),
    )


async def search(site: Site, request: Request) -> Response:
    """The search box: to the run or event of an id, else to the list with the address that says the same."""
    text = request.query_params.get("q", "")
    functions, names = await asyncio.gather(site.reader.functions(), site.reader.event_names())
    parsed = parse(text, known_from([(f.app, f.slug) for f in functions], names))
    if parsed.jump is not None:
        return await _jump(site, request, parsed.jump)
    if parsed.problem is not None:
        return site.redirect(
            request, site.url(request, "/runs", **parsed.query.params()), f"{parsed.problem}.", tone="bad"
        )
    return site.redirect(request, site.url(request, "/runs", **parsed.query.params()))


async def _jump(site: Site, request: Request, name: str) -> Response:
    """To whatever has this id."""
    known = parse(name, Known()).jump is not None
    if known and await site.reader.run_view(name) is not None:
        return site.redirect(request, site.url(request, f"/runs/{name}"))
    if known and await site.reader.event(name) is not None:
        return site.redirect(request, site.url(request, f"/events/{name}"))
    # an id the sender chose
    return site.redirect(request, site.url(request, "/runs", event_id=name))


async def count_tabs(site: Site, query: RunQuery, now: int) -> list[Tab]:
    """Tabs with the number of runs each would show; a fine status that is filtered for gets a tab of its own."""
    tabs = list(TABS)
    if len(query.status) == 1 and query.status[0] in _FINE_TABS:
        tabs.insert(2, (_FINE_TABS[query.status[0]], query.status))
    counts = await asyncio.gather(
        *(site.reader.count_runs(query.only_status(*status).where(now), cap=COUNT_CAP) for _, status in tabs)
    )
    return [
        Tab(
            label,
            humanize.number(count) if count < COUNT_CAP else f"{humanize.number(COUNT_CAP)}+",
            query.only_status(*status).params(),
            set(status) == set(query.status),
        )
        for (label, status), count in zip(tabs, counts, strict=True)
    ]


async def bulk(site: Site, request: Request, form: Form) -> Response:
    """Change the selected runs, after asking once."""
    action = form.get("action")
    ids = list(dict.fromkeys(form.all("run")))[:BULK_LIMIT]
    back = _back(site, request, form.get("back"))
    if action not in ACTIONS:
        raise HTTPException(400, f"'{action[:40]}' is not something to do with runs; there are {', '.join(ACTIONS)}.")
    if not ids:
        return site.redirect(request, back, "Nothing was selected.", tone="bad")
    if form.get("confirmed") != "yes":
        views = [view for run_id in ids[:20] if (view := await site.reader.run_view(run_id)) is not None]
        return await site.page(
            request,
            "confirm.html",
            title=f"{ACTIONS[action][0]} runs",
            section="runs",
            action=action,
            verb=ACTIONS[action][0],
            ids=ids,
            views=views,
            back=back,
            back_field=form.get("back"),
        )
    done, refused = 0, []
    for run_id in ids:
        try:
            done += await _apply(site, request, action, run_id)
        except HoldfastError as error:
            refused.append(str(error))
    said = f"{humanize.plural(done, 'run')} of {humanize.number(len(ids))} {ACTIONS[action][1]}."
    if refused:
        said += f" {humanize.plural(len(refused), 'refusal')}: {refused[0]}"
    return site.redirect(request, back, said, tone="bad" if refused else "ok")


async def _apply(site: Site, request: Request, action: str, run_id: str) -> int:
    changed: object
    if action == "cancel":
        changed = await site.engine.cancel(run_id)
    else:
        changed = await (site.engine.rerun(run_id) if action == "rerun" else site.engine.redrive(run_id))
    if changed:
        await site.engine.audit(
            site.guard.actor(request), f"run.{action}", run_id, "" if changed is True else f"as {changed}"
        )
    return int(bool(changed))


def _back(site: Site, request: Request, query: str) -> str:
    """The list with the filter that was set; only its query is taken from the form, so that it leads nowhere else."""
    return site.url(request, "/runs") + (f"?{query}" if query and "\n" not in query and "\r" not in query else "")
