"""Schedules: when they fired, when they will, what was missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from holdfast.core.cron import Schedule, next_fires
from holdfast.dashboard import humanize, words
from holdfast.dashboard.forms import Form
from holdfast.dashboard.site import Site
from holdfast.store.reads import CronView, FunctionView

NEXT = 5
_CATCH_UP = {"skip": "missed ones don't fire", "all": "all missed ones fire"}


class CronLine(msgspec.Struct, frozen=True):
    """A schedule of the list."""

    cron: CronView
    words: str
    zone: str
    coming: tuple[tuple[int, str], ...]
    """(ms, text in the schedule's zone)."""
    habits: str
    """Its jitter and catch-up, where they are not the usual."""


async def show(site: Site, request: Request) -> Response:
    crons, functions = await site.reader.crons(), await site.reader.functions()
    names = {f.slug: f.name for f in functions}
    return await site.page(
        request,
        "crons.html",
        title="Crons",
        section="crons",
        live="run function",
        every=30_000,
        names=names,
        lines=lines(crons, site.now(), {f.slug: f for f in functions}),
        runnable={slug for f in functions if (slug := f.slug) and f.app in site.engine.apps},
    )


def lines(
    crons: Sequence[CronView], now: int, functions: Mapping[str, FunctionView] = MappingProxyType({})
) -> list[CronLine]:
    """Schedules with their next occurrences, soonest first."""
    out = []
    for cron in sorted(crons, key=lambda c: (c.next_at, c.function)):
        # one that is due but not decided yet, for its jitter, is still to come
        moments = next_fires(cron.schedule, min(cron.next_at - 1, now), NEXT)
        zone = Schedule.parse(cron.schedule).zone.key
        out.append(
            CronLine(
                cron,
                words.schedule(cron.schedule),
                zone,
                tuple((m, humanize.absolute(m, zone)) for m in moments),
                _habits(functions.get(cron.function), cron.schedule),
            )
        )
    return out


def _habits(function: FunctionView | None, schedule: str) -> str:
    triggers = [] if function is None else function.config.get("triggers")
    found = [t for t in triggers if t.get("cron") == schedule] if isinstance(triggers, list) else []
    parts = []
    for trigger in found[:1]:
        if "jitter" in trigger:
            parts.append(f"up to {trigger['jitter']} later")
        if "catchUp" in trigger:
            parts.append(_CATCH_UP.get(trigger["catchUp"], ""))
    return ", ".join(parts)


async def run_now(site: Site, request: Request, form: Form) -> Response:
    """Fire a schedule now, beside its regular occurrences."""
    function, schedule = form.get("function"), form.get("schedule")
    if not any(c.function == function and c.schedule == schedule for c in await site.reader.crons()):
        raise HTTPException(404, f"There is no schedule '{schedule[:120]}' of '{function[:120]}'.")
    run_id = await site.engine.run_cron(function, schedule)
    await site.audit(request, "cron.run", function, f"{schedule} as {run_id}")
    return site.redirect(
        request, site.url(request, f"/runs/{run_id}"), "Fired now. Its regular occurrences are not affected."
    )
