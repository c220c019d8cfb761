"""The overview: what runs, what fails, whether the engine and its store are well."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from holdfast.dashboard import humanize
from holdfast.dashboard.charts import runs_chart
from holdfast.dashboard.pages.period import PERIODS, Period, named, period
from holdfast.dashboard.site import Site
from holdfast.store.reads import FunctionStats, Overview

SLICES = 60
_BACKLOG_WORTH_SAYING_MS = 5000


class Tile(msgspec.Struct, frozen=True):
    """A counter."""

    label: str
    value: str
    hint: str
    path: str
    params: dict[str, str]
    tone: str


async def show(site: Site, request: Request) -> Response:
    now = site.now()
    chosen = period(request)
    overview = await _overview(site, chosen, now)
    if "period" not in request.query_params and is_new(overview, now):
        chosen = named("1h")
        overview = await _overview(site, chosen, now)
    stats, functions = await asyncio.gather(site.reader.stats(since=now - chosen.ms), site.reader.functions())
    status = site.engine.status()
    return await site.page(
        request,
        "home.html",
        title="Overview",
        section="home",
        live="run event dead function",
        every=15_000,
        period=chosen,
        periods=PERIODS,
        overview=overview,
        tiles=tiles(overview, chosen, now),
        chart=runs_chart(overview),
        stats=by_trouble(stats),
        any_functions=any(not f.archived for f in functions),
        any_events=overview.events > 0 or any(s.started for s in stats),
        health=health(overview, status, now),
        status=status,
    )


async def _overview(site: Site, chosen: Period, now: int) -> Overview:
    return await site.reader.overview(since=now - chosen.ms, now=now, slices=SLICES)


def is_new(overview: Overview, now: int) -> bool:
    """Whether all there is to see is of the last hour, which a chart over a day would press into one bar."""
    busy = [start for start, *counts in overview.buckets if any(counts)]
    return bool(busy) and min(busy) > now - PERIODS["1h"][1]


def tiles(overview: Overview, chosen: Period, now: int) -> list[Tile]:
    """The counters at the top."""
    minutes = chosen.ms / 60_000
    oldest = ""
    if overview.oldest_ready_at is not None and now - overview.oldest_ready_at > _BACKLOG_WORTH_SAYING_MS:
        oldest = f"oldest for {humanize.coarse(now - overview.oldest_ready_at)}"
    since = {"since": chosen.key}
    return [
        Tile(
            "Running",
            humanize.compact(overview.running),
            "executing now",
            "/runs",
            {"status": "RUNNING"},
            "run" if overview.running else "",
        ),
        Tile("Queued", humanize.compact(overview.queued), "not started yet", "/runs", {"status": "QUEUED"}, ""),
        Tile(
            "Waiting",
            humanize.compact(overview.waiting),
            "for time or event",
            "/runs",
            {"status": "WAITING"},
            "wait" if overview.waiting else "",
        ),
        Tile(
            "Failed",
            humanize.compact(overview.failed),
            f"last {chosen.label}",
            "/runs",
            {"status": "FAILED", **since},
            "bad" if overview.failed else "",
        ),
        Tile(
            "Dead letters",
            humanize.compact(overview.dead),
            "redrive or discard",
            "/dead-letters",
            {},
            "bad" if overview.dead else "",
        ),
        Tile(
            "Backlog",
            humanize.compact(overview.backlog),
            oldest or "no free place",
            "/runs",
            {"status": "QUEUED"},
            "retry" if oldest else "",
        ),
        Tile(
            "Events / min",
            per_minute(overview.events / minutes),
            f"{humanize.compact(overview.events)} in {chosen.key}",
            "/events",
            {},
            "",
        ),
    ]


def per_minute(rate: float) -> str:
    """A rate that may be far below one: `0.03`, `4.2`, `1,250`."""
    if 0 < rate < 0.01:
        return "<0.01"
    return (
        f"{rate:.2f}"
        if 0 < rate < 1
        else f"{rate:.1f}".removesuffix(".0")
        if rate < 10
        else humanize.compact(round(rate))
    )


def by_trouble(stats: Any) -> list[FunctionStats]:
    """Functions with the most failures first, then the busiest."""
    return sorted(stats, key=lambda s: (-s.failed, -s.started, s.function))


def health(overview: Overview, status: dict[str, Any], now: int) -> list[tuple[str, str, str]]:
    """(what, value, hint) lines about engine and store."""
    delay = 0 if overview.oldest_ready_at is None else max(0, now - overview.oldest_ready_at)
    timers = humanize.plural(overview.timers, "timer")
    next_timer = (
        f"next {humanize.ago(overview.next_timer_at, now)}" if overview.next_timer_at is not None else "none set"
    )
    return [
        ("Store", humanize.size(overview.store_bytes), str(status.get("store_url", ""))),
        (
            "In flight",
            f"{humanize.number(int(status.get('in_flight', 0)))} of {humanize.number(int(status.get('capacity', 0)))}",
            f"places on node {status.get('node', '')}",
        ),
        ("Queue delay", humanize.duration(delay), "age of the oldest ready item"),
        ("Timers", timers, next_timer),
        ("Accepting", "yes" if status.get("accepting") else "no", "new events"),
    ]
