"""Cron: each occurrence is decided once, by a unique row; downtime is caught up with once, visibly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from holdfast.base.clock import iso
from holdfast.core.cron import Schedule
from holdfast.core.ingest import Incoming, Match
from holdfast.core.occurrences import FireCron, SetCron
from holdfast.core.rows import EventRow
from holdfast.engine.timers import Timers

if TYPE_CHECKING:
    from holdfast.engine.engine import Engine
    from holdfast.engine.functions import Registered

_MAX_COUNTED = 10_000


class Crons:
    """Fires the schedules of this node's functions."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._next: dict[tuple[int, str], int] = {}
        self._timers = Timers(engine.clock, self._fire)

    async def start(self) -> None:
        """Register schedules and arm the first."""
        engine = self._engine
        now = engine.clock.now()
        known = engine.store.cron_rows()
        for fn in engine.functions.values():
            wanted = {t.cron: Schedule.parse(t.cron).after(now) for t in fn.function.triggers if t.cron is not None}
            before = [row.schedule for row in known if row.function_id == fn.id]
            if wanted or before:
                await engine.submit(SetCron(fn.id, wanted, before))
        for row in engine.store.cron_rows():
            if engine.function_by_id(row.function_id) is not None:
                self._next[row.function_id, row.schedule] = row.next_at
        self._arm()

    def stop(self) -> None:
        """Fire no more."""
        self._timers.cancel()

    def _arm(self) -> None:
        self._timers.cancel()
        self._timers.arm(min(self._next.values(), default=None))

    def _fire(self) -> None:
        now = self._engine.clock.now()
        for (function_id, schedule), next_at in list(self._next.items()):
            fn = self._engine.function_by_id(function_id)
            if next_at <= now and fn is not None:
                parsed = Schedule.parse(schedule)
                # catch-up is once: the latest occurrence stands for those missed before it
                occurrences = [next_at, *parsed.between(next_at, now, _MAX_COUNTED)]
                following = parsed.after(now)
                self._next[function_id, schedule] = following
                incoming = self.incoming(fn, schedule, occurrences[-1])
                plan = FireCron(function_id, schedule, occurrences[-1], occurrences[:-1], following, incoming)
                plan.then = self._engine.accepted
                self._engine.submit(plan)
        self._arm()

    def incoming(self, fn: Registered, schedule: str, occurrence: int) -> Incoming:
        """The scheduled.timer event of an occurrence, and its run."""
        engine = self._engine
        now = engine.clock.now()
        data = {"cron": schedule, "scheduledAt": iso(occurrence), "fireAt": iso(now)}
        row = EventRow(engine.ids.new(now), "inngest/scheduled.timer", now, now, msgspec.json.encode(data))
        return Incoming(row, [Match(engine.ids.new(now + 1), fn.id, fn.version, str(fn.id), origin=4)])
