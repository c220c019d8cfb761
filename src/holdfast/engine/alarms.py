"""What happens to runs at a moment: timeouts, cancellations, and debounces and batches whose time has come."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from holdfast.base.errors import HoldfastError
from holdfast.base.ids import ulid_text
from holdfast.core.ending import Cancel, Ending
from holdfast.core.gathering import FireGather
from holdfast.core.ingest import Accepted
from holdfast.core.plan import Refused
from holdfast.core.rows import AlarmKind, AlarmRow, EventRow, GatherRow, RunRow, RunStatus
from holdfast.engine.host import Host
from holdfast.engine.timers import Timers

_log = logging.getLogger("holdfast")
_AT_ONCE = 500
_RETRY_MS = 1000
_FAILED: Final = Refused("it could not be decided")


class Alarms:
    """Looks at what is due and submits the plans that decide it; each checks its row again."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._timers = Timers(host.clock, self._ring)
        self._ringing: asyncio.Task[None] | None = None
        self._again = False

    def start(self) -> None:
        """Begin with what became due while nothing ran."""
        self._timers.arm(self._host.store.next_alarm())

    def stop(self) -> None:
        """Ring no more."""
        self._timers.cancel()
        if self._ringing is not None:
            self._ringing.cancel()

    @property
    def ringing(self) -> bool:
        """Whether something that is due is being decided."""
        return self._ringing is not None and not self._ringing.done()

    def arm(self, at: int) -> None:
        """Something was committed that is due then; at once when that is past."""
        if at <= self._host.clock.now():
            self._ring()
        else:
            self._timers.arm(at)

    def _ring(self) -> None:
        if self.ringing:
            self._again = True
            return
        if self._host.running:
            self._ringing = self._host.loop.create_task(self._decide_due())

    async def _decide_due(self) -> None:
        host = self._host
        try:
            while True:
                self._again = False
                now = host.clock.now()
                gathers = await host.store.due_gathers(now, _AT_ONCE)
                due = [partial(self._cancelling, alarm) for alarm in await host.store.due_alarms(now, _AT_ONCE)]
                due += [partial(fire, host, gather) for gather in gathers]
                answers = await asyncio.gather(*map(self._decide, due))
                if _FAILED in answers:
                    self._timers.arm(host.clock.now() + _RETRY_MS)
                    return
                if not any(answers) and not self._again:
                    break
            self._timers.arm(host.store.next_alarm())
        except HoldfastError as error:
            _log.warning("timeouts, cancellations and debounces wait: %s", error)
            self._timers.arm(host.clock.now() + _RETRY_MS)

    async def _decide(self, one: Callable[[], Awaitable[Any]]) -> Any:
        """One of them; what it does wrong must not keep the others from being decided."""
        try:
            return await one()
        except HoldfastError:
            raise
        except Exception:
            _log.exception("a timeout, cancellation, debounce or batch could not be decided, and is tried again")
            return _FAILED

    async def _cancelling(self, alarm: AlarmRow) -> Any:
        host = self._host
        rows = await host.store.read([(RunRow, alarm.run_id)])
        run = rows.get(RunRow, alarm.run_id)
        events: Any = ()
        if run is not None and run.ended_at is None:
            event = (await host.store.read([(EventRow, run.event_id)])).get(EventRow, run.event_id)
            events = host.end_events(run, event, Ending(RunStatus.CANCELLED))
        plan = Cancel(alarm.run_id, events, alarm=AlarmKind(alarm.kind))
        plan.then = lambda accepted: host.run_cancelled(run, accepted)
        return await host.submit(plan)


async def fire(host: Host, gather: GatherRow, *, flush: bool = False) -> Accepted | Refused:
    """Start the run that events have waited to become."""
    event = (await host.store.read([(EventRow, gather.event_id)])).get(EventRow, gather.event_id)
    if event is None:
        _log.error("the event of a debounced or batched run is gone: %s", ulid_text(gather.event_id))
        event = EventRow(gather.event_id, "", gather.ts, gather.first_at, b"{}")
    match = host.intake.match(event, gather.run_id, gather.function_id, host.version_of(gather.function_id))
    plan = FireGather(gather, event, match, flush=flush)
    plan.then = host.accepted
    return await host.submit(plan)
