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


class FollowingClock(SystemClock):
    """A clock that several machines share: set by a server's time, and carried on by what never jumps on this machine."""

    __slots__ = ("_set",)

    def __init__(self) -> None:
        self._set = (time.time() * 1000, time.monotonic())

    def set(self, ms: float, at: float) -> None:
        """It was `ms` at the monotonic moment `at`."""
        self._set = (ms, at)

    def now(self) -> int:
        ms, at = self._set
        return int(ms + (time.monotonic() - at) * 1000)


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
