"""The list of functions."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from holdfast.dashboard.pages.period import PERIODS, period
from holdfast.dashboard.site import Site


async def show(site: Site, request: Request) -> Response:
    chosen = period(request)
    functions, stats, flows = await asyncio.gather(
        site.reader.functions(), site.reader.stats(since=site.now() - chosen.ms), site.reader.flow()
    )
    flow_by_id = {flow.function_id: flow for flow in flows}
    by_id = {s.function_id: s for s in stats}
    listed = sorted(functions, key=lambda f: (f.archived, f.app, f.slug))
    return await site.page(
        request,
        "functions.html",
        title="Functions",
        section="functions",
        live="run function",
        period=chosen,
        periods=PERIODS,
        lines=[(f, by_id.get(f.id), flow_by_id.get(f.id)) for f in listed],
        many_apps=len({f.app for f in functions}) > 1,
    )
