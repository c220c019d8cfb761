"""Watching over code that holds things up: step bodies that take too long, a loop that is blocked, sleeps that don't last."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from holdfast.base.clock import monotonic
from holdfast.base.errors import NotRunningError
from holdfast.engine.tasks import sleeps_outside_steps
from holdfast.store.group import GroupCommit

_log = logging.getLogger("holdfast")

_BEAT_SECONDS = 1.0
BLOCKED_SECONDS = 5.0
"""A loop that does not come round for so long is reported, with the line it stands on."""


class LoopWatch:
    """A thread that notices when the loop is blocked, and says where."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread_id = threading.get_ident()
        self._beat = monotonic()
        self._reported = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="holdfast-watch", daemon=True)
        self._handle: asyncio.TimerHandle | None = None
        self.blocked = 0
        """How often it was blocked since the start."""

    def start(self) -> None:
        """Begin to watch."""
        self._pulse()
        self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        self._stopping.set()
        if self._handle is not None:
            self._handle.cancel()

    def _pulse(self) -> None:
        self._beat = monotonic()
        self._reported = False
        self._handle = self._loop.call_later(_BEAT_SECONDS, self._pulse)

    def _watch(self) -> None:
        while not self._stopping.wait(_BEAT_SECONDS):
            late = monotonic() - self._beat
            if late > BLOCKED_SECONDS and not self._reported:
                self._reported = True
                self.blocked += 1
                frame = sys._current_frames().get(self._thread_id)
                stack = "".join(traceback.format_stack(frame, limit=15)) if frame is not None else "unknown"
                _log.error(
                    "the event loop has been blocked for %.0f s: no run, timer or request goes on meanwhile. It stands here; move "
                    "blocking code into a plain `def` step, which runs in a thread:\n%s",
                    late,
                    stack,
                )


class RunWatch:
    """Looks at the runs in memory once a second."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, now: Callable[[], int], runs: Callable[[], Iterable[Any]]
    ) -> None:
        self._loop = loop
        self._now = now
        self._runs = runs
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin."""
        self._handle = self._loop.call_later(_BEAT_SECONDS, self._look)

    def stop(self) -> None:
        """End."""
        if self._handle is not None:
            self._handle.cancel()

    def _look(self) -> None:
        self.start()
        now = self._now()
        for run in self._runs():
            limit = run.fn.function.options.step_timeout_ms
            for key, started in list(run.bodies.items()):
                if now - started > limit:
                    run.time_out(key, limit)
            if not run.calls and run.root is not None and sleeps_outside_steps(run.root):
                run.note(
                    "code outside steps waits in asyncio.sleep: that wait is not recorded and starts over on replay; use ctx.step.sleep"
                )


def refuse_after_fork(group: GroupCommit) -> None:
    """In a child process of a fork, the engine is a copy whose threads are gone: let every use of it say so."""
    reference = weakref.ref(group)

    def close() -> None:
        alive = reference()
        if alive is not None:
            alive.close(
                NotRunningError(
                    "this process was forked from one with a running engine: start an engine of its own after the fork "
                    "(with uvicorn or gunicorn, in the application's lifespan)"
                )
            )

    os.register_at_fork(after_in_child=close)
