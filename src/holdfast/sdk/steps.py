"""Steps as a function writes them: two typed faces, for `async def` and for plain `def`, over one implementation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from datetime import datetime
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

from holdfast.base.clock import to_ms
from holdfast.base.duration import Duration, duration_ms
from holdfast.base.errors import ConfigurationError, EventInvalidError, StepUsageError
from holdfast.base.limits import MAX_INVOKE_MS, MAX_RETRIES, MAX_WAIT_MS
from holdfast.base.retry import RetryPolicy
from holdfast.core.expressions import compile_expression
from holdfast.sdk.calls import (
    DEFAULTS,
    InvokeCall,
    NowCall,
    RaceCall,
    RunCall,
    SendCall,
    SendSignalCall,
    SignalCall,
    SleepCall,
    StepCall,
    StepDriver,
    StepOptions,
    WaitCall,
)
from holdfast.sdk.events import Event, ReceivedEvent, event_name, wire_path, wire_scalar
from holdfast.sdk.matching import match_condition
from holdfast.sdk.outgoing import checked_id
from holdfast.sdk.signals import OnConflict, signal_json, signal_problem
from holdfast.sdk.step_transactions import TransactionSource, transaction_call
from holdfast.sdk.target import Target

__all__ = [
    "InvokeCall",
    "NowCall",
    "RaceCall",
    "RunCall",
    "SendCall",
    "SendSignalCall",
    "SignalCall",
    "SleepCall",
    "Step",
    "StepCall",
    "StepDriver",
    "StepOptions",
    "SyncStep",
    "WaitCall",
]

P = ParamSpec("P")
T = TypeVar("T")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
C = TypeVar("C")
E = TypeVar("E", bound=Event)
R = TypeVar("R")


class _StepBase:
    __slots__ = ("_driver", "_options")

    def __init__(self, driver: StepDriver, options: StepOptions = DEFAULTS) -> None:
        self._driver = driver
        self._options = options

    def _sleep(self, id: str, duration: Duration) -> SleepCall:
        ms = _span(id, duration)
        if ms > MAX_WAIT_MS:
            raise StepUsageError(f"step {id!r} sleeps {duration!r}; the longest sleep is 366 days")
        return SleepCall(self._driver, id, duration=ms)

    def _sleep_until(self, id: str, moment: datetime | str | int) -> SleepCall:
        if isinstance(moment, str):
            try:
                moment = datetime.fromisoformat(moment)
            except ValueError as error:
                raise StepUsageError(f"step {id!r}: {moment!r} is not a moment in RFC 3339") from error
        return SleepCall(self._driver, id, until=moment if isinstance(moment, int) else to_ms(moment))

    def _wait(
        self, id: str, event: type[Event] | str, where: Mapping[str, Any] | None, match: str | None,
        if_: str | None, timeout: Duration, since: str | None,
    ) -> WaitCall[Any]:
        model = None if isinstance(event, str) else event
        name = event if isinstance(event, str) else event_name(event)
        timeout_ms = _span(id, timeout)
        if timeout_ms > MAX_WAIT_MS:
            raise StepUsageError(f"step {id!r} waits {timeout!r}; the longest wait is 366 days")
        paths: dict[str, Any] = {}
        for path, value in (where or {}).items():
            try:
                paths[path if model is None else wire_path(model, path)] = wire_scalar(value)
            except (TypeError, ValueError) as error:
                raise StepUsageError(f"step {id!r}: where[{path!r}] {error}") from error
            except ConfigurationError as error:
                raise StepUsageError(f"step {id!r}: {error}") from error
        expression = if_
        if match is not None:
            try:
                same = match_condition(match, self._driver.triggers, model)
            except ConfigurationError as error:
                raise StepUsageError(f"step {id!r}: {error}") from error
            expression = f"({same}) && ({if_})" if if_ else same
        if expression is not None:
            try:
                compile_expression(expression)
            except ConfigurationError as error:
                raise StepUsageError(f"step {id!r}: {error}") from error
        return WaitCall(
            self._driver, id, event=name, model=model, where=paths, expression=expression, timeout=timeout_ms,
            since=since,
        )

    def _wait_for_signal(
        self, id: str, signal: str, annotation: Any, timeout: Duration, on_conflict: str
    ) -> SignalCall[Any]:
        problem = signal_problem(signal)
        if problem:
            raise StepUsageError(f"step {id!r}: {problem}")
        if on_conflict not in {"fail", "replace"}:
            raise StepUsageError(f"step {id!r}: on_conflict must be 'fail' or 'replace', not {on_conflict!r}")
        timeout_ms = _span(id, timeout)
        if timeout_ms > MAX_WAIT_MS:
            raise StepUsageError(f"step {id!r} waits {timeout!r}; the longest wait is 366 days")
        return SignalCall(
            self._driver, id, signal=signal, timeout=timeout_ms, replace=on_conflict == "replace", annotation=annotation
        )

    def _send_signal(self, id: str, signal: str, data: Any) -> SendSignalCall:
        try:
            raw = signal_json(signal, data)
        except EventInvalidError as error:
            raise StepUsageError(f"step {id!r}: {error}") from error
        return SendSignalCall(self._driver, id, signal=signal, data=raw)

    def _invoke(
        self, id: str, function: Target[Any, Any], payload: Any, timeout: Duration | None, cancel_with_parent: bool,
    ) -> InvokeCall[Any]:
        timeout_ms = MAX_INVOKE_MS if timeout is None else min(_span(id, timeout), MAX_INVOKE_MS)
        return InvokeCall(
            self._driver, id, function=function.slug, payload=payload if payload is not None else {},
            result=function.result_type, timeout=timeout_ms, cancel_with_parent=cancel_with_parent,
        )

    def _send(self, step: str, events: Any, event_id: str | None) -> SendCall:
        many = [events] if isinstance(events, Event | Mapping) else list(events)
        if event_id is not None:
            if len(many) != 1:
                raise StepUsageError(
                    f"step {step!r} sends {len(many)} events with one id; send each in a step of its own, or give plain "
                    "events an 'id' each"
                )
            try:
                event_id = checked_id(event_id, "the event")
            except EventInvalidError as error:
                raise StepUsageError(f"step {step!r}: {error}") from error
        return SendCall(self._driver, step, many, event_id)


def _options(
    base: StepOptions, retries: int | RetryPolicy | None, timeout: Duration | None, backoff: RetryPolicy | None
) -> StepOptions:
    transient_only = base.transient_only
    if isinstance(retries, RetryPolicy):
        backoff = backoff or retries
        transient_only = retries.transient_only
        retries = retries.retries
    if retries is not None and not 0 <= retries <= MAX_RETRIES:
        raise ConfigurationError(f"retries must be 0 to {MAX_RETRIES}, not {retries}")
    return StepOptions(
        base.retries if retries is None else retries,
        base.timeout_ms if timeout is None else duration_ms(timeout),
        base.backoff if backoff is None else backoff,
        transient_only,
    )


def _span(step_id: str, value: Duration) -> int:
    try:
        return duration_ms(value)
    except ConfigurationError as error:
        raise StepUsageError(f"step {step_id!r}: {error}") from error


def _not_callable(step_id: str, given: object) -> StepUsageError:
    if isinstance(given, Coroutine):
        given.close()  # it will never be awaited, which the error says better than a warning
    return StepUsageError(
        f"step {step_id!r} was given {given!r:.60} instead of a function; "
        f"pass the function and its arguments: step.run({step_id!r}, f, x), not step.run({step_id!r}, f(x))"
    )


class Step(_StepBase):
    """Steps of an `async def` function. Every method returns at once; await what it returns."""

    __slots__ = ()

    def options(
        self, *, retries: int | RetryPolicy | None = None, timeout: Duration | None = None,
        backoff: RetryPolicy | None = None,
    ) -> Step:
        """The same steps with options of their own: `ctx.step.options(retries=5).run("x", f)`.

        Args:
            retries: Tries after the first, 0 to 20; or a policy such as `RetryPresets.scraper`, with its own backoff, which
                tries only transient errors again.
            timeout: How long one attempt's body may take before it is cancelled and counted as failed.
            backoff: The delays between attempts.
        """
        return Step(self._driver, _options(self._options, retries, timeout, backoff))

    @overload
    def run(self, id: str, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> StepCall[T]: ...
    @overload
    def run(self, id: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> StepCall[T]: ...
    def run(self, id: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> StepCall[Any]:
        """Execute `fn(*args, **kwargs)` and record its result; once recorded it never runs again in this run.

        The body runs at least once and is recorded once: if the process dies before the result is on disk, it runs
        again. A plain `def` runs in a thread with the caller's context variables.

        Args:
            id: Names the step within the function. Using it again makes `id:1`, `id:2`, in the order of the calls.
            fn: The body, async or not.
            *args: Passed to it, not recorded.
            **kwargs: Passed to it, not recorded.

        Raises:
            StepError: when awaited, if the body failed for good.
        """
        if not callable(fn):
            raise _not_callable(id, fn)
        return RunCall(self._driver, id, self._options, fn, args, kwargs)

    @overload
    def transaction(
        self, id: str, database: TransactionSource, fn: Callable[Concatenate[C, P], Awaitable[T]], /,
        *args: P.args, **kwargs: P.kwargs,
    ) -> StepCall[T]: ...
    @overload
    def transaction(
        self, id: str, database: TransactionSource, fn: Callable[Concatenate[C, P], T], /,
        *args: P.args, **kwargs: P.kwargs,
    ) -> StepCall[T]: ...
    def transaction(
        self, id: str, database: TransactionSource, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> StepCall[Any]:
        """Execute `fn(connection, *args, **kwargs)` in a transaction of your database, whose effect happens exactly once.

        The transaction commits what the body has changed together with a mark that the step is done, and its result. If the
        process dies before the commit, nothing has happened and the step runs again; after it, the mark is found and the
        body is not called again. What the body does outside the transaction is done at least once, as in `run`.

        Args:
            id: Names the step within the function.
            database: What to make the transaction with: a `holdfast.Database`, an SQLAlchemy `async_sessionmaker`,
                `sessionmaker`, `AsyncEngine` or `Engine`, a psycopg connection pool, or the alias of a Django database.
            fn: The body. It gets what `database` makes: a session, or a connection. It must not commit.
            *args: Passed to it.
            **kwargs: Passed to it.

        Raises:
            StepError: when awaited, if the body failed for good. Its transaction was rolled back.
        """
        if not callable(fn):
            raise _not_callable(id, fn)
        return transaction_call(self._driver, id, self._options, database, fn, args, kwargs)

    def sleep(self, id: str, duration: Duration, /) -> StepCall[None]:
        """Sleep durably: it survives restarts and wakes no earlier than due. At most 366 days."""
        return self._sleep(id, duration)

    def sleep_until(self, id: str, moment: datetime | str | int, /) -> StepCall[None]:
        """Sleep until an aware datetime, RFC 3339 text, or milliseconds since 1970. The past returns at once."""
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
            where: Fields of the awaited event and their values; indexed, so that a million waits cost one look-up.
            match: A field that must be there and equal in the triggering and the awaited event, such as `data.user_id`: by its
                Python name where they are typed.
            if_: A CEL expression over `event` (the trigger) and `async` (the awaited).
            timeout: After this the result is None. At most 366 days.
            since: "run" accepts an event that came since the run was queued; a step id, since that step was recorded.

        Returns:
            The event, or None when the time ran out.
        """
        return self._wait(id, event, where, match, if_, timeout, since)

    @overload
    def wait_for_signal(
        self, id: str, signal: str, /, *, type: type[T], timeout: Duration, on_conflict: OnConflict = "fail"
    ) -> StepCall[T | None]: ...
    @overload
    def wait_for_signal(
        self, id: str, signal: str, /, *, timeout: Duration, on_conflict: OnConflict = "fail"
    ) -> StepCall[Any]: ...
    def wait_for_signal(
        self, id: str, signal: str, /, *, type: Any = Any, timeout: Duration, on_conflict: OnConflict = "fail"
    ) -> StepCall[Any]:
        """Wait until somebody gives a signal; one run at a time waits for it.

        Args:
            id: Names the step.
            signal: The signal's name, such as `f"approve-{order_id}"`.
            type: What its data is read as: a pydantic model, a dataclass, `str`, ...; plain JSON unless given.
            timeout: After this the result is None. At most 366 days.
            on_conflict: When another run waits for it: `fail` fails this run; `replace` takes its place, and the other
                run's wait ends as if its time had run out.

        Returns:
            The signal's data, or None when the time ran out.

        Raises:
            SignalConflictError: when awaited, if another run waits for it. Uncaught, it ends the run at once.
        """
        return self._wait_for_signal(id, signal, type, timeout, on_conflict)

    def send_signal(self, id: str, signal: str, data: Any, /) -> StepCall[str | None]:
        """Give a signal as a step: recorded, so never given twice.

        Returns:
            The id of the run that was resumed, or None when nobody waited: a signal is not kept.
        """
        return self._send_signal(id, signal, data)

    def invoke(
        self, id: str, function: Target[E, R], payload: E | None = None, /, *,
        timeout: Duration | None = None, cancel_with_parent: bool = False,
    ) -> StepCall[R]:
        """Start another function and wait for its result.

        Args:
            id: Names the step.
            function: A decorated function, or a `FunctionRef` to one that lives elsewhere.
            payload: Its event.
            timeout: How long to wait; one year by default.
            cancel_with_parent: Whether cancelling this run cancels the other as well, while it is waited for.

        Raises:
            StepError: when awaited: the function failed, or doesn't exist.
            InvokeCancelledError: its run was cancelled.
            InvokeTimeoutError: it did not finish in time. It goes on by itself.
        """
        return self._invoke(id, function, payload, timeout, cancel_with_parent)

    def send(
        self, step: str, events: Event | Mapping[str, Any] | Iterable[Event | Mapping[str, Any]], /, *,
        id: str | None = None,
    ) -> StepCall[list[str]]:
        """Send events as a step: recorded, so never sent twice. Returns their ids.

        Args:
            step: Names the step.
            events: One event or several.
            id: Your id for the event, of one only: the same id within 24 hours starts each function once, whichever
                run, or whoever else, sends it.
        """
        return self._send(step, events, id)

    @overload
    async def race(self, id: str, first: StepCall[T], second: StepCall[T2], /) -> T | T2: ...
    @overload
    async def race(
        self, id: str, first: StepCall[T], second: StepCall[T2], third: StepCall[T3], /
    ) -> T | T2 | T3: ...
    @overload
    async def race(self, id: str, /, *calls: StepCall[T]) -> T: ...
    async def race(self, id: str, /, *calls: StepCall[Any]) -> Any:
        """Await several calls and return the result of the first to finish; which one it was is recorded.

        The others are left to finish by themselves; a wait or sleep that lost is given up.
        """
        tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(call) for call in calls]
        winner = await RaceCall(self._driver, id, tasks)
        for task, call in zip(tasks, calls, strict=True):
            if not task.done() and not isinstance(call, RunCall):
                task.cancel()
        return await tasks[winner]


