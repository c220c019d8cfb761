"""Step calls: what a function hands to the driver that executes it, and what it awaits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from holdfast.base.errors import StepUsageError
from holdfast.base.retry import RetryPolicy
from holdfast.sdk.events import Event
from holdfast.sdk.triggers import Trigger

if TYPE_CHECKING:
    from types import TracebackType

T_co = TypeVar("T_co", covariant=True)


class StepOptions:
    """What one step may have of its own. None means the function's."""

    __slots__ = ("backoff", "retries", "timeout_ms", "transient_only")

    def __init__(
        self,
        retries: int | None,
        timeout_ms: int | None,
        backoff: RetryPolicy | None,
        transient_only: bool | None = None,
    ) -> None:
        self.retries = retries
        self.timeout_ms = timeout_ms
        self.backoff = backoff
        """The delays; what they follow is `transient_only`'s to say."""
        self.transient_only = transient_only

    def policy(self, functions: RetryPolicy) -> RetryPolicy:
        """The delays between this step's attempts, and what is tried again, given the function's own."""
        only = functions.transient_only if self.transient_only is None else self.transient_only
        policy = self.backoff or functions
        return policy if policy.transient_only == only else policy.replace(transient_only=only)


DEFAULTS: Final = StepOptions(None, None, None)
"""The function's own options."""


class StepDriver(Protocol):
    """What executes steps: in process, or by reporting them to a server."""

    @property
    def run_id(self) -> str:
        """The run's id, a ULID."""
        ...

    @property
    def triggers(self) -> Sequence[Trigger]:
        """What starts the function whose steps these are."""
        ...

    def begin(self, call: StepCall[Any]) -> None:
        """Called when a step is called, not when it is awaited: fixes its key.

        Raises:
            StepUsageError: the run is unwinding, the call stands inside a step body, or the same id is in flight.
        """
        ...

    def perform(self, call: StepCall[Any]) -> Coroutine[Any, Any, Any]:
        """Bring the step to its result."""
        ...

    def perform_sync(self, call: StepCall[Any]) -> Any:
        """The same for a function that runs in a thread of its own."""
        ...


class StepCall(Coroutine[Any, Any, T_co], Generic[T_co]):
    """A step that has been called. Await it for its result; `asyncio.gather` and task groups take it as it is."""

    __slots__ = ("_coro", "driver", "id", "key", "options")

    def __init__(self, driver: StepDriver, id: str, options: StepOptions) -> None:
        if type(id) is not str or not id:
            raise StepUsageError(f"a step id must be a non-empty string, not {id!r}")
        self.driver = driver
        self.id = id
        self.options = options
        self.key = id
        self._coro: Coroutine[Any, Any, T_co] | None = None
        driver.begin(self)

    @property
    def __name__(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """How asyncio calls the task of this step."""
        return f"step {self.key}"

    def __await__(self) -> Generator[Any, Any, T_co]:
        return self._start().__await__()

    def _start(self) -> Coroutine[Any, Any, T_co]:
        if self._coro is not None:
            raise StepUsageError(f"step {self.key!r} was awaited twice; keep its result in a variable instead")
        self._coro = coro = self.driver.perform(self)
        return coro

    def send(self, value: Any) -> Any:
        return (self._coro or self._start()).send(value)

    def throw(self, typ: Any, val: Any = None, tb: TracebackType | None = None) -> Any:
        coro = self._coro or self._start()
        return coro.throw(typ) if val is None and tb is None else coro.throw(typ, val, tb)

    def close(self) -> None:
        if self._coro is not None:
            self._coro.close()

    @property
    def awaited(self) -> bool:
        return self._coro is not None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key!r}>"


class RunCall(StepCall[T_co]):
    """`step.run`: a body to execute once successfully."""

    __slots__ = ("args", "fn", "kwargs")

    def __init__(
        self, driver: StepDriver, id: str, options: StepOptions, fn: Callable[..., Any], args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        super().__init__(driver, id, options)


class SleepCall(StepCall[None]):
    """`step.sleep` and `step.sleep_until`."""

    __slots__ = ("duration", "until")

    def __init__(self, driver: StepDriver, id: str, *, duration: int | None = None, until: int | None = None) -> None:
        self.duration = duration
        self.until = until
        super().__init__(driver, id, DEFAULTS)


class WaitCall(StepCall[T_co]):
    """`step.wait_for_event`."""

    __slots__ = ("event", "expression", "model", "since", "timeout", "where")

    def __init__(
        self, driver: StepDriver, id: str, *, event: str, model: type[Event] | None, where: dict[str, Any],
        expression: str | None, timeout: int, since: str | None,
    ) -> None:
        self.event = event
        self.model = model
        self.where = where
        """Wire path in the awaited event's data -> value it must equal."""
        self.expression = expression
        self.timeout = timeout
        self.since = since
        super().__init__(driver, id, DEFAULTS)


class InvokeCall(StepCall[T_co]):
    """`step.invoke`."""

    __slots__ = ("cancel_with_parent", "function", "payload", "result", "timeout")

    def __init__(
        self, driver: StepDriver, id: str, *, function: str, payload: Event | Mapping[str, Any], result: Any,
        timeout: int, cancel_with_parent: bool = False,
    ) -> None:
        self.function = function
        self.payload = payload
        self.result = result
        """The callee's return annotation, for reading its result back."""
        self.timeout = timeout
        self.cancel_with_parent = cancel_with_parent
        super().__init__(driver, id, DEFAULTS)


class SendCall(StepCall[list[str]]):
    """`step.send`."""

    __slots__ = ("event_id", "events")

    def __init__(
        self, driver: StepDriver, id: str, events: Sequence[Event | Mapping[str, Any]], event_id: str | None = None
    ) -> None:
        self.events = events
        self.event_id = event_id
        """The sender's id of the one event there is, where it gives one."""
        super().__init__(driver, id, DEFAULTS)


class SignalCall(StepCall[T_co]):
    """`step.wait_for_signal`."""

    __slots__ = ("annotation", "replace", "signal", "timeout")

    def __init__(
        self, driver: StepDriver, id: str, *, signal: str, timeout: int, replace: bool, annotation: Any
    ) -> None:
        self.signal = signal
        self.timeout = timeout
        self.replace = replace
        self.annotation = annotation
        """What the signal's data is read as."""
        super().__init__(driver, id, DEFAULTS)


class SendSignalCall(StepCall["str | None"]):
    """`step.send_signal`."""

    __slots__ = ("data", "signal")

    def __init__(self, driver: StepDriver, id: str, *, signal: str, data: bytes) -> None:
        self.signal = signal
        self.data = data
        """JSON."""
        super().__init__(driver, id, DEFAULTS)


class RaceCall(StepCall[int]):
    """`step.race`: records which of several calls finished first."""

    __slots__ = ("tasks",)

    def __init__(self, driver: StepDriver, id: str, tasks: Sequence[asyncio.Future[Any]]) -> None:
        self.tasks = tasks
        super().__init__(driver, id, DEFAULTS)


class NowCall(StepCall[int]):
    """`ctx.now()`: the recorded moment."""

    __slots__ = ()
