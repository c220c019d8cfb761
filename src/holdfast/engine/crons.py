"""Cron: each occurrence is decided once, by a unique row; downtime is caught up with once, visibly."""

from __future__ import annotations

import msgspec

from holdfast.base.clock import iso
from holdfast.core.cron import Schedule
from holdfast.core.ingest import Incoming
from holdfast.core.occurrences import FireCron, SetCron
from holdfast.core.rows import EventRow
from holdfast.engine.functions import Registered
from holdfast.engine.host import Host
from holdfast.engine.timers import Timers

_MAX_COUNTED = 10_000


class Crons:
    """Fires the schedules of this node's functions."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._next: dict[tuple[int, str], int] = {}
        self._timers = Timers(host.clock, self._fire)

    async def start(self) -> None:
        """Register schedules and arm the first."""
        host = self._host
        now = host.clock.now()
        known = host.store.cron_rows()
        for fn in host.functions.values():
            wanted = {t.cron: Schedule.parse(t.cron).after(now) for t in fn.function.triggers if t.cron is not None}
            before = [row.schedule for row in known if row.function_id == fn.id]
            if wanted or before:
                await host.submit(SetCron(fn.id, wanted, before))
        for row in host.store.cron_rows():
            if host.function_by_id(row.function_id) is not None:
                self._next[row.function_id, row.schedule] = row.next_at
        self._arm()

    def stop(self) -> None:
        """Fire no more."""
        self._timers.cancel()

    def _arm(self) -> None:
        self._timers.cancel()
        self._timers.arm(min(self._next.values(), default=None))

    def _fire(self) -> None:
        now = self._host.clock.now()
        for (function_id, schedule), next_at in list(self._next.items()):
            fn = self._host.function_by_id(function_id)
            if next_at <= now and fn is not None:
                parsed = Schedule.parse(schedule)
                # catch-up is once: the latest occurrence stands for those missed before it
                occurrences = [next_at, *parsed.between(next_at, now, _MAX_COUNTED)]
                following = parsed.after(now)
                self._next[function_id, schedule] = following
                incoming = tick(self._host, fn, schedule, occurrences[-1])
                plan = FireCron(function_id, schedule, occurrences[-1], occurrences[:-1], following, incoming)
                plan.then = self._host.accepted
                self._host.submit(plan)
        self._arm()


def tick(host: Host, fn: Registered, schedule: str, occurrence: int) -> Incoming:
    """The scheduled.timer event of an occurrence, and its run."""
    now = host.clock.now()
    data = {"cron": schedule, "scheduledAt": iso(occurrence), "fireAt": iso(now)}
    row = EventRow(host.ids.new(now), "inngest/scheduled.timer", now, now, msgspec.json.encode(data))
    return Incoming(row, [host.intake.match(row, host.ids.new(now + 1), fn.id, fn.version, origin=4)])
