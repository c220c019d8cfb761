"""Threads for plain `def` code: a bounded pool with the caller's context, and the bridge into a sync function's thread."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import Any

from holdfast.base.errors import Suspended
from holdfast.engine.pacing import Pace
from holdfast.engine.tasks import current_step


class Threads:
    """A bounded pool. A call that is cancelled leaves its thread running: a thread can't be stopped, only ignored."""

    def __init__(self, size: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(size, thread_name_prefix=name)
        self.active = 0
        """Calls being executed or waiting for a thread."""
        self.pace = Pace()
        self.lost = 0
        """Threads still running for callers that gave up (timed out or cancelled)."""

    async def run(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call in a thread, with the context variables of the caller."""
        call = partial(contextvars.copy_context().run, fn, *args, **kwargs)
        self.active += 1
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._pool, _stop_iteration_safe, call)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if not future.done():
                self.lost += 1
                future.add_done_callback(self._found)
            raise
        finally:
            self.active -= 1

    def _found(self, future: asyncio.Future[Any]) -> None:
        self.lost -= 1
        if not future.cancelled():
            future.exception()  # its result is fenced off; nobody reads it

    def close(self) -> None:
        """Take no more calls; threads that are stuck don't hold the process."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def ended(self) -> None:
        """Take no more calls, and wait until those in progress have returned, the given up ones included."""
        self.close()
        if self.active or self.lost:
            await asyncio.to_thread(self._pool.shutdown, wait=True)


def _stop_iteration_safe(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except StopIteration as error:  # can't be set on a future
        raise RuntimeError("the function raised StopIteration") from error


class Bridge:
    """Lets a sync function's thread wait for its steps on the loop, and run their bodies itself."""

    __slots__ = ("_inbox", "_loop", "held")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.held = False
        """Whether a body was given up (timed out or cancelled) that may still be holding the thread."""
        self._inbox: SimpleQueue[tuple[Callable[[], Any] | None, Any]] = SimpleQueue()

    def perform(self, step: Coroutine[Any, Any, Any]) -> Any:
        """In the function's thread: bring a step to its result."""
        try:
            future = asyncio.run_coroutine_threadsafe(step, self._loop)
        except RuntimeError as error:  # the loop has closed under the thread
            step.close()
            raise Suspended from error
        future.add_done_callback(lambda done: self._inbox.put((None, done)))
        while True:
            body, reply = self._inbox.get()
            if body is None:
                return _result(reply)
            outcome: Any = None
            failure: BaseException | None = None
            try:
                outcome = body()
            except BaseException as raised:
                failure = raised
            self._loop.call_soon_threadsafe(_reply, reply, outcome, failure)

    async def execute(self, body: Callable[[], Any]) -> Any:
        """On the loop: run a step's body in the function's thread, which has a context of its own but for the step."""
        reply: asyncio.Future[Any] = self._loop.create_future()
        self._inbox.put((partial(_in_step, current_step.get(), body), reply))
        try:
            return await reply
        except asyncio.CancelledError:
            self.held = True
            raise


def _in_step(step: str | None, body: Callable[[], Any]) -> Any:
    token = current_step.set(step)
    try:
        return body()
    finally:
        current_step.reset(token)


def _result(future: Future[Any]) -> Any:
    if future.cancelled():
        raise Suspended
    return future.result()


def _reply(reply: asyncio.Future[Any], outcome: Any, error: BaseException | None) -> None:
    if reply.done():
        return
    if error is None:
        reply.set_result(outcome)
    elif isinstance(error, StopIteration):
        reply.set_exception(RuntimeError("the step raised StopIteration"))
    else:
        reply.set_exception(error)
