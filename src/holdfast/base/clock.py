"""Time as a parameter: the only module that reads a clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol


class TimerHandle(Protocol):
    """Something that can still be called off."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """What the engine asks of time. All moments are integer milliseconds since 1970, UTC."""

    def now(self) -> int:
        """Milliseconds since 1970."""
        ...

    def call_at(self, when: int, callback: Callable[[], None]) -> TimerHandle:
        """Call back on the running loop at `when`, never earlier, as soon after as the loop allows."""
        ...


class SystemClock:
    """The wall clock. A timer that the wall clock would still call early (it was set back) is armed again."""

    __slots__ = ()

    def now(self) -> int:
        return time.time_ns() // 1_000_000

    def call_at(self, when: int, callback: Callable[[], None]) -> TimerHandle:
        # capped, so that a wall clock set forward is noticed within the minute
        delay = min(max(0, when - self.now()), 60_000)
        return _Timer(self, when, callback, delay)


_DRIFT = 0.0002
"""By how much two clocks that are kept in step may differ in their pace."""


class FollowingClock(SystemClock):
    """A clock that several machines share: set by a server's time, and carried on by what never jumps on this machine.

    A reading that took long says little; what earlier ones have said still holds, but for the little by which clocks drift.
    So the clock is as good as the quickest reading, however slow the last one was.
    """

    __slots__ = ("_ahead", "_bounds")

    def __init__(self) -> None:
        self._ahead = (time.time() - time.monotonic()) * 1000
        """Milliseconds by which the server's time is ahead of the monotonic clock."""
        self._bounds: tuple[float, float, float] | None = None
        """Between what that certainly is, and the monotonic moment when this was so."""

    def set(self, ms: float, before: float, after: float) -> None:
        """The server said `ms`, in whole milliseconds, at some moment between these monotonic ones."""
        low, high = ms - after * 1000, ms + 1 - before * 1000
        if self._bounds is not None:
            known_low, known_high, at = self._bounds
            slack = (after - at) * 1000 * _DRIFT
            if low <= known_high + slack and high >= known_low - slack:
                low, high = max(low, known_low - slack), min(high, known_high + slack)
            # else the server's clock was set, or it is another server
        self._bounds = (low, high, after)
        self._ahead = (low + high) / 2

    def now(self) -> int:
        return int(self._ahead + time.monotonic() * 1000)


class _Timer:
    __slots__ = ("_callback", "_clock", "_handle", "_when")

    def __init__(self, clock: SystemClock, when: int, callback: Callable[[], None], delay: int) -> None:
        self._clock = clock
        self._when = when
        self._callback = callback
        self._handle = asyncio.get_running_loop().call_later(delay / 1000, self._fire)

    def _fire(self) -> None:
        left = self._when - self._clock.now()
        if left > 0:
            self._handle = asyncio.get_running_loop().call_later(min(left, 60_000) / 1000, self._fire)
        else:
            self._callback()

    def cancel(self) -> None:
        self._handle.cancel()


def monotonic() -> float:
    """Seconds that never go back, for measuring durations."""
    return time.monotonic()


def iso(ms: int | None) -> str | None:
    """RFC 3339 with milliseconds in UTC, as every API of holdfast writes time; None stays None."""
    if ms is None:
        return None
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_datetime(ms: int) -> datetime:
    """An aware datetime in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC)


def to_ms(moment: datetime) -> int:
    """Milliseconds since 1970 of a datetime; a naive one is taken as UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)
