"""The harness for tests that aren't async: the same calls, executed on a loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, TypeVar

from holdfast.base.duration import Duration
from holdfast.base.errors import NotRunningError
from holdfast.sdk.app import EventLike
from holdfast.sdk.events import Event
from holdfast.sdk.functions import Function
from holdfast.sdk.sender import Sent
from holdfast.testing.async_harness import AsyncHarness
from holdfast.testing.clock import VirtualClock
from holdfast.testing.observed import ObservedEvent, ObservedRun

E = TypeVar("E", bound=Event)
R = TypeVar("R")
T = TypeVar("T")


class BlockingHarness:
    """What `with Harness(...)` gives: the methods of the async harness, blocking. `app.send_sync` works beside it."""

    def __init__(self, harness: AsyncHarness) -> None:
        self.harness = harness
        """The harness on the other side; its coroutines belong to another thread's loop."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="holdfast-harness", daemon=True)

    def open(self) -> None:
        """Start the loop and enter the harness; `with Harness(...)` does it."""
        self._thread.start()
        try:
            self._call(self.harness.__aenter__())
        except BaseException:
            self._end()
            raise

    def close(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        """Leave the harness and end the loop; `with Harness(...)` does it. Closing again does nothing."""
        if self._loop.is_closed():
            return
        try:
            self._call(self.harness.__aexit__(kind, error, trace))
        finally:
            self._end()

    def _end(self) -> None:
        self._call(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, call: Coroutine[Any, Any, T]) -> T:
        if self._loop.is_closed():
            call.close()
            raise NotRunningError("the harness is closed: call it inside its `with` block")
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    @property
    def clock(self) -> VirtualClock:
        """The time of everything that runs here; let it pass with `advance` and `settle` of this harness."""
        return self.harness.clock

    def run(
        self,
        function: Function[E, R],
        event: E | Mapping[str, Any] | None = None,
        *,
        id: str | None = None,  # noqa: A002 - what users call it
    ) -> ObservedRun[R]:
        """See `AsyncHarness.run`."""
        return self._call(self.harness.run(function, event, id=id))

    def start(
        self,
        function: Function[E, R],
        event: E | Mapping[str, Any] | None = None,
        *,
        id: str | None = None,  # noqa: A002
    ) -> ObservedRun[R]:
        """See `AsyncHarness.start`."""
        return self._call(self.harness.start(function, event, id=id))

    def finish(self, run: ObservedRun[R]) -> ObservedRun[R]:
        """See `AsyncHarness.finish`."""
        return self._call(self.harness.finish(run))

    def send(
        self,
        event: EventLike,
        *,
        id: str | None = None,  # noqa: A002
        ts: datetime | int | None = None,
    ) -> Sent:
        """See `AsyncHarness.send`."""
        return self._call(self.harness.send(event, id=id, ts=ts))

    def settle(self, within: Duration | None = None) -> None:
        """See `AsyncHarness.settle`."""
        self._call(self.harness.settle(within))

    def advance(self, duration: Duration) -> None:
        """See `AsyncHarness.advance`."""
        self._call(self.harness.advance(duration))

    def restart(self) -> None:
        """See `AsyncHarness.restart`."""
        self._call(self.harness.restart())

    def cancel(self, run: ObservedRun[Any]) -> bool:
        """See `AsyncHarness.cancel`."""
        return self._call(self.harness.cancel(run))

    def redrive(self, run: ObservedRun[R]) -> ObservedRun[R]:
        """See `AsyncHarness.redrive`."""
        return self._call(self.harness.redrive(run))

    def read(self, run: ObservedRun[R]) -> ObservedRun[R]:
        """See `AsyncHarness.read`."""
        return self._call(self.harness.read(run))

    def runs(self, function: Function[Any, R] | None = None, *, status: str | None = None) -> list[ObservedRun[R]]:
        """See `AsyncHarness.runs`."""
        return self._call(self.harness.runs(function, status=status))

    def events(self, name: str | None = None) -> list[ObservedEvent]:
        """See `AsyncHarness.events`."""
        return self._call(self.harness.events(name))
