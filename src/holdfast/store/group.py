"""Group commit: everything that was decided meanwhile goes to disk in one transaction.

While one group is being synced the next one fills; there is no timer. One wake-up of the loop ends a group.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from holdfast.base.clock import monotonic
from holdfast.base.errors import NotRunningError, OverloadedError, StoreBusyError, StoreFailedError, StoreFullError
from holdfast.core.completion import complete
from holdfast.core.plan import DUPLICATE, Plan, Read, Refused, Tx

A = TypeVar("A")
T = TypeVar("T")

MAX_GROUP_PLANS = 1000
EARLY_GROUP_PLANS = 64
CONTENDED_SECONDS = 0.015
"""A group whose statements take longer has another thread beside it that won't let the interpreter go: each statement waits
for it, so that few large groups are better than many small ones."""
MAX_GROUP_BYTES = 16 * 1024 * 1024
MAX_PENDING_BYTES = 256 * 1024 * 1024
RETRY_SECONDS = 0.25
"""How often writes that wait for a full or locked disk are tried again."""
_TEMPORARY = StoreFullError | StoreBusyError
_log = logging.getLogger("holdfast")


class Attempt:
    """How far a group got."""

    __slots__ = ("broken", "committed", "error", "token", "tx", "unique")

    def __init__(
        self,
        tx: Tx | None = None,
        *,
        broken: tuple[Plan[Any], BaseException] | None = None,
        error: BaseException | None = None,
        unique: bool = True,
        committed: bool = False,
        token: Any = None,
    ) -> None:
        self.tx = tx
        """What was decided; None when it did not come to that."""
        self.broken = broken
        """The plan that can't decide, and what it raised."""
        self.error = error
        """The database's error; with a `tx`, that of the commit."""
        self.unique = unique
        """False when a row that must be new was there already."""
        self.committed = committed
        """Whether it is on disk already."""
        self.token = token
        """The backend's own."""


class LocalBackend(Protocol):
    """A database whose statements are executed on the loop's thread."""

    def begin(self) -> Tx:
        """Open a transaction and the overlay over it."""
        ...

    def load(self, tx: Tx, reads: Iterable[Read]) -> None:
        """Provide the rows of these reads."""
        ...

    def write(self, tx: Tx) -> bool:
        """Write the changes; False when a row that must be new was there already."""
        ...


def attempt_here(backend: LocalBackend, group: list[Plan[Any]]) -> Attempt:
    """Begin, load, decide and write a group on the loop's thread."""
    try:
        tx = backend.begin()
        wanted: list[Read] = []
        for plan in group:
            wanted.extend(plan.reads())
        backend.load(tx, wanted)
        tx.size = sum(plan.parts for plan in group) + 64
        complete(tx, backend.load)
        broken = decide_all(group, tx)
        if broken is not None:
            return Attempt(broken=broken)
        return Attempt(tx, unique=backend.write(tx))
    except Exception as error:
        return Attempt(error=error)


class Backend(Protocol):
    """What group commit asks of a database."""

    def attempt(self, group: list[Plan[Any]], then: Callable[[Attempt], None], *, hold: bool) -> None:
        """Begin, load, decide and write a group, here or in a thread; `then` is called on the loop.

        A backend may commit in the same go, unless told to `hold`: to stop before.
        """
        ...

    def rollback(self) -> None: ...

    def commit(self, attempt: Attempt, done: Callable[[BaseException | None], None]) -> None:
        """Commit off the loop what was attempted; `done` is called on the loop."""
        ...

    def committed(self, tx: Tx) -> None:
        """The overlay is now what is on disk."""
        ...

    def translate(self, error: BaseException) -> BaseException:
        """The store's own error for a database error."""
        ...


