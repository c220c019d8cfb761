"""The queue and the waits: what executes, who is in line and for what, what is due next, which events are waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from holdfast.base.ids import ulid_text
from holdfast.core.signals import SIGNAL_LOOKUP
from holdfast.core.waiting import CHILD_LOOKUP
from holdfast.dashboard.pages.flow import REFRESH_MS
from holdfast.dashboard.site import Site
from holdfast.engine.engine import Engine
from holdfast.store.reads import WaitView

TIMERS = 50
WAITS = 200
EXECUTING = 50


class Executing(msgspec.Struct, frozen=True):
    """A run in this process's memory."""

    run_id: str
    function: str
    since: int
    steps: tuple[str, ...]
    """Keys of the step bodies that execute now; none while it is between two steps, or lingers in memory over a wait."""


class WaitLine(msgspec.Struct, frozen=True):
    """What one or more runs wait for."""

    what: str
    """An event's name, `signal NAME`, or the end of an invoked run."""
    count: int
    expires: int | None
    """When the first of them gives up."""
    waits: tuple[tuple[WaitView, str], ...]
    """Each with its condition."""


async def show(site: Site, request: Request) -> Response:
    flows, timers, waits = await asyncio.gather(
        site.reader.flow(), site.reader.timers(limit=TIMERS + 1), site.reader.waits(limit=WAITS + 1)
    )
    return await site.page(
        request,
        "queue.html",
        title="Queue and waits",
        section="queue",
        live="run function",
        every=REFRESH_MS,
        in_line=sorted((flow for flow in flows if flow.backlog.queued), key=lambda flow: flow.backlog.oldest or 0),
        executing=executing(site.engine),
        in_memory=site.engine.in_flight,
        timers=timers[:TIMERS],
        more_timers=len(timers) > TIMERS,
        waits=grouped(waits[:WAITS]),
        more_waits=len(waits) > WAITS,
    )


def executing(engine: Engine) -> list[Executing]:
    """Runs in memory, those that have been there longest first."""
    found = [
        Executing(ulid_text(run_id), engine.slug_of(live.run.function_id), live.run.started_at or live.run.queued_at, tuple(live.bodies))
        for run_id, live in list(engine.live.items())[:EXECUTING]
    ]
    return sorted(found, key=lambda one: (not one.steps, one.since))


def grouped(waits: Sequence[WaitView]) -> list[WaitLine]:
    """Waits grouped by what they are for, most first."""
    groups: dict[str, list[tuple[WaitView, str]]] = {}
    for wait in waits:
        what, condition = _waited_for(wait)
        groups.setdefault(what, []).append((wait, condition))
    lines = []
    for name, found in groups.items():
        ends = [wait.expires for wait, _ in found if wait.expires is not None]
        lines.append(WaitLine(name, len(found), min(ends, default=None), tuple(found)))
    return sorted(lines, key=lambda line: (-line.count, line.what))


def _waited_for(wait: WaitView) -> tuple[str, str]:
    """What a run waits for, and the condition it has to meet."""
    if wait.lookup.startswith(SIGNAL_LOOKUP):
        return f"signal {wait.lookup.removeprefix(SIGNAL_LOOKUP)}", ""
    if wait.lookup.startswith(CHILD_LOOKUP):
        return "end of an invoked run", ""
    name, path, value = (*wait.lookup.split("\0", 2), "", "")[:3]
    return name, f"{path} is {value}" if path else wait.expression or ""
