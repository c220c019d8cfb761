"""Durable functions: the decorated object, its options, and references to functions that live elsewhere."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeVar, get_origin, get_type_hints, overload

from holdfast.base.duration import duration_text
from holdfast.base.errors import ConfigurationError
from holdfast.base.limits import event_name_problem
from holdfast.base.retry import RetryPolicy
from holdfast.core.cron import Schedule
from holdfast.core.expressions import compile_expression
from holdfast.sdk.alerts import Alerts
from holdfast.sdk.callables import return_type
from holdfast.sdk.context import Context, SyncContext
from holdfast.sdk.events import Event, FunctionFailed
from holdfast.sdk.middleware import Middleware
from holdfast.sdk.sensitive import sensitive_paths
from holdfast.sdk.target import Target
from holdfast.sdk.triggers import Trigger

E = TypeVar("E", bound=Event)
R = TypeVar("R")
E_contra = TypeVar("E_contra", contravariant=True)

_ID = re.compile(r"[a-z0-9]([a-z0-9_.-]*[a-z0-9])?", re.IGNORECASE)

FailureHandler = Callable[[Context[FunctionFailed]], Awaitable[Any]] | Callable[[SyncContext[FunctionFailed]], Any]


@dataclass(slots=True)
class FunctionOptions:
    """The options of a function, validated and normalised."""

    retries: int
    """Tries after the first, for each step and for the function's own code."""
    backoff: RetryPolicy
    """Delays between attempts."""
    step_timeout_ms: int
    """How long one attempt of a step body may take."""
    aliases: tuple[str, ...] = ()
    """Former ids: runs started under them go on here."""
    middleware: tuple[Middleware, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    """Flow control, in the protocol's registration form."""
    alerts: Alerts | None = None
    """When its trouble is told."""
    keys: dict[str, Callable[[Any], object]] = field(default_factory=dict)
    """The keys in it that are Python functions, by the name that stands for them."""


class Function(Target[E, R]):
    """A durable function. `app.send` and `app.start` run it durably; calling it calls the plain function, for tests."""

    def __init__(
        self, app_id: str, function_id: str, fn: Callable[..., Any], triggers: Sequence[Trigger],
        options: FunctionOptions, on_failure: FailureHandler | None, name: str | None = None,
    ) -> None:
        self.app_id = app_id
        self.id = function_id
        self.fn = fn
        """The undecorated function."""
        self.triggers = tuple(triggers)
        self.options = options
        self.on_failure = on_failure
        self.name = name or function_id
        self.is_async = inspect.iscoroutinefunction(fn)
        self.where = source_of(fn)
        self.marked: tuple[str, ...] = ()
        """Fields that its app has marked by name."""
        self.__name__ = getattr(fn, "__name__", function_id)
        self.__doc__ = fn.__doc__
        self.__wrapped__ = fn
        if not _ID.fullmatch(function_id):
            raise ConfigurationError(
                f"{self.where}: function id {function_id!r} may have letters, digits, '.', '_' and '-' only"
            )

    @property
    def slug(self) -> str:
        """`<app>-<function id>`, the id on the wire."""
        return f"{self.app_id}-{self.id}"

    @cached_property
    def result_type(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The return annotation, or Any. Read when first asked for: it may name classes that are defined later."""
        return return_type(self.fn)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Function {self.slug}>"

    @cached_property
    def sensitive(self) -> tuple[str, ...]:
        """The marked fields of its events and its result, and those its app has marked by name.

        Raises:
            ConfigurationError: a field's type would lose its value.
        """
        found = set(self.marked)
        for annotation in [self.result_type, *(trigger.model for trigger in self.triggers if trigger.model is not None)]:
            found.update(sensitive_paths(annotation))
        return tuple(sorted(found))

    def config(self) -> dict[str, Any]:
        """The registration document (protocol section 3), with holdfast's additions beside it."""
        return {
            "id": self.slug,
            "name": self.name,
            "triggers": [trigger.config() for trigger in self.triggers],
            "retries": self.options.retries,
            "backoff": self.options.backoff.describe(),
            "stepTimeout": duration_text(self.options.step_timeout_ms),
            **self.options.extra,
            **({} if self.options.alerts is None else {"alerts": self.options.alerts.config()}),
            **({"sensitive": list(self.sensitive)} if self.sensitive else {}),
        }


@dataclass(frozen=True, slots=True)
class FunctionRef(Target[E, R]):
    """A function of another app or module: `FunctionRef("billing/charge", ChargeRequest, Receipt)` for `step.invoke`.

    Raises:
        ConfigurationError: the id is not of the form `app/function`.
    """

    id: str
    """`app/function`."""
    event: type[E]
    result: type[R]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[^/\s]+/[^/\s]+", self.id):
            raise ConfigurationError(f"{self.id!r} is not a reference to a function; write it as 'app/function'")

    @property
    def slug(self) -> str:
        """The id on the wire."""
        return self.id.replace("/", "-", 1)

    @property
    def result_type(self) -> Any:
        """What the result is read back as."""
        return self.result


class FunctionDecorator(Protocol[E]):
    """What `@app.function(...)` returns: it keeps the types of the function it decorates."""

    @overload
    def __call__(self, fn: Callable[[Context[E]], Awaitable[R]], /) -> Function[E, R]: ...
    @overload
    def __call__(self, fn: Callable[[SyncContext[E]], R], /) -> Function[E, R]: ...


class AnyFunctionDecorator(Protocol):
    """The same for triggers by name: the event's data is whatever JSON was sent."""

    @overload
    def __call__(self, fn: Callable[[Context[Any]], Awaitable[R]], /) -> Function[Any, R]: ...
    @overload
    def __call__(self, fn: Callable[[SyncContext[Any]], R], /) -> Function[Any, R]: ...


def source_of(fn: Callable[..., Any]) -> str:
    """`file.py:12, function name`: where an error message sends its reader."""
    code = getattr(fn, "__code__", None)
    name = getattr(fn, "__qualname__", repr(fn))
    return f"{code.co_filename}:{code.co_firstlineno}, function {name}" if code else f"function {name}"


def check_function(function: Function[Any, Any]) -> None:
    """Everything about a function that can be known to be wrong before it runs.

    Raises:
        ConfigurationError: naming the function and its line (rules: protocol section 3).
    """
    if len(function.triggers) > 10:
        raise ConfigurationError(f"{function.where}: a function may have 10 triggers, not {len(function.triggers)}")
    if not function.triggers:
        raise ConfigurationError(f"{function.where}: a function needs at least one trigger")
    seen: set[tuple[str | None, str | None, str | None]] = set()
    for trigger in function.triggers:
        try:
            _check_trigger(trigger, seen)
        except ConfigurationError as error:
            raise ConfigurationError(f"{function.where}: {error}") from error
    _check_signature(function)


def _check_trigger(trigger: Trigger, seen: set[tuple[str | None, str | None, str | None]]) -> None:
    identity = (trigger.event, trigger.expression, trigger.cron)
    if identity in seen:
        raise ConfigurationError(f"trigger {trigger.cron or trigger.event!r} is given twice")
    seen.add(identity)
    if trigger.cron is not None:
        Schedule.parse(trigger.cron)
    elif trigger.event is not None:
        problem = event_name_problem(trigger.event)
        if problem:
            raise ConfigurationError(problem)
    if trigger.expression:
        try:
            compile_expression(trigger.expression)
        except ConfigurationError as error:
            raise ConfigurationError(f"invalid trigger expression on '{trigger.event}': {error}") from error


def _check_signature(function: Function[Any, Any]) -> None:
    if not callable(function.fn):
        raise ConfigurationError(f"{function.where} is not a function")
    try:
        parameters = list(inspect.signature(function.fn).parameters.values())
    except (TypeError, ValueError):  # some callables written in C have no signature
        return
    named = [p for p in parameters if p.default is p.empty and p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD}]
    by_position = [p for p in parameters if p.kind not in {p.KEYWORD_ONLY, p.VAR_KEYWORD}]
    if len(named) > 1 or not by_position:
        raise ConfigurationError(f"{function.where}: a function takes one argument, its context, not {len(named)}")
    if inspect.isgeneratorfunction(function.fn) or inspect.isasyncgenfunction(function.fn):
        raise ConfigurationError(f"{function.where}: a function must return its result, not yield")
    _check_context(function, by_position[0].name)


def _check_context(function: Function[Any, Any], parameter: str) -> None:
    """`async def` gets a Context and `def` a SyncContext: the wrong one would fail at the first step."""
    try:
        annotation = get_type_hints(function.fn).get(parameter)
    except Exception:  # annotations may name things that exist for type checkers only
        return
    given = get_origin(annotation) or annotation
    if given is SyncContext and function.is_async:
        raise ConfigurationError(f"{function.where}: an `async def` function receives a Context, not a SyncContext")
    if given is Context and not function.is_async:
        raise ConfigurationError(f"{function.where}: a plain `def` function receives a SyncContext, not a Context")
