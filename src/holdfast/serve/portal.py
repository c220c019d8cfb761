"""A loop of its own for frameworks whose views are plain functions: one thread per process, on which all calls run.

One loop for all of them, because what an app's lifespan opens, such as a pool of connections, belongs to one loop.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Portal:
    """A loop in a daemon thread, started with the first call, and anew after a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0

    def submit(self, coro: Coroutine[Any, Any, T]) -> Future[T]:
        """Run on the portal's loop, with the caller's context variables."""
        loop = self._running()
        outcome: Future[T] = Future()
        context = contextvars.copy_context()

        def start() -> None:
            task = context.run(loop.create_task, coro)
            task.add_done_callback(lambda done: _copy(done, outcome))

        loop.call_soon_threadsafe(start)
        return outcome

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._pid != os.getpid():
                self._loop, self._pid = asyncio.new_event_loop(), os.getpid()
                threading.Thread(target=self._loop.run_forever, name="holdfast-serve", daemon=True).start()
            return self._loop


def _copy(task: asyncio.Task[T], outcome: Future[T]) -> None:
    if task.cancelled():
        outcome.cancel()
    elif (error := task.exception()) is not None:
        outcome.set_exception(error)
    else:
        outcome.set_result(task.result())


portal = Portal()
"""The process's own."""


def close_at_exit(close: Any) -> None:
    """Run an async clean-up on the portal's loop before the process ends."""

    def run() -> None:
        if portal._loop is not None and portal._pid == os.getpid():
            portal.submit(close()).result(timeout=10)

    atexit.register(run)
