"""The places of a run whose function has concurrency limits: its lease is one, and each body beside another needs one more."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from holdfast.base.errors import HoldfastError
from holdfast.core.flow import Gate
from holdfast.core.machine import Lease, Narrow, Widen


class Places:
    """Lets a run's bodies begin. A body for which there is no free place waits for one of its own run.

    Args:
        submit: Queues a plan.
        lease: The run's lease, which holds the first place.
        gates: The limits that count executing steps.
    """

    __slots__ = ("_busy", "_gates", "_held", "_lease", "_submit", "_waiting")

    def __init__(self, submit: Callable[[Any], asyncio.Future[Any]], lease: Lease, gates: Sequence[Gate]) -> None:
        self._submit = submit
        self._lease = lease
        self._gates = gates
        self._held = 1
        self._busy = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> None:
        """Wait until a body may begin."""
        while self._busy >= self._held:
            if await self._submit(Widen(self._lease, self._gates)) is True:
                self._held += 1
            elif self._busy >= self._held:
                await self._wait()
        self._busy += 1

    async def _wait(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn in self._waiting:
                self._waiting.remove(turn)
            else:
                self._wake()  # it was this one's turn: the next has it
            raise

    def leave(self) -> None:
        """A body is done: its place goes to the next of this run, or back."""
        self._busy -= 1
        if self._wake():
            return
        spare = self._held - max(self._busy, 1)
        if spare > 0:
            self._held -= spare
            try:
                self._submit(Narrow(self._lease, self._gates, spare))
            except HoldfastError:
                # the store takes no more: the lease ends, and all its places with it
                self._held += spare

    def _wake(self) -> bool:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return True
        return False
