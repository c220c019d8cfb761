"""Whose turn it is among the tasks of one call: memos in the order of their finishing, then a decision on what is new."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Sequence
from typing import Any

from holdfast.engine.tasks import is_blocked, waits_inside
from holdfast.sdk.calls import StepCall
from holdfast.serve.bodies import Body

_QUIET_ROUNDS = 3
_POLL_SECONDS = 0.02


class Found:
    """A step without a result yet, and the task that waits for it."""

    __slots__ = ("body", "call", "go", "task")

    def __init__(self, call: StepCall[Any], body: Body | None, task: asyncio.Task[Any] | None) -> None:
        self.call = call
        self.body = body
        """What executes it; None where the server takes care of it."""
        self.task = task
        self.go: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when its body is to be executed; Suspended when the call ends."""


class Turns:
    """The function's tasks, what they wait for, and when none of them can go on by itself."""

    loop: asyncio.AbstractEventLoop
    root: asyncio.Task[Any]

    def __init__(self, finished: Sequence[str]) -> None:
        """Begin.

        Args:
            finished: Hashes of the run's finished steps, in the order in which they finished.
        """
        self.found: dict[str, Found] = {}
        """Steps without a result, by hash."""
        self.tasks: set[asyncio.Task[Any]] = set()
        self.multi = False
        """Whether the function has created tasks."""
        self.in_step: dict[asyncio.Task[Any], str] = {}
        self.bodies: set[asyncio.Task[Any]] = set()
        """Tasks that execute a body."""
        self.unwinding = False
        """Whether the answer is known and the function is being ended."""
        self.over = False
        """Whether the function has ended by itself."""
        self._order = {step: index for index, step in enumerate(finished)}
        self._heap: list[tuple[int, int, asyncio.Future[None]]] = []
        self._reached = itertools.count()
        self._checking = False
        self._quiet = 0

    def decide(self) -> None:
        """All tasks wait for what is in `found`."""
        raise NotImplementedError

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """The function created a task."""
        if task is not self.root and task not in self.tasks:
            self.multi = True
            self.tasks.add(task)
            task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        self.in_step.pop(task, None)
        if self.unwinding and not task.cancelled():
            task.exception()  # Suspended, or what its clean-up raised: nobody is left to read it
        self.check()

    async def turn(self, step: str) -> None:
        """Wait for a memo's turn: in the order of their finishing, one when nothing else can move."""
        if not self.multi:
            return
        future: asyncio.Future[None] = self.loop.create_future()
        heapq.heappush(self._heap, (self._order.get(step, len(self._order)), next(self._reached), future))
        self.check()
        await future

    def check(self) -> None:
        """Look, after what is runnable now has run, whether a memo can be released or something is to be decided."""
        self._quiet = 0
        if self.multi and not self._checking and (self._heap or self.found):
            self._checking = True
            self.loop.call_soon(self._check)

    def _check(self) -> None:
        self._checking = False
        if self.unwinding or self.over:
            return
        if any(task not in self.in_step and not is_blocked(task) for task in self.tasks):
            self.check()  # somebody still moves by itself
        elif self._quiet < _QUIET_ROUNDS:
            # a task that has just ended tells those that wait for it in the loop's next round
            self._quiet += 1
            self._checking = True
            self.loop.call_soon(self._check)
        elif self._heap:
            _, _, future = heapq.heappop(self._heap)
            if not future.done():
                future.set_result(None)
            self.check()
        elif self.found and not self.bodies and not any(one.go.done() for one in self.found.values()):
            self._consider()

    def _consider(self) -> None:
        if all(self._waits(task) for task in self.tasks):
            self.decide()
        else:  # somebody waits for something outside; nothing tells when it has come
            self._checking = True
            self.loop.call_later(_POLL_SECONDS, self._check)

    def _waits(self, task: asyncio.Task[Any]) -> bool:
        return task.done() or (is_blocked(task) and (task in self.in_step or waits_inside(task, self.tasks)))
