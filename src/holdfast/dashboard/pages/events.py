"""The list of events, with what each started or why it did not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from holdfast.dashboard import payload
from holdfast.dashboard.site import Site
from holdfast.store.reads import EventView, MatchedWaitView, RunView, SkipView, reasons

PAGE = 25


class EventLine(msgspec.Struct, frozen=True):
    """An event of the list."""

    event: EventView
    data: payload.Payload | None
    started: Sequence[RunView]
    """Runs it started, or is part of."""
    waiting: Sequence[SkipView]
    """Functions it will start: it is debounced, or in a batch."""
    refused: Sequence[SkipView]
    """Functions it did not start; never empty when nothing came of it."""
    matched: Sequence[MatchedWaitView]
    """Runs that waited for it."""


async def show(site: Site, request: Request) -> Response:
    params = request.query_params
    name, cursor, internal = params.get("name", "").strip(), params.get("cursor") or None, params.get("internal") == "1"
    (found, older), names = await asyncio.gather(
        site.reader.events(
            name=name or None, limit=PAGE, cursor=cursor, internal=internal or name.startswith("inngest/")
        ),
        site.reader.event_names(),
    )
    lines = await asyncio.gather(*(line(site, event) for event in found))
    return await site.page(
        request,
        "events.html",
        title="Events",
        section="events",
        live="" if cursor else "event run",
        lines=lines,
        older=older,
        cursor=cursor,
        name=name,
        internal=internal,
        event_names=names,
    )


async def line(site: Site, event: EventView) -> EventLine:
    """An event with its consequences."""
    runs, skips, matched = await asyncio.gather(
        site.reader.event_runs(event.internal_id),
        site.reader.event_skips(event.internal_id),
        site.reader.matched_waits(event.internal_id),
    )
    return event_line(event, site.show(event.data), runs, skips, matched)


def event_line(
    event: EventView,
    data: payload.Payload | None,
    runs: Sequence[RunView],
    skips: Sequence[SkipView],
    matched: Sequence[MatchedWaitView],
) -> EventLine:
    """Sorts what became of an event. A skipped run is what its reason says, not something that started."""
    told = reasons(event, runs, skips, matched)
    functions = {skip.function for skip in told}
    started = [run for run in runs if run.status != "SKIPPED" or run.function not in functions]
    waiting, refused = [skip for skip in told if skip.waits], [skip for skip in told if not skip.waits]
    return EventLine(event, data, started, waiting, refused, matched)
