"""What a function receives: its event, its steps, and what else belongs to its run."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from holdfast.base.clock import to_datetime
from holdfast.sdk.calls import DEFAULTS, NowCall, StepDriver
from holdfast.sdk.events import ReceivedEvent
from holdfast.sdk.steps import Step, SyncStep

E_co = TypeVar("E_co", covariant=True)


class RunScope(StepDriver, Protocol):
    """What a driver tells a context about its run."""

    @property
    def attempt(self) -> int: ...
    @property
    def function_slug(self) -> str: ...
    @property
    def resources(self) -> Any: ...
    def logger(self) -> logging.LoggerAdapter[logging.Logger]: ...
    def show_progress(self, fraction: float | None, text: str) -> None:
        """Keep how far the run is, unless it is being replayed; from any thread."""
        ...


class _ContextBase(Generic[E_co]):
    __slots__ = ("_scope", "event", "events")

    def __init__(self, scope: RunScope, event: ReceivedEvent[E_co], events: list[ReceivedEvent[E_co]]) -> None:
        self._scope = scope
        self.event: ReceivedEvent[E_co] = event
        """The event that started the run; of a batch, the first."""
        self.events: list[ReceivedEvent[E_co]] = events
        """All events of the run: one, or a batch."""

    @property
    def run_id(self) -> str:
        """The run's id, a ULID."""
        return self._scope.run_id

    @property
    def attempt(self) -> int:
        """Which attempt of the function itself this is, from 0. Steps count their own."""
        return self._scope.attempt

    @property
    def function_id(self) -> str:
        """`<app>-<function>`."""
        return self._scope.function_slug

    @property
    def resources(self) -> Any:
        """What the app's lifespan yielded: database engines, HTTP clients, anything shared by all runs."""
        return self._scope.resources

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """Logs with the run's id and keeps the lines on the run's page; silent while recorded steps are replayed."""
        return self._scope.logger()

    def progress(self, fraction: float | None, text: str = "") -> None:
        """Say how far the run is: `ctx.progress(0.4, "images")`, also from within the body of a step.

        The latest counts. It is kept with the run's next record, or within a quarter of a second, so it may be said often;
        it is shown on the run's page, in lists, in `RunInfo.progress` and to whoever watches the run. Silent while recorded
        steps are replayed. Of a run that is completed, all is done.

        Args:
            fraction: From 0 to 1; None where it can't be known.
            text: What it is at; at most 500 characters are kept.

        Raises:
            StepUsageError: the fraction is not between 0 and 1.
        """
        self._scope.show_progress(fraction, text)


class Context(_ContextBase[E_co]):
    """What an `async def` function receives."""

    __slots__ = ("step",)

    def __init__(self, scope: RunScope, event: ReceivedEvent[E_co], events: list[ReceivedEvent[E_co]]) -> None:
        super().__init__(scope, event, events)
        self.step = Step(scope)

    async def now(self) -> datetime:
        """The current time in UTC, recorded: a replay gets the same moment."""
        return to_datetime(await NowCall(self._scope, "$now", DEFAULTS))


class SyncContext(_ContextBase[E_co]):
    """What a plain `def` function receives; its steps block."""

    __slots__ = ("step",)

    def __init__(self, scope: RunScope, event: ReceivedEvent[E_co], events: list[ReceivedEvent[E_co]]) -> None:
        super().__init__(scope, event, events)
        self.step = SyncStep(scope)

    def now(self) -> datetime:
        """See `Context.now`."""
        moment: int = self._scope.perform_sync(NowCall(self._scope, "$now", DEFAULTS))
        return to_datetime(moment)