class SyncStep(_StepBase):
    """Steps of a plain `def` function: the same, blocking the function's own thread."""

    __slots__ = ()

    def options(
        self, *, retries: int | RetryPolicy | None = None, timeout: Duration | None = None,
        backoff: RetryPolicy | None = None,
    ) -> SyncStep:
        """See `Step.options`."""
        return SyncStep(self._driver, _options(self._options, retries, timeout, backoff))

    @overload
    def run(self, id: str, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    def run(self, id: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    def run(self, id: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """See `Step.run`. A plain body runs in this thread, so that thread-local connections keep working."""
        if not callable(fn):
            raise _not_callable(id, fn)
        return self._driver.perform_sync(RunCall(self._driver, id, self._options, fn, args, kwargs))

    @overload
    def transaction(
        self, id: str, database: TransactionSource, fn: Callable[Concatenate[C, P], Awaitable[T]], /,
        *args: P.args, **kwargs: P.kwargs,
    ) -> T: ...
    @overload
    def transaction(
        self, id: str, database: TransactionSource, fn: Callable[Concatenate[C, P], T], /,
        *args: P.args, **kwargs: P.kwargs,
    ) -> T: ...
    def transaction(
        self, id: str, database: TransactionSource, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        """See `Step.transaction`. A plain body runs in this thread."""
        if not callable(fn):
            raise _not_callable(id, fn)
        call = transaction_call(self._driver, id, self._options, database, fn, args, kwargs)
        return self._driver.perform_sync(call)

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

    @overload
    def wait_for_signal(
        self, id: str, signal: str, /, *, type: type[T], timeout: Duration, on_conflict: OnConflict = "fail"
    ) -> T | None: ...
    @overload
    def wait_for_signal(
        self, id: str, signal: str, /, *, timeout: Duration, on_conflict: OnConflict = "fail"
    ) -> Any: ...
    def wait_for_signal(
        self, id: str, signal: str, /, *, type: Any = Any, timeout: Duration, on_conflict: OnConflict = "fail"
    ) -> Any:
        """See `Step.wait_for_signal`."""
        return self._driver.perform_sync(self._wait_for_signal(id, signal, type, timeout, on_conflict))

    def send_signal(self, id: str, signal: str, data: Any, /) -> str | None:
        """See `Step.send_signal`."""
        result: str | None = self._driver.perform_sync(self._send_signal(id, signal, data))
        return result

    def invoke(
        self, id: str, function: Target[E, R], payload: E | None = None, /, *,
        timeout: Duration | None = None, cancel_with_parent: bool = False,
    ) -> R:
        """See `Step.invoke`."""
        call = self._invoke(id, function, payload, timeout, cancel_with_parent)
        result: R = self._driver.perform_sync(call)
        return result

    def send(
        self, step: str, events: Event | Mapping[str, Any] | Iterable[Event | Mapping[str, Any]], /, *,
        id: str | None = None,
    ) -> list[str]:
        """See `Step.send`."""
        result: list[str] = self._driver.perform_sync(self._send(step, events, id))
        return result
