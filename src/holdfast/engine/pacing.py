"""Keeping plain `def` bodies that compute from taking the interpreter away from the event loop.

One thread at a time executes Python. Beside a few threads that never let go, the loop gets its turn among theirs, and
request handlers, timers and other runs on it take several times as long. So bodies that are known to compute make pauses
while the loop has much to do of its own. They keep a part of the interpreter whatever happens, and all of it otherwise.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from types import CodeType
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from holdfast.base.clock import monotonic

T = TypeVar("T")

COMPUTES_SECONDS = 0.005
"""Processor time of a body from which on it is one that computes."""
BUSY = 0.2
"""Part of the time in which the loop's thread computes, from which on it has much to do."""
PAUSE = 3.0
"""The longest pause before a body, in times of what such a body computes, and for each that is executed."""
MAX_PAUSE_SECONDS = 0.5
_LOOK_SECONDS = 0.02


class Pace:
    """The pace of the bodies that are executed in some threads, beside one event loop or several.

    Args:
        processor: Seconds that the calling thread has computed.
    """

    def __init__(self, processor: Callable[[], float] = time.thread_time) -> None:
        self._processor = processor
        self._costs: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
        self._loops: dict[asyncio.AbstractEventLoop, LoopShare] = {}

    async def run(
        self,
        fn: Callable[..., Any],
        body: Callable[[], T],
        execute: Callable[[Callable[[], T]], Awaitable[T]],
        limit_ms: int,
    ) -> T:
        """Execute a body in a thread, after a pause if it is one that computes and the loop has much to do.

        Args:
            fn: What it calls; what has the same code is expected to compute as much.
            body: The body.
            execute: Executes it in a thread.
            limit_ms: How long it may take. A pause is part of that, and a tenth at most.
        """
        code = _code_of(fn)
        timed = partial(self._timed, code, body)
        cost = self._costs.get(code, 0.0)
        if cost < COMPUTES_SECONDS:
            return await execute(timed)
        loop = self.beside(asyncio.get_running_loop())
        loop.enter()
        try:
            await loop.calm(min(cost * PAUSE * loop.bodies, MAX_PAUSE_SECONDS, limit_ms / 10_000))
            return await execute(timed)
        finally:
            loop.bodies -= 1

    def beside(self, loop: asyncio.AbstractEventLoop) -> LoopShare:
        """What is known of a loop."""
        found = self._loops.get(loop)
        if found is None:
            for other in list(self._loops):
                if other.is_closed():
                    self._loops.pop(other, None)
            found = self._loops[loop] = LoopShare(self._processor)
        return found

    def _timed(self, code: Any, body: Callable[[], T]) -> T:
        """In the thread."""
        began = self._processor()
        try:
            return body()
        finally:
            took = self._processor() - began
            self._costs[code] = (self._costs.get(code, took) + took) / 2


class LoopShare:
    """How much a loop's own thread computes, looked at while bodies that compute are executed or wait."""

    def __init__(self, processor: Callable[[], float]) -> None:
        self._processor = processor
        self.bodies = 0
        self.share = 0.0
        """The part of the time in which it computed lately, 0 to 1."""
        self._seen = (0.0, 0.0)
        self._looked = asyncio.Event()
        self._handle: asyncio.TimerHandle | None = None

    @property
    def looking(self) -> bool:
        """Whether it is looked at."""
        return self._handle is not None

    def enter(self) -> None:
        """One more body."""
        self.bodies += 1
        if self._handle is None:
            self.share = 0.0
            self._seen = monotonic(), self._processor()
            self._handle = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    async def calm(self, longest: float) -> None:
        """Wait until the loop has little to do, for so many seconds at most."""
        until = monotonic() + longest
        while self.share >= BUSY and monotonic() < until:
            await self._looked.wait()

    def _look(self) -> None:
        now, computed = monotonic(), self._processor()
        then, before = self._seen
        self.share = (self.share + (computed - before) / max(now - then, 1e-6)) / 2
        self._seen = now, computed
        self._looked.set()
        self._looked = asyncio.Event()
        self._handle = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look) if self.bodies else None


def _code_of(fn: Callable[..., Any]) -> Any:
    while isinstance(fn, partial):
        fn = fn.func
    code = getattr(fn, "__code__", None)
    return code if isinstance(code, CodeType) else type(fn)