class GroupCommit:
    """Collects plans, and commits them group by group."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._loop = asyncio.get_running_loop()
        self._pending: deque[Plan[Any]] = deque()
        self._pending_bytes = 0
        self._scheduled = False
        self._committing: list[Plan[Any]] | None = None
        self._closed: BaseException | None = None
        self._killed = False
        self._idle: list[asyncio.Future[None]] = []
        self._jobs: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._paused: tuple[BaseException, asyncio.TimerHandle] | None = None
        self.hindered: BaseException | None = None
        """What kept the last group from the disk, if it was something that passes; None again after a commit."""
        self.groups = 0
        """Groups committed so far."""
        self.plans = 0
        """Plans committed so far."""
        self.max_group = MAX_GROUP_PLANS
        """Plans per group at most; the fault tests set 1."""
        self._contended = False
        self.on_contention: Callable[[], None] | None = None
        """Called when a group took so long that something else must hold the interpreter."""
        self.early_group = EARLY_GROUP_PLANS
        """A group this large doesn't wait for the rest of the loop's round: the others fill the next one while it syncs."""
        self.before_commit: Callable[[], None] | None = None
        """Called before each commit; a seam for fault tests."""
        self.after_commit: Callable[[], None] | None = None

    def submit(self, plan: Plan[A]) -> asyncio.Future[A | Refused]:
        """Queue a plan; the future has its answer once the group is on disk.

        Raises:
            StoreFailedError, NotRunningError: the store takes no more writes.
            StoreFullError, StoreBusyError: plans that can wait are waiting for the disk already, and this one can't.
            OverloadedError: too many bytes wait to be written.
        """
        if self._closed is not None:
            raise self._closed
        if not plan.patient:
            if self._paused is not None:
                raise self._paused[0]
            if self._pending_bytes > MAX_PENDING_BYTES:
                raise OverloadedError("the store has too much waiting to be written; try again in a second")
        future: asyncio.Future[A | Refused] = self._loop.create_future()
        plan.future = future
        self._pending.append(plan)
        self._pending_bytes += plan.size
        if self._committing is None:
            if not self._scheduled:
                self._scheduled = True
                self._loop.call_soon(self._flush)
            elif len(self._pending) == self.early_group and not self._contended:
                self._flush()
        return future

    @property
    def busy(self) -> bool:
        """Whether anything is waiting or being synced."""
        return bool(self._pending or self._jobs) or self._committing is not None

    async def between_groups(self, job: Callable[[], T]) -> T:
        """Run a short piece of work on the writing connection while no group is open, before the next one begins."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.append((job, future))
        if self._committing is None and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)
        return await future

    @property
    def closed(self) -> BaseException | None:
        """Why no more plans are taken, if none are."""
        return self._closed

    async def drain(self) -> None:
        """Wait until everything submitted so far is on disk or refused, or waits for a full disk."""
        while self.busy and self._paused is None:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._idle.append(waiter)
            await waiter

    def close(self, error: BaseException | None = None) -> None:
        """Refuse further plans, and fail those that wait."""
        self._closed = error or self._closed or NotRunningError("the store is closed")
        if self._paused is not None:
            self._paused[1].cancel()
            self._paused = None
        waiting = list(self._pending)
        self._pending.clear()
        self._pending_bytes = 0
        for plan in waiting:
            _fail(plan, self._closed)

    @property
    def committing(self) -> Sequence[Plan[Any]]:
        """The plans of the group being committed; what the seams of fault tests look at."""
        return self._committing or ()

    def kill(self, error: BaseException) -> None:
        """Commit and answer nothing more, as if the process had died; whoever waits gets the error. For fault tests.

        A group that the database is committing already may or may not become durable.
        """
        self._killed = True
        cut_off, self._committing = self._committing, None
        for plan in cut_off or ():
            _fail(plan, error)
        self.close(error)
        self._tell_idle()

    # -- one group ---------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._scheduled = False
        if self._committing is not None:
            return
        if self._jobs:
            _run_job(*self._jobs.popleft())
        if self._paused is not None:
            return
        if not self._pending:
            self._next()
            return
        group = self._take()
        self._committing = group
        self._attempt(group)

    def _take(self) -> list[Plan[Any]]:
        pending = self._pending
        if len(pending) <= self.max_group and self._pending_bytes <= MAX_GROUP_BYTES:
            group = list(pending)
            pending.clear()
            self._pending_bytes = 0
            return group
        group, size = [], 0
        while pending and len(group) < self.max_group and (not group or size + pending[0].size <= MAX_GROUP_BYTES):
            plan = pending.popleft()
            size += plan.size
            group.append(plan)
        self._pending_bytes -= size
        return group

    def _attempt(self, group: list[Plan[Any]]) -> None:
        began = monotonic()
        self._backend.attempt(
            group, lambda attempt: self._attempted(group, attempt, began), hold=self.before_commit is not None
        )

    def _attempted(self, group: list[Plan[Any]], attempt: Attempt, began: float) -> None:
        backend = self._backend
        tx = attempt.tx
        if self._killed:
            if not attempt.committed:
                backend.rollback()
            return
        if attempt.broken is not None:
            # alone, the plan that can't decide fails; without it, the others go on
            backend.rollback()
            self._without(group, *attempt.broken)
            return
        if tx is None or not attempt.unique:
            backend.rollback()
            error = attempt.error
            self._one_by_one(group, None if error is None else backend.translate(error))
            return
        if attempt.committed or attempt.error is not None:
            self._done(group, tx, attempt.error)
            return
        self._contended = monotonic() - began > CONTENDED_SECONDS
        if self._contended and self.on_contention is not None:
            self.on_contention()
        if self.before_commit is not None:
            self.before_commit()
            if self._killed:
                backend.rollback()
                return
        backend.commit(attempt, lambda error: self._done(group, tx, error))

    def _one_by_one(self, group: list[Plan[Any]], error: BaseException | None) -> None:
        """After a failed group: alone, each plan fails or passes for itself."""
        if isinstance(error, StoreFailedError | _TEMPORARY):
            self._fail_group(group, error)
            return
        if len(group) == 1:
            if error is None:
                group[0].answer = DUPLICATE
                self._finish(group)
            else:
                self._fail_group(group, error)
            return
        rest = group[1:]
        self._pending.extendleft(reversed(rest))
        self._pending_bytes += sum(plan.size for plan in rest)
        self._committing = group[:1]
        self._attempt(group[:1])

    def _without(self, group: list[Plan[Any]], broken: Plan[Any], error: BaseException) -> None:
        _fail(broken, error)
        rest = [plan for plan in group if plan is not broken]
        if rest:
            self._committing = rest
            self._attempt(rest)
        else:
            self._committing = None
            self._next()

    def _done(self, group: list[Plan[Any]], tx: Tx, error: BaseException | None) -> None:
        if self._killed:
            return
        if error is not None:
            self._backend.rollback()
            self._fail_group(group, self._backend.translate(error))
            return
        if self.after_commit is not None:
            self.after_commit()
            if self._killed:
                return
        self.groups += 1
        self.plans += len(group)
        if self.hindered is not None:
            self.hindered = None
            _log.warning("writing goes on")
        self._backend.committed(tx)
        self._finish(group)

    def _finish(self, group: list[Plan[Any]]) -> None:
        self._committing = None
        for plan in group:
            answer = plan.answer
            future = plan.future
            then = plan.then
            if then is not None:
                try:
                    then(answer)
                except Exception as error:  # one caller's mistake must not leave the others without their answers
                    _log.exception("after the commit of a %s", type(plan).__name__)
                    _fail(plan, error)
            if not future.done():
                future.set_result(answer)
        self._next()

    def _fail_group(self, group: list[Plan[Any]], error: BaseException) -> None:
        self._committing = None
        if isinstance(error, _TEMPORARY):
            if self.hindered is None:
                _log.warning("nothing can be written: %s", error)
            self.hindered = error
            waiting = [plan for plan in group if plan.patient]
            group = [plan for plan in group if not plan.patient]
            self._pause(waiting, error)
        for plan in group:
            _fail(plan, error)
        if isinstance(error, StoreFailedError):
            self.close(error)
        self._next()

    def _pause(self, waiting: list[Plan[Any]], error: BaseException) -> None:
        """Keep what runs have to report until there is room; what others ask for is refused with the reason."""
        self._pending.extendleft(reversed(waiting))
        self._pending_bytes += sum(plan.size for plan in waiting)
        for plan in [plan for plan in self._pending if not plan.patient]:
            self._pending.remove(plan)
            self._pending_bytes -= plan.size
            _fail(plan, error)
        if self._pending:
            self._paused = error, self._loop.call_later(RETRY_SECONDS, self._resume)
            self._tell_idle()

    def _resume(self) -> None:
        self._paused = None
        self._next()

    def _next(self) -> None:
        if self._pending or self._jobs:
            if not self._scheduled:
                self._scheduled = True
                self._loop.call_soon(self._flush)
        else:
            self._tell_idle()

    def _tell_idle(self) -> None:
        waiters, self._idle = self._idle, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


def decide_all(group: list[Plan[Any]], tx: Tx) -> tuple[Plan[Any], BaseException] | None:
    """Run the plans one after another; the first that raises, with what it raised."""
    plan: Plan[Any] | None = None
    try:
        for plan in group:
            plan.answer = plan.decide(tx)
    except Exception as error:
        assert plan is not None
        return plan, error
    return None


def _run_job(job: Callable[[], Any], future: asyncio.Future[Any]) -> None:
    try:
        result = job()
    except Exception as error:
        future.set_exception(error)
    else:
        future.set_result(result)


def _fail(plan: Plan[Any], error: BaseException) -> None:
    if not plan.future.done():
        plan.future.set_exception(error)
        plan.future.exception()  # whoever awaits it sees it; nobody has to
