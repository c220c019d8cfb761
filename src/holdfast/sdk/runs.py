"""Runs as an application reads them: one by its id, those of an event, lists, and a run followed live."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Generic, Protocol, TypeVar

from holdfast.base.codec import ResultCodec
from holdfast.base.duration import Duration, duration_ms
from holdfast.sdk.functions import Function
from holdfast.sdk.sender import Control, RunInfo

R = TypeVar("R")


class Controlled(Protocol):
    """An app, as its runs need it."""

    def _control(self) -> Control: ...


class RunHandle(Generic[R]):
    """A run that is there: to be read, awaited, watched and cancelled."""

    def __init__(self, app: Controlled, run_id: str, result_type: Any) -> None:
        self._app = app
        self.id = run_id
        self._result_type = result_type

    async def result(self, timeout: Duration | None = None) -> R:
        """The function's return value, once it has ended.

        Args:
            timeout: How long to wait; None waits as long as it takes.

        Raises:
            RunFailedError: the run failed.
            RunCancelledError: it was cancelled.
            TimeoutError: it has not ended yet; it goes on.
        """
        control = self._app._control()
        raw = await control.result(self.id, None if timeout is None else duration_ms(timeout) / 1000)
        value: R = ResultCodec.of(self._result_type).decode(raw, None)
        return value

    async def info(self) -> RunInfo:
        """Where the run stands."""
        return await self._app._control().run_info(self.id)

    def watch(self) -> AsyncIterator[RunInfo]:
        """Where the run stands, then again at each change, until it has ended. See `Runs.watch`."""
        return self._app._control().watch_run(self.id)

    async def cancel(self) -> bool:
        """Cancel it; False when it had ended already."""
        return await self._app._control().cancel(self.id)

    def __repr__(self) -> str:
        return f"<RunHandle {self.id}>"


class Runs:
    """The runs of an app, whoever started them: `app.runs`."""

    def __init__(self, app: Controlled) -> None:
        self._app = app

    def __call__(
        self, *, status: str | None = None, function: Function[Any, Any] | str | None = None, limit: int = 100
    ) -> AsyncIterator[RunInfo]:
        """Runs, newest first: `async for run in app.runs(status="FAILED")`."""
        slug = function.slug if isinstance(function, Function) else function
        return self._app._control().list_runs(status=status, function=slug, limit=limit)

    async def info(self, run_id: str) -> RunInfo:
        """Where a run stands.

        Raises:
            RunNotFoundError: there is none of this id; retention may have removed it.
        """
        return await self._app._control().run_info(run_id)

    async def of_event(self, event_id: str) -> list[RunHandle[Any]]:
        """The runs that an event started, oldest first; empty while a debounce or a batch still holds it back.

        ```python
        sent = await app.send(OrderPaid(order_id="o1"), id="payment-123")
        results = [await run.result() for run in await app.runs.of_event("payment-123")]
        ```

        Args:
            event_id: The event's own id (`Sent.id`), or the one that its sender gave it.
        """
        control = self._app._control()
        found = [info async for info in control.list_runs(event_id=event_id, limit=1000)]
        return [RunHandle(self._app, info.id, Any) for info in reversed(found)]

    def watch(self, run_id: str) -> AsyncIterator[RunInfo]:
        """Follow a run: where it stands now, then each change of status, progress, steps or error, the end included.

        ```python
        async for run in app.runs.watch(run_id):
            await websocket.send_json({"status": run.status})
        ```

        A slow reader misses what lay in between, never the latest. It asks nobody's leave: check first whether the user
        may see the run. The run may be executed on any node.

        Raises:
            RunNotFoundError: there is no such run, when the iteration begins.
            NotRunningError: the engine stopped.
        """
        return self._app._control().watch_run(run_id)
