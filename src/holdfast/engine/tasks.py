"""Which asyncio tasks belong to a run, and whether all of them wait for its steps.

A run may use plain asyncio: gather, task groups, locks. Its results are released one at a time, when none of its tasks
can go on by itself; it leaves memory when all of them wait for steps or for each other. Both need to know its tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import ContextVar
from typing import Any, Protocol
from weakref import WeakSet

_INTERNAL_WAITS = (
    "asyncio/tasks.py",
    "asyncio/taskgroups.py",
    "asyncio/locks.py",
    "asyncio/queues.py",
    "asyncio/timeouts.py",
    "anyio/_backends/_asyncio.py",
)


class TaskOwner(Protocol):
    """A live run, as the task factory sees it."""

    def adopt(self, task: asyncio.Task[Any]) -> None: ...


current_run: ContextVar[TaskOwner | None] = ContextVar("holdfast_run", default=None)
current_step: ContextVar[str | None] = ContextVar("holdfast_step", default=None)
"""The key of the step whose body executes here; its tasks are the body's own business."""


class TaskFactory:
    """Makes tasks as the loop would, and tells a run of those its function creates."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._previous = loop.get_task_factory()

    def install(self) -> None:
        """From now on; what was set before is still what makes the tasks."""
        self._loop.set_task_factory(self)

    def remove(self) -> None:
        """Give the loop its own factory back, unless somebody replaced this one."""
        if self._loop.get_task_factory() is self:
            self._loop.set_task_factory(self._previous)

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any], **kwargs: Any
    ) -> Any:
        task: asyncio.Task[Any]
        if self._previous is not None:
            task = self._previous(loop, coro, **kwargs)  # type: ignore[assignment]
        else:
            task = asyncio.Task(coro, loop=loop, **kwargs)
        owner = current_run.get()
        if owner is not None and current_step.get() is None:
            owner.adopt(task)
        return task


def is_blocked(task: asyncio.Task[Any]) -> bool:
    """Whether a task waits for a future that is not done: it can't go on by itself."""
    waiter = task._fut_waiter  # type: ignore[attr-defined]
    return waiter is not None and not waiter.done()


def waits_inside(
    task: asyncio.Task[Any], family: set[asyncio.Task[Any]], known: WeakSet[asyncio.Future[Any]] | None = None
) -> bool:
    """Whether what a blocked task waits for is made of tasks of the same run: a join, a gather, a lock between them.

    Args:
        task: It is blocked.
        family: The run's tasks.
        known: Gathers of which it is known: once it holds, it stays so. They may have a thousand members.
    """
    waiter = task._fut_waiter  # type: ignore[attr-defined]
    if waiter is None or waiter.done():
        return False
    if isinstance(waiter, asyncio.Task):
        return waiter in family
    children = getattr(waiter, "_children", None)
    if children is not None:
        if known is not None and waiter in known:
            return True
        inside = all(child.done() or child in family for child in children)
        if inside and known is not None:
            known.add(waiter)
        return inside
    return _innermost_file(task.get_coro()).endswith(_INTERNAL_WAITS) and not _sleeps(task.get_coro())


def waits_for_gather(task: asyncio.Task[Any]) -> bool:
    """Whether a task waits for several at once."""
    waiter = task._fut_waiter  # type: ignore[attr-defined]
    return waiter is not None and not waiter.done() and getattr(waiter, "_children", None) is not None


def _chain(coro: Any) -> list[Any]:
    frames = []
    while coro is not None and (code := getattr(coro, "cr_code", None)) is not None:
        frames.append(code)
        coro = coro.cr_await
    return frames


def _innermost_file(coro: Any) -> str:
    frames = _chain(coro)
    return frames[-1].co_filename.replace("\\", "/") if frames else ""


def _sleeps(coro: Any) -> bool:
    frames = _chain(coro)
    return bool(frames) and frames[-1].co_name == "sleep"


def sleeps_outside_steps(task: asyncio.Task[Any]) -> bool:
    """Whether a function's own code, outside its steps, is in asyncio.sleep."""
    return not task.done() and _sleeps(task.get_coro())
