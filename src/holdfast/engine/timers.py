"""Waking the dispatcher when the next timer in the store is due."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.base.clock import Clock, TimerHandle


class Timers:
    """One armed timer: the earliest moment anybody asked for."""

    __slots__ = ("_callback", "_clock", "_handle", "due")

    def __init__(self, clock: Clock, callback: Callable[[], None]) -> None:
        self._clock = clock
        self._callback = callback
        self._handle: TimerHandle | None = None
        self.due: int | None = None

    def arm(self, due: int | None) -> None:
        """Call back at `due`, unless it is armed for earlier."""
        if due is None or (self.due is not None and self.due <= due):
            return
        self.cancel()
        self.due = due
        self._handle = self._clock.call_at(due, self._fire)

    def _fire(self) -> None:
        self.due = None
        self._handle = None
        self._callback()

    def cancel(self) -> None:
        """Disarm."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self.due = None
