"""The list of runs: filtered, searched and paged."""

from __future__ import annotations

import asyncio

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from holdfast.dashboard import humanize
from holdfast.dashboard.search import Known, RunQuery, from_params, known_from, parse
from holdfast.dashboard.site import Site

PAGE = 50
COUNT_CAP = 10_000
TABS = (
    ("All", ()),
    ("Active", ("QUEUED", "RUNNING", "WAITING")),
    ("Completed", ("COMPLETED",)),
    ("Failed", ("FAILED",)),
    ("Cancelled", ("CANCELLED",)),
)
_FINE_TABS = {"QUEUED": "Queued", "RUNNING": "Running", "WAITING": "Waiting", "SKIPPED": "Skipped"}


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
        live="" if cursor else "run dead progress",
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
