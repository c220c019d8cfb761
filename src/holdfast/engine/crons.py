"""Cron: each occurrence is decided once, by a compare-and-set and a unique row; downtime is caught up with visibly."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from holdfast.base.clock import iso
from holdfast.base.errors import HoldfastError
from holdfast.core.cron import Schedule
from holdfast.core.firing import Decision, Firing
from holdfast.core.ingest import Incoming
from holdfast.core.occurrences import FireCron, SetCron
from holdfast.core.plan import Refused, Tx
from holdfast.core.rows import CronRow, EventRow
from holdfast.engine.functions import Registered
from holdfast.engine.host import Host
from holdfast.engine.remote_functions import RemoteFunction
from holdfast.engine.timers import Timers

_log = logging.getLogger("holdfast")
_RETRY_MS = 5000


@dataclass(slots=True)
class _Line:
    """A schedule of a function of this node."""

    fn: Registered | RemoteFunction
    firing: Firing
    next_at: int
    due: int
    deciding: bool = False


class Crons:
    """Fires the schedules of this node's functions."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._lines: dict[tuple[int, str], _Line] = {}
        self._timers = Timers(host.clock, self._fire)
        self._stopped = False

    async def start(self) -> None:
        """Register schedules and arm the first."""
        host = self._host
        await self._follow([(fn, firings_of(fn)) for fn in host.functions.values()])
        await self.follow_applications(list(host.applications.functions.values()))

    async def follow_applications(self, functions: Sequence[RemoteFunction]) -> None:
        """Take up the schedules of functions that are called over HTTP; those of functions that are gone fire no more."""
        kept = {fn.id for fn in functions} | {fn.id for fn in self._host.functions.values()}
        for key in [key for key in self._lines if key[0] not in kept]:
            del self._lines[key]
        await self._follow([(fn, fn.firings) for fn in functions])

    async def _follow(self, functions: Sequence[tuple[Registered | RemoteFunction, list[Firing]]]) -> None:
        host = self._host
        now = host.clock.now()
        stored = host.store.cron_rows()
        for fn, firings in functions:
            wanted = {firing.schedule.text: firing.schedule.after(now) for firing in firings}
            known = {row.schedule: row.next_at for row in stored if row.function_id == fn.id}
            if wanted or known:
                await host.submit(SetCron(fn.id, wanted, known))
        by_key = {(fn.id, firing.schedule.text): (fn, firing) for fn, firings in functions for firing in firings}
        ids = {fn.id for fn, _ in functions}
        for key in [key for key in self._lines if key[0] in ids and key not in by_key]:
            del self._lines[key]
        for row in host.store.cron_rows():
            found = by_key.get((row.function_id, row.schedule))
            if found is not None:
                fn, firing = found
                self._lines[row.function_id, row.schedule] = _Line(fn, firing, row.next_at, firing.due(row.next_at))
        self._arm()

    def stop(self) -> None:
        """Fire no more."""
        self._stopped = True
        self._timers.cancel()

    def _arm(self) -> None:
        self._timers.cancel()
        if not self._stopped:
            self._timers.arm(min((line.due for line in self._lines.values() if not line.deciding), default=None))

    def _fire(self) -> None:
        now = self._host.clock.now()
        for key, line in list(self._lines.items()):
            if line.due <= now and not line.deciding:
                self._decide(key, line, now)
        self._arm()

    def _decide(self, key: tuple[int, str], line: _Line, now: int) -> None:
        decision = line.firing.decide(line.next_at, now)
        incoming = [tick(self._host, line.fn, key[1], occurrence) for occurrence in decision.fire]
        if decision.missed_count:
            _log.warning(
                "%s missed %d occurrences of its schedule %s while nothing was there to fire them; catch-up %r fires %d now",
                line.fn.slug,
                decision.missed_count,
                key[1],
                line.firing.catch_up,
                len(decision.fire),
            )
        plan = FireCron(*key, line.next_at, decision, incoming)
        plan.then = self._host.accepted
        line.deciding = True
        try:
            self._host.submit(plan).add_done_callback(partial(self._decided, key, line, decision))
        except HoldfastError as error:
            self._postpone(key, line, error)

    def _decided(self, key: tuple[int, str], line: _Line, decision: Decision, future: asyncio.Future[Any]) -> None:
        line.deciding = False
        if future.cancelled() or self._stopped:
            return
        error = future.exception()
        if error is not None:
            self._postpone(key, line, error)
        elif isinstance(future.result(), Refused):
            self._look_again(key, line)
        else:
            line.next_at = decision.next_at
            line.due = line.firing.due(line.next_at)
        self._arm()

    def _postpone(self, key: tuple[int, str], line: _Line, error: BaseException) -> None:
        line.deciding = False
        line.due = self._host.clock.now() + _RETRY_MS
        _log.warning("%s could not be fired by its schedule %s and will be again: %s", line.fn.slug, key[1], error)

    def _look_again(self, key: tuple[int, str], line: _Line) -> None:
        """Somebody else has decided: go on from what is on record."""
        self._host.store.fetch_then([(CronRow, key)], partial(self._looked, key, line))

    def _looked(self, key: tuple[int, str], line: _Line, rows: Tx) -> None:
        row = rows.get(CronRow, key)
        if row is None:
            self._lines.pop(key, None)
        else:
            line.next_at = row.next_at
            line.due = line.firing.due(row.next_at)
        self._arm()


def firings_of(fn: Registered) -> list[Firing]:
    """How the schedules of a function fire, as its code has them now."""
    return [
        Firing(Schedule.parse(t.cron), fn.slug, t.jitter_ms, t.catch_up, t.catch_up_limit)
        for t in fn.function.triggers
        if t.cron is not None
    ]


def tick(host: Host, fn: Registered | RemoteFunction, schedule: str, occurrence: int) -> Incoming:
    """The scheduled.timer event of an occurrence, and its run (protocol section 4)."""
    now = host.clock.now()
    scheduled = iso(occurrence)
    data = {"cron": schedule, "scheduledAt": scheduled, "fireAt": iso(now)}
    row = EventRow(host.ids.new(now), "inngest/scheduled.timer", now, now, msgspec.json.encode(data), scheduled)
    match = host.intake.match(row, host.ids.new(now + 1), fn.id, fn.version, origin=4)
    # two schedules may have an occurrence at the same moment: what is unique is the row of the occurrence
    return Incoming(row, [match], deduplicated=False)
