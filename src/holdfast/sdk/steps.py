"""Steps as a function writes them: the calls, their options, and the two typed faces over one implementation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, overload

from holdfast.base.clock import to_ms
from holdfast.base.duration import Duration, duration_ms
from holdfast.base.errors import ConfigurationError, StepUsageError
from holdfast.base.limits import MAX_INVOKE_MS, MAX_WAIT_MS
from holdfast.base.retry import RetryPolicy
from holdfast.sdk.events import Event, ReceivedEvent, event_name, wire_path

if TYPE_CHECKING:
    from types import TracebackType

    from holdfast.sdk.functions import Function, FunctionRef

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
E = TypeVar("E", bound=Event)
R = TypeVar("R")


class StepOptions:
    """What one step may have of its own. None means the function's."""

    __slots__ = ("backoff", "retries", "timeout_ms")

    def __init__(self, retries: int | None, timeout_ms: int | None, backoff: RetryPolicy | None) -> None:
        self.retries = retries
        self.timeout_ms = timeout_ms
        self.backoff = backoff


_DEFAULTS = StepOptions(None, None, None)


class StepDriver(Protocol):
    """What executes steps: in process, or by reporting them to a server."""

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
        self, driver: StepDriver, id: str, options: StepOptions, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
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
        super().__init__(driver, id, _DEFAULTS)


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
        super().__init__(driver, id, _DEFAULTS)


class InvokeCall(StepCall[T_co]):
    """`step.invoke`."""

    __slots__ = ("function", "payload", "result", "timeout")

    def __init__(
        self, driver: StepDriver, id: str, *, function: str, payload: Event | Mapping[str, Any], result: Any, timeout: int
    ) -> None:
        self.function = function
        self.payload = payload
        self.result = result
        """The callee's return annotation, for reading its result back."""
        self.timeout = timeout
        super().__init__(driver, id, _DEFAULTS)


class SendCall(StepCall[list[str]]):
    """`step.send`."""

    __slots__ = ("events",)

    def __init__(self, driver: StepDriver, id: str, events: Sequence[Event | Mapping[str, Any]]) -> None:
        self.events = events
        super().__init__(driver, id, _DEFAULTS)


class RaceCall(StepCall[int]):
    """`step.race`: records which of several calls finished first."""

    __slots__ = ("calls",)

    def __init__(self, driver: StepDriver, id: str, calls: Sequence[StepCall[Any]]) -> None:
        self.calls = calls
        super().__init__(driver, id, _DEFAULTS)


class NowCall(StepCall[int]):
    """`ctx.now()`: the recorded moment."""

    __slots__ = ()


class _StepBase:
    __slots__ = ("_driver", "_options")

    def __init__(self, driver: StepDriver, options: StepOptions = _DEFAULTS) -> None:
        self._driver = driver
        self._options = options

    def _sleep(self, id: str, duration: Duration) -> SleepCall:
        ms = duration_ms(duration)
        if ms > MAX_WAIT_MS:
            raise StepUsageError(f"step {id!r} sleeps {duration!r}; the longest sleep is 366 days")
        return SleepCall(self._driver, id, duration=ms)

    def _sleep_until(self, id: str, moment: datetime | str | int) -> SleepCall:
        if isinstance(moment, str):
            moment = datetime.fromisoformat(moment)
        return SleepCall(self._driver, id, until=moment if isinstance(moment, int) else to_ms(moment))

    def _wait(
        self, id: str, event: type[Event] | str, where: Mapping[str, Any] | None, match: str | None,
        if_: str | None, timeout: Duration, since: str | None,
    ) -> WaitCall[Any]:
        model = None if isinstance(event, str) else event
        name = event if isinstance(event, str) else event_name(event)
        timeout_ms = duration_ms(timeout)
        if timeout_ms > MAX_WAIT_MS:
            raise StepUsageError(f"step {id!r} waits {timeout!r}; the longest wait is 366 days")
        paths: dict[str, Any] = {}
        for path, value in (where or {}).items():
            if value is not None and not isinstance(value, str | int | float | bool):
                raise StepUsageError(f"step {id!r}: where[{path!r}] must be a string, number, bool or None, not {type(value).__name__}")
            paths[wire_path(model, path) if model is not None else path] = value
        expression = if_
        if match is not None:
            same = f"event.{match} == async.{match}"
            expression = f"({same}) && ({if_})" if if_ else same
        return WaitCall(
            self._driver, id, event=name, model=model, where=paths, expression=expression, timeout=timeout_ms, since=since
        )

    def _invoke(
        self, id: str, function: Function[Any, Any] | FunctionRef[Any, Any], payload: Any, timeout: Duration | None
    ) -> InvokeCall[Any]:
        timeout_ms = MAX_INVOKE_MS if timeout is None else min(duration_ms(timeout), MAX_INVOKE_MS)
        return InvokeCall(
            self._driver, id, function=function.slug, payload=payload if payload is not None else {},
            result=function.result_type, timeout=timeout_ms,
        )

    def _send(self, id: str, events: Any) -> SendCall:
        many = [events] if isinstance(events, Event | Mapping) else list(events)
        return SendCall(self._driver, id, many)


