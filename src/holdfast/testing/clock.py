"""A clock for tests: time stands still while anything moves, and jumps to the next due moment when a test lets it pass."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from contextvars import Context, copy_context
from datetime import datetime
from typing import Protocol

from holdfast.base.clock import SystemClock, TimerHandle, monotonic, to_datetime, to_ms
from holdfast.base.duration import Duration, duration_ms, duration_text

DEFAULT_PATIENCE = 10.0
"""Seconds of real time."""
MAX_JUMPS = 100_000
"""Due moments that `settle` without a horizon passes before it takes the work for endless."""
_CALM_ROUNDS = 3
_BLIND_CALM_ROUNDS = 25
"""Of a loop that doesn't show what is ready, such as uvloop's: a chain of callbacks as long as this is seen."""
_EAGER_ROUNDS = 50
_NAP = 0.0005


class Watched(Protocol):
    """Something that time must not outrun, such as an engine."""

    @property
    def quiescent(self) -> bool:
        """Whether nothing moves until time passes or something comes from outside."""
        ...

    @property
    def next_due(self) -> int | None:
        """When work goes on by itself, recurring schedules aside."""
        ...

    def activity(self) -> list[str]:
        """What moves, in words."""
        ...

    async def revive(self) -> bool:
        """Bring it back if it has died; whether it had."""
        ...


class NotQuietError(AssertionError):
    """Something kept moving for longer, in real time, than the test has patience; the message says what."""


class VirtualClock:
    """A `holdfast.base.clock.Clock` whose time is the test's.

    `now()` stays the same until the test awaits `advance` or `settle`. These go from one due moment to the next, and leave
    a moment only when all that is watched is quiet: no step body, no thread, no commit and no other code of a run is on
    its way. So a step that waits for a real network is waited for in real time, and a sleep of thirty days takes none.

    Only time that holdfast keeps is virtual: sleeps, waits, backoff, schedules and `ctx.now()`. `asyncio.sleep`,
    `time.time()` and the time-outs of step bodies follow the computer's clock.

    Args:
        start: The first moment: a datetime (naive is UTC) or milliseconds since 1970. Default: now.
        patience: Seconds of real time after which something that keeps moving fails the test.
    """

    def __init__(self, start: datetime | int | None = None, *, patience: float = DEFAULT_PATIENCE) -> None:
        if start is None:
            start = SystemClock().now()
        self._now = start if isinstance(start, int) else to_ms(start)
        self.patience = patience
        self._timers: list[_VirtualTimer] = []
        self._count = 0
        self._watched: list[Watched] = []
        self._moving = asyncio.Lock()

    def now(self) -> int:
        """Milliseconds since 1970."""
        return self._now

    @property
    def time(self) -> datetime:
        """The current moment, in UTC."""
        return to_datetime(self._now)

    def call_at(self, when: int, callback: Callable[[], None]) -> TimerHandle:
        """Call back on the running loop once the time is `when`."""
        timer = _VirtualTimer(when, self._count, callback)
        self._count += 1
        if when <= self._now:
            timer.fire()
        else:
            heapq.heappush(self._timers, timer)
        return timer

    def watch(self, watched: Watched) -> None:
        """Don't let time outrun this."""
        self._watched.append(watched)

    @property
    def next_timer(self) -> int | None:
        """The earliest moment for which anything at all is scheduled."""
        while self._timers and self._timers[0].cancelled:
            heapq.heappop(self._timers)
        return self._timers[0].when if self._timers else None

    @property
    def next_due(self) -> int | None:
        """The earliest moment at which a run goes on by itself; recurring schedules are not counted."""
        return min((due for watched in self._watched if (due := watched.next_due) is not None), default=None)

    # -- letting time pass -------------------------------------------------------------------------------------------------

    async def quiesce(self) -> None:
        """Let everything happen that can happen without time passing.

        Raises:
            NotQuietError: something still moves after `patience` seconds.
        """
        async with self._moving:
            await self._quiesce()

    async def advance(self, duration: Duration) -> None:
        """Let this much time pass, with everything that is due on the way happening at its moment.

        Args:
            duration: A timedelta, seconds, or text such as "1h30m".

        Raises:
            NotQuietError: something still moves after `patience` seconds.
        """
        async with self._moving:
            end = self._now + duration_ms(duration)
            await self._quiesce()
            while (when := self.next_timer) is not None and when <= end:
                await self._jump(when)
            self._now = end

    async def settle(self, within: Duration | None = None) -> None:
        """Let time pass until nothing happens any more unless something comes from outside.

        Recurring schedules fire on the way, but don't keep time going. The clock stops at the last moment at which
        something was due.

        Args:
            within: Let everything that is due within this time happen, schedules included, and leave the rest.

        Raises:
            NotQuietError: something still moves after `patience` seconds, or there is no end of due moments.
        """
        end = None if within is None else self._now + duration_ms(within)
        begin, jumps = self._now, 0
        while await self.step(end, recurring=end is not None):
            jumps += 1
            if end is None and jumps >= MAX_JUMPS:
                passed = duration_text(self._now - begin)
                raise NotQuietError(
                    f"{jumps} due moments in {passed} and no end in sight: give settle a limit with within=..."
                )

    async def step(self, end: int | None = None, *, recurring: bool = False) -> bool:
        """Finish what can happen now, then jump to the next due moment and finish what it causes.

        Args:
            end: Don't jump further than to this moment.
            recurring: Whether to jump even when only a recurring schedule is due.

        Returns:
            False when there was no moment to jump to.
        """
        async with self._moving:
            await self._quiesce()
            when = self.next_timer
            if when is None or (end is not None and when > end) or not (recurring or self.next_due is not None):
                return False
            await self._jump(when)
            return True

    async def _jump(self, when: int) -> None:
        self._now = max(self._now, when)
        while (due := self.next_timer) is not None and due <= self._now:
            heapq.heappop(self._timers).fire()
        await self._quiesce()

    async def _quiesce(self) -> None:
        loop = asyncio.get_running_loop()
        ready = getattr(loop, "_ready", None)
        needed = _BLIND_CALM_ROUNDS if ready is None else _CALM_ROUNDS
        calm, rounds, deadline = 0, 0, monotonic() + self.patience
        while calm < needed:
            if calm or rounds < _EAGER_ROUNDS:
                await asyncio.sleep(0)
            else:
                await _nap(loop)  # long work, or another test's clock on this loop: leave the processor to it
            rounds += 1
            # what is ready now, while this task runs, is what would run next
            quiet = not ready and all(watched.quiescent for watched in self._watched)
            calm = calm + 1 if quiet else 0
            if calm == needed and any([await watched.revive() for watched in self._watched]):
                calm, deadline = 0, monotonic() + self.patience
            if not quiet and monotonic() > deadline:
                raise NotQuietError(self._unrest())

    def _unrest(self) -> str:
        found = [text for watched in self._watched for text in watched.activity()]
        listed = "; ".join(found) if found else "tasks of the test itself keep the loop busy"
        return (
            f"time can't pass, because things are still moving after {self.patience:g} s of real time: {listed}. "
            "Virtual time waits for real work; if it only takes long, raise patience="
        )


class _VirtualTimer:
    __slots__ = ("_callback", "_context", "_order", "cancelled", "when")

    def __init__(self, when: int, order: int, callback: Callable[[], None]) -> None:
        self.when = when
        self.cancelled = False
        self._order = order
        self._callback = callback
        self._context: Context = copy_context()

    def fire(self) -> None:
        asyncio.get_running_loop().call_soon(self._call, context=self._context)

    def _call(self) -> None:
        if not self.cancelled:
            self._callback()

    def cancel(self) -> None:
        self.cancelled = True

    def __lt__(self, other: _VirtualTimer) -> bool:
        return (self.when, self._order) < (other.when, other._order)


async def _nap(loop: asyncio.AbstractEventLoop) -> None:
    awake = loop.create_future()
    handle = loop.call_later(_NAP, _wake, awake)
    try:
        await awake
    finally:
        handle.cancel()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
