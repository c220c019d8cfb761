"""The memory side of a run: which of its tasks wait for what, whose result is next, and when it may leave."""

from __future__ import annotations

import asyncio
import heapq
from typing import Any
from weakref import WeakSet

from holdfast.base.errors import Suspended
from holdfast.core.rows import StepRow
from holdfast.engine.host import Host
from holdfast.engine.places import Places
from holdfast.engine.tasks import is_blocked, waits_for_gather, waits_inside
from holdfast.engine.threads import Bridge

_QUIET_ROUNDS = 3


class Residence:
    """A run's tasks, the results they wait for, and the durable waits that decide whether it stays in memory."""

    __slots__ = (
        "_awake",
        "_burst",
        "_checking",
        "_due",
        "_dues",
        "_durable",
        "_free",
        "_heap",
        "_joins",
        "_quiet",
        "_returning",
        "_seen",
        "_timer",
        "abandoned",
        "bodies",
        "bridge",
        "calls",
        "host",
        "in_step",
        "multi",
        "places",
        "recorded",
        "root",
        "taken_in",
        "tasks",
        "unwinding",
    )

    def __init__(self, host: Host, recorded: dict[str, StepRow], seen: int) -> None:
        self.host = host
        self.recorded = recorded
        """Rows read when the run entered memory, by key; removed when the code reaches them."""
        self.root: asyncio.Task[Any] | None = None
        self.tasks: set[asyncio.Task[Any]] = set()
        self.multi = False
        """Whether its function has created tasks."""
        self.bridge: Bridge | None = None
        """The way into the thread of a plain `def` function."""
        self.places: Places | None = None
        """Its places, where its function has concurrency limits: it doesn't stay in memory to wait, as a lease holds one."""
        self.in_step: dict[asyncio.Task[Any], str] = {}
        self._free: set[asyncio.Task[Any]] = set()
        """Tasks outside of steps: the only ones that can move by themselves, and few where there are many branches."""
        self.bodies: dict[str, int] = {}
        """Bodies being executed, and since when."""
        self.calls = 0
        """Step calls being awaited."""
        self.unwinding = False
        self.taken_in: set[str] = set()
        """Keys of the waiting steps whose results are known here, whoever recorded them."""
        self.abandoned = False
        """Cancelled, or its lease is lost: nothing of it is recorded any more."""
        self._durable: dict[str, tuple[asyncio.Future[StepRow | None], int | None]] = {}
        self._joins: WeakSet[asyncio.Future[Any]] = WeakSet()
        self._dues: list[tuple[int, str]] = []
        """A heap of the moments in `_durable`, with those of waits that are over."""
        self._awake = 0
        """How many of them have been told and have not gone on yet."""
        self._heap: list[tuple[int, int, asyncio.Future[None]]] = []
        self._checking = False
        self._due: int | None = None
        self._returning = False
        self._quiet = 0
        self._seen = seen
        self._burst: int | None = None
        """Since when it waits, if something from outside has woken it in this lease: more of it may follow at once."""
        self._timer: Any = None

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """The function created a task."""
        if task is not self.root:
            self.multi = True
            self.tasks.add(task)
            self._free.add(task)
            task.add_done_callback(self._task_done)

    def adopt_root(self, root: asyncio.Task[Any]) -> None:
        """The function's own task has begun."""
        self.tasks.add(root)
        self._free.add(root)

    def enter_step(self, task: asyncio.Task[Any], key: str) -> None:
        """From now on this task is inside a step call."""
        self.in_step[task] = key
        self._free.discard(task)

    def leave_step(self, task: asyncio.Task[Any]) -> None:
        """It has the result and goes on in the function's code."""
        if self.in_step.pop(task, None) is not None and task in self.tasks:
            self._free.add(task)
        self.check()

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        self._free.discard(task)
        self.in_step.pop(task, None)
        if (self.unwinding or self.abandoned) and not task.cancelled():
            task.exception()  # Suspended, or what its clean-up raised: nobody is left to read it
        self.check()

    async def released(self, seq: int) -> None:
        """Wait for this result's turn: results go out in the order of their recording, one when nothing else can move."""
        if not self.multi:
            return
        future: asyncio.Future[None] = self.host.loop.create_future()
        heapq.heappush(self._heap, (seq, id(future), future))
        self.check()
        await future

    def check(self) -> None:
        """Look, after what is runnable now has run, whether a result can be released or the run can leave memory."""
        self._quiet = 0
        if not self._checking and (self._heap or self._durable):
            self._checking = True
            self.host.loop.call_soon(self._check)

    def _check(self) -> None:
        self._checking = False
        if self.unwinding or self.abandoned:
            return
        if self._heap:
            if not all(is_blocked(task) for task in self._free):
                self.check()  # somebody still moves by itself
                return
            _, _, future = heapq.heappop(self._heap)
            if not future.done():
                future.set_result(None)
            self.check()
        elif self._durable and not self._returning:
            self._consider_parking()

    async def wait_durably(self, key: str, due: int | None) -> StepRow | None:
        """Wait until `due` (None is returned) or until the step is resolved from outside (its row is).

        Raises:
            Suspended: the run leaves memory meanwhile.
        """
        future: asyncio.Future[StepRow | None] = self.host.loop.create_future()
        self._durable[key] = (future, due)
        if due is not None:
            heapq.heappush(self._dues, (due, key))
        self.check()
        try:
            return await future
        finally:
            self._durable.pop(key, None)
            self._awake -= future.done() and not future.cancelled()

    def woken_from_outside(self) -> None:
        """An event, a signal or another run's end has woken it: it stays a while for the next."""
        self._burst = self.host.clock.now()

    def resolved(self, step: StepRow, woken: int) -> None:
        """A step of this run got its result from outside, as number `woken` in this lease."""
        if self.unwinding:
            return  # not counted as seen: the release will be refused, and the run starts over with this result
        if step.key in self.taken_in:
            return  # committed with the lease itself, and read with the other records
        self.taken_in.add(step.key)
        # another node may have resolved something before that has not been heard of here: then the release is refused
        self._seen += 1
        self.woken_from_outside()
        waiting = self._durable.get(step.key)
        if waiting is None:
            self.recorded[step.key] = step
        elif not waiting[0].done():
            self._awake += 1
            waiting[0].set_result(step)

    @property
    def waiting(self) -> bool:
        """Whether all of it waits for time or for something from outside."""
        return (
            0 < len(self._durable) == self.calls
            and not (self.bodies or self._checking or self.unwinding or self._heap)
            and not any(future.done() for future, _ in self._durable.values())
            and self._all_inside()
            and all(is_blocked(task) for task in self.in_step)
        )

    @property
    def next_due(self) -> int | None:
        """When the first of its waits ends by itself."""
        return self._earliest()

    def _consider_parking(self) -> None:
        if self._awake:
            return  # somebody has just been woken and looks again when it waits next
        if len(self._durable) != self.calls or self.bodies or not self._all_inside():
            self._arm()
            return
        if self.multi and self._quiet < _QUIET_ROUNDS:
            # a task that has just ended or was cancelled tells those that wait for it in the loop's next round
            self._quiet += 1
            self._checking = True
            self.host.loop.call_soon(self._check)
            return
        now = self.host.clock.now()
        due = self._earliest()
        if self.host.draining:
            self.suspend()
        elif due is not None and due <= now:
            self._fire()
        elif self.places is None and self.host.may_linger(now, self._stays_until(now, due), threaded=self.bridge is not None):
            self._arm()
        else:
            self.suspend()

    def _stays_until(self, now: int, due: int | None) -> int | None:
        """Until when there is something to stay for: the next timer, or the end of a burst of wake-ups from outside."""
        if self._burst is None:
            return due
        end = self._burst + self.host.linger_ms
        return due if end <= now or (due is not None and due <= end) else end

    def _all_inside(self) -> bool:
        return not self.multi or all(
            task.done() or (is_blocked(task) and waits_inside(task, self.tasks, self._joins)) for task in self._free
        )

    def _earliest(self) -> int | None:
        dues, durable = self._dues, self._durable
        while dues:
            due, key = dues[0]
            waiting = durable.get(key)
            if waiting is not None and waiting[1] == due:
                return due
            heapq.heappop(dues)
        return None

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = self._earliest()
        linger = self.host.clock.now() + self.host.linger_ms
        self._timer = self.host.clock.call_at(linger if due is None else min(due, linger), self._fire)

    def _fire(self) -> None:
        self._timer = None
        now = self.host.clock.now()
        while (due := self._earliest()) is not None and due <= now:
            _, key = heapq.heappop(self._dues)
            future = self._durable[key][0]
            if not future.done():
                self._awake += 1
                future.set_result(None)
        self.check()

    def suspend(self) -> None:
        """Leave memory: throw Suspended into everything that waits. Once the function has let it pass, the lease ends."""
        self.unwinding = True
        self._due = self._earliest()
        for future, _ in list(self._durable.values()):
            if not future.done():
                self._awake += 1
                future.set_exception(Suspended())
        for _, _, released in self._heap:
            if not released.done():
                released.set_exception(Suspended())
        root = self.root
        if root is not None and waits_for_gather(root):
            # a gather that collects exceptions would hand it Suspended as a result
            root.cancel()