def _options(
    base: StepOptions, retries: int | RetryPolicy | None, timeout: Duration | None, backoff: RetryPolicy | None
) -> StepOptions:
    if isinstance(retries, RetryPolicy):
        backoff = backoff or retries
        retries = retries.retries
    if retries is not None and not 0 <= retries <= 20:
        raise ConfigurationError(f"retries must be 0 to 20, not {retries}")
    return StepOptions(
        base.retries if retries is None else retries,
        base.timeout_ms if timeout is None else duration_ms(timeout),
        base.backoff if backoff is None else backoff,
    )


class Step(_StepBase):
    """Steps of an `async def` function. Every method returns at once; await what it returns."""

    __slots__ = ()

    def options(
        self, *, retries: int | RetryPolicy | None = None, timeout: Duration | None = None, backoff: RetryPolicy | None = None
    ) -> Step:
        """The same steps with options of their own: `ctx.step.options(retries=5).run("x", f)`.

        Args:
            retries: Tries after the first, 0 to 20; or a policy such as `RetryPresets.scraper`, which sets the backoff too.
            timeout: How long one attempt's body may take before it is cancelled and counted as failed.
            backoff: The delays between attempts.
        """
        return Step(self._driver, _options(self._options, retries, timeout, backoff))

    @overload
    def run(self, id: str, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> StepCall[T]: ...  # type: ignore[overload-overlap]
    @overload
    def run(self, id: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> StepCall[T]: ...
    def run(self, id: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> StepCall[Any]:
        """Execute `fn(*args, **kwargs)` and record its result; once recorded it never runs again in this run.

        The body runs at least once and is recorded once: if the process dies before the result is on disk, it runs again.
        A plain `def` runs in a thread with the caller's context variables.

        Args:
            id: Names the step within the function. Using it again makes `id:1`, `id:2`, in the order of the calls.
            fn: The body, async or not.
            *args: Passed to it, not recorded.
            **kwargs: Passed to it, not recorded.

        Raises:
            StepError: when awaited, if the body failed for good.
        """
        return RunCall(self._driver, id, self._options, fn, args, kwargs)

    def sleep(self, id: str, duration: Duration, /) -> StepCall[None]:
        """Sleep durably: it survives restarts and wakes no earlier than due. At most 366 days."""
        return self._sleep(id, duration)

    def sleep_until(self, id: str, moment: datetime | str | int, /) -> StepCall[None]:
        """Sleep until a moment: an aware datetime, RFC 3339 text, or milliseconds since 1970. The past returns at once."""
        return self._sleep_until(id, moment)

    @overload
    def wait_for_event(
        self, id: str, event: type[E], /, *, where: Mapping[str, Any] | None = None, match: str | None = None,
        if_: str | None = None, timeout: Duration, since: str | None = None,
    ) -> StepCall[ReceivedEvent[E] | None]: ...
    @overload
    def wait_for_event(
        self, id: str, event: str, /, *, where: Mapping[str, Any] | None = None, match: str | None = None,
        if_: str | None = None, timeout: Duration, since: str | None = None,
    ) -> StepCall[ReceivedEvent[Any] | None]: ...
    def wait_for_event(
        self, id: str, event: Any, /, *, where: Mapping[str, Any] | None = None, match: str | None = None,
        if_: str | None = None, timeout: Duration, since: str | None = None,
    ) -> StepCall[Any]:
        """Wait for an event that arrives from now on.

        Args:
            id: Names the step.
            event: The event's class, or its name.
            where: Fields of the awaited event and the values they must have; indexed, so a million waits cost one look-up.
            match: A path that must be equal in the triggering and the awaited event, such as `data.user_id`.
            if_: A CEL expression over `event` (the trigger) and `async` (the awaited).
            timeout: After this the result is None. At most 366 days.
            since: "run" to accept an event that came since the run was queued, or a step id: since that step was recorded.

        Returns:
            The event, or None when the time ran out.
        """
        return self._wait(id, event, where, match, if_, timeout, since)

    def invoke(
        self, id: str, function: Function[E, R] | FunctionRef[E, R], payload: E | None = None, /, *, timeout: Duration | None = None
    ) -> StepCall[R]:
        """Start another function and wait for its result.

        Args:
            id: Names the step.
            function: A decorated function, or a `FunctionRef` to one that lives elsewhere.
            payload: Its event.
            timeout: How long to wait; one year by default.

        Raises:
            StepError: when awaited: the function failed or was cancelled, or doesn't exist.
            InvokeTimeoutError: it did not finish in time. It goes on by itself.
        """
        return self._invoke(id, function, payload, timeout)

    def send(self, id: str, events: Event | Mapping[str, Any] | Iterable[Event | Mapping[str, Any]], /) -> StepCall[list[str]]:
        """Send events as a step: recorded, so never sent twice. Returns their ids."""
        return self._send(id, events)

    async def race(self, id: str, /, *calls: StepCall[T]) -> T:
        """Await several calls and return the result of the first to finish; which one it was is recorded.

        The others are left to finish by themselves; a wait or sleep that lost is given up.
        """
        winner = await RaceCall(self._driver, id, calls)
        return await calls[winner]


class SyncStep(_StepBase):
    """Steps of a plain `def` function: the same, blocking the function's own thread."""

    __slots__ = ()

    def options(
        self, *, retries: int | RetryPolicy | None = None, timeout: Duration | None = None, backoff: RetryPolicy | None = None
    ) -> SyncStep:
        """See `Step.options`."""
        return SyncStep(self._driver, _options(self._options, retries, timeout, backoff))

    def run(self, id: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Step.run`. The body runs in this thread, so thread-local connections keep working."""
        result: T = self._driver.perform_sync(RunCall(self._driver, id, self._options, fn, args, kwargs))
        return result

    def sleep(self, id: str, duration: Duration, /) -> None:
        """See `Step.sleep`."""
        self._driver.perform_sync(self._sleep(id, duration))

    def sleep_until(self, id: str, moment: datetime | str | int, /) -> None:
        """See `Step.sleep_until`."""
        self._driver.perform_sync(self._sleep_until(id, moment))

    @overload
    def wait_for_event(
        self, id: str, event: type[E], /, *, where: Mapping[str, Any] | None = None, match: str | None = None,
        if_: str | None = None, timeout: Duration, since: str | None = None,
    ) -> ReceivedEvent[E] | None: ...
    @overload
    def wait_for_event(
        self, id: str, event: str, /, *, where: Mapping[str, Any] | None = None, match: str | None = None,
        if_: str | None = None, timeout: Duration, since: str | None = None,
    ) -> ReceivedEvent[Any] | None: ...
    def wait_for_event(
        self, id: str, event: Any, /, *, where: Mapping[str, Any] | None = None, match: str | None = None,
        if_: str | None = None, timeout: Duration, since: str | None = None,
    ) -> Any:
        """See `Step.wait_for_event`."""
        return self._driver.perform_sync(self._wait(id, event, where, match, if_, timeout, since))

    def invoke(
        self, id: str, function: Function[E, R] | FunctionRef[E, R], payload: E | None = None, /, *, timeout: Duration | None = None
    ) -> R:
        """See `Step.invoke`."""
        result: R = self._driver.perform_sync(self._invoke(id, function, payload, timeout))
        return result

    def send(self, id: str, events: Event | Mapping[str, Any] | Iterable[Event | Mapping[str, Any]], /) -> list[str]:
        """See `Step.send`."""
        result: list[str] = self._driver.perform_sync(self._send(id, events))
        return result


def seconds(value: Duration) -> float:
    """A duration as seconds, for asyncio."""
    return duration_ms(value) / 1000


__all__ = ["RunCall", "Step", "StepCall", "StepDriver", "SyncStep", "timedelta"]
