"""The app: its events, its functions, and how it sends and starts work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from functools import partial
from typing import Any, TypeAlias, TypeVar, Unpack, cast, overload

from holdfast.base.codec import encode_json
from holdfast.base.errors import ConfigurationError, NotRunningError
from holdfast.base.limits import DEFAULT_RETRIES
from holdfast.base.masks import Masks
from holdfast.base.retry import Backoff, RetryPolicy
from holdfast.sdk.alerts import Alerts
from holdfast.sdk.databases import Database, as_database
from holdfast.sdk.events import CronTick, Event, FunctionFailed, event_name
from holdfast.sdk.flow_switches import FlowSwitching
from holdfast.sdk.functions import (
    AnyFunctionDecorator,
    FailureHandler,
    Function,
    FunctionDecorator,
    check_function,
    source_of,
)
from holdfast.sdk.middleware import Middleware, overrides
from holdfast.sdk.outgoing import Schemas, checked_id, checked_ts, nearest
from holdfast.sdk.runs import RunHandle, Runs
from holdfast.sdk.sender import Control, Outgoing, Sender, Sent
from holdfast.sdk.sensitive import sensitive_paths
from holdfast.sdk.settings import FunctionSettings, function_options
from holdfast.sdk.signals import signal_json
from holdfast.sdk.status import StatusSink
from holdfast.sdk.steering import Steering
from holdfast.sdk.transactional import Transactional
from holdfast.sdk.triggers import Cron, On, Trigger, normalise

__all__ = ["App", "FunctionSettings", "RunHandle", "nearest"]

E = TypeVar("E", bound=Event)
E2 = TypeVar("E2", bound=Event)
E3 = TypeVar("E3", bound=Event)
R = TypeVar("R")

Lifespan: TypeAlias = Callable[["App"], AbstractAsyncContextManager[Any]]
EventLike: TypeAlias = Event | Mapping[str, Any]
EventTrigger: TypeAlias = type[E] | On[E]


class App(FlowSwitching, Steering):
    """An application: a name, event schemas and durable functions.

    Args:
        id: The app's id on the wire; letters, digits, `.`, `_`, `-`.
        events: All event classes the app may send. When given, sending any other name is an error.
        retries: Default number of retries of its functions.
        backoff: Default delays between attempts; the protocol's table unless given.
        on_failure: Called, as a durable function, after any function of the app has failed for good.
        middleware: Code around all functions, steps and sends of the app.
        lifespan: An async context manager around the time the app runs; what it yields is `ctx.resources`.
        alerts: Default thresholds of its functions.
        sinks: Where the statuses of its runs are mirrored to, such as `holdfast.sinks.RedisStatus`.
        databases: The application's own databases, or their URLs, in whose transactions it sends and does steps.
        sensitive: Fields that people are not to see, in payloads without a model: `card_number`, `card.number`. In models, mark
            them with `Sensitive`.
    """

    def __init__(
        self, id: str, *, events: Sequence[type[Event]] | None = None, retries: int = DEFAULT_RETRIES,
        backoff: RetryPolicy | None = None, on_failure: FailureHandler | None = None,
        middleware: Sequence[Middleware] = (), lifespan: Lifespan | None = None, alerts: Alerts | None = None,
        sinks: Sequence[StatusSink] = (), databases: Sequence[Database | str] = (), sensitive: Sequence[str] = (),
    ) -> None:
        if not id or not id.isascii() or not all(c.isalnum() or c in "._-" for c in id):
            raise ConfigurationError(f"app id {id!r} may have letters, digits, '.', '_' and '-' only")
        self.id = id
        self.functions: dict[str, Function[Any, Any]] = {}
        self.events: dict[str, type[Event]] = {}
        self.closed_schema = events is not None
        self._schemas = Schemas(id, self.events, self.closed_schema)
        self.retries = retries
        self.backoff = backoff or Backoff.table()
        self.middleware = tuple(middleware)
        self.lifespan = lifespan
        self.alerts = alerts
        self.sinks = tuple(sinks)
        self.databases = tuple(map(as_database, databases))
        self.transactional = Transactional(id)
        self.sensitive = Masks(sensitive).paths
        self._senders: list[Sender] = []
        self._resources: list[Any] = []
        self._send_wrappers = [m for m in self.middleware if overrides(m, "around_send")]
        try:
            function_options({}, self.retries, self.backoff, alerts=alerts)
        except ConfigurationError as error:
            raise ConfigurationError(f"app {id!r}: {error}") from error
        for model in events or ():
            self.declare(model)
        if on_failure is not None:
            self._add_failure_handler("app-failure", on_failure, f"event.data.app_id == '{id}'")

    # -- declaring ---------------------------------------------------------------------------------------------------

    def declare(self, model: type[Event]) -> None:
        """Make an event class part of the app's schemas.

        Raises:
            ConfigurationError: another class has the same event name, or a field's type would lose its value.
        """
        name = event_name(model)
        sensitive_paths(model)
        known = self.events.setdefault(name, model)
        if known is not model and (known.__module__, known.__qualname__) != (model.__module__, model.__qualname__):
            raise ConfigurationError(
                f"event {name!r} is declared by two classes: {known.__module__}.{known.__qualname__} and "
                f"{model.__module__}.{model.__qualname__}; keep one"
            )

    @overload
    def function(self, trigger: EventTrigger[E], /, **settings: Unpack[FunctionSettings]) -> FunctionDecorator[E]: ...
    @overload
    def function(self, trigger: Cron[Any], /, **settings: Unpack[FunctionSettings]) -> FunctionDecorator[CronTick]: ...
    @overload
    def function(self, trigger: str, /, **settings: Unpack[FunctionSettings]) -> AnyFunctionDecorator: ...
    @overload
    def function(
        self, trigger: EventTrigger[E], second: EventTrigger[E2], /, **settings: Unpack[FunctionSettings]
    ) -> FunctionDecorator[E | E2]: ...
    @overload
    def function(
        self, trigger: EventTrigger[E], second: Cron[Any], /, **settings: Unpack[FunctionSettings]
    ) -> FunctionDecorator[E | CronTick]: ...
    @overload
    def function(
        self, trigger: Cron[Any], second: Cron[Any], /, *more: Cron[Any], **settings: Unpack[FunctionSettings]
    ) -> FunctionDecorator[CronTick]: ...
    @overload
    def function(
        self, trigger: EventTrigger[E], second: EventTrigger[E2], third: EventTrigger[E3], /,
        **settings: Unpack[FunctionSettings],
    ) -> FunctionDecorator[E | E2 | E3]: ...
    @overload
    def function(
        self, *triggers: type[Event] | On[Any] | Cron[Any] | str, **settings: Unpack[FunctionSettings]
    ) -> AnyFunctionDecorator: ...
    def function(self, *triggers: Any, **settings: Unpack[FunctionSettings]) -> Any:
        """Make a durable function of what it decorates.

        Args:
            *triggers: Event classes, `On(event, if_=...)`, event names (also `a/*`), or `Cron(...)`; up to ten.
            **settings: See `FunctionSettings`.

        Raises:
            ConfigurationError: an id, trigger, expression, schedule or setting is not usable: function and line.
        """

        def decorate(fn: Callable[..., Any]) -> Function[Any, Any]:
            return self._add(fn, triggers, settings)

        return decorate

    def _add(self, fn: Callable[..., Any], triggers: Sequence[Any], settings: FunctionSettings) -> Function[Any, Any]:
        where = source_of(fn)
        try:
            normal = [normalise(trigger) for trigger in triggers]
            options = function_options(settings, self.retries, self.backoff, normal, self.alerts)
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: {error}") from error
        function_id = settings.get("id") or fn.__name__.replace("_", "-")
        function: Function[Any, Any] = Function(
            self.id, function_id, fn, normal, options, settings.get("on_failure"), settings.get("name")
        )
        check_function(function)
        self._register(function)
        for trigger in normal:
            if trigger.model is not None and not trigger.model.__holdfast_event__.startswith("inngest/"):
                self.declare(trigger.model)
        handler = settings.get("on_failure")
        if handler is not None:
            self._add_failure_handler(f"{function_id}-failure", handler, f"event.data.function_id == '{function.slug}'")
        return function

    def _register(self, function: Function[Any, Any]) -> None:
        for name in (function.id, *function.options.aliases):
            other = self.functions.get(name)
            other = other or next((f for f in self.functions.values() if name in f.options.aliases), None)
            if other is not None:
                raise ConfigurationError(
                    f"{function.where}: function id {name!r} is taken by {other.where}; give one of them its own id=..."
                )
        function.marked = self.sensitive
        self.functions[function.id] = function

    @property
    def sensitive_paths(self) -> frozenset[str]:
        """All fields that people are not to see."""
        models = [path for model in self.events.values() for path in sensitive_paths(model)]
        functions = [path for function in self.functions.values() for path in function.sensitive]
        return frozenset([*self.sensitive, *models, *functions])

    def _add_failure_handler(self, function_id: str, handler: FailureHandler, expression: str) -> None:
        trigger = Trigger("inngest/function.failed", expression, None, FunctionFailed)
        options = function_options({}, self.retries, self.backoff)
        function: Function[Any, Any] = Function(self.id, function_id, handler, [trigger], options, None)
        check_function(function)
        self._register(function)

    # -- sending -----------------------------------------------------------------------------------------------------

    async def send(
        self, event: EventLike, *, id: str | None = None, ts: datetime | int | None = None, connection: Any = None
    ) -> Sent:
        """Send one event. Returns when it is on disk; the work happens later.

        Args:
            event: A typed event, or `{"name": ..., "data": {...}}`, validated by the same schema.
            id: Your id for it. The same id within 24 hours starts each function once.
            ts: When it happened, or in the future: when its functions are to start.
            connection: A connection or session of your database: the event is then part of its transaction, and exists if,
                and only if, that commits. See "Send in your own transaction" in the manual.

        Raises:
            EventInvalidError: it does not fit its schema or is out of bounds.
            UnknownEventError: the app declares its events and this is none of them.
            ConfigurationError: the connection is not understood, or its database has no outbox.
            NotRunningError: nothing accepts events: neither `app.running()` nor a server address.
            OverloadedError: too much work is in memory; nothing was accepted.
            StoreError: the disk refused; nothing was accepted.
        """
        return (await self._deliver([self.outgoing(event, id, ts)], connection))[0]

    async def send_many(self, events: Iterable[EventLike], *, connection: Any = None) -> list[Sent]:
        """Send several events in one transaction: all are accepted or none. `connection` and errors as for `send`."""
        return await self._deliver([self.outgoing(event) for event in events], connection)

    def send_sync(
        self, event: EventLike, *, id: str | None = None, ts: datetime | int | None = None, connection: Any = None
    ) -> Sent:
        """`send` for code that isn't async: a Flask view, a thread, a script. Blocks until the event is on disk, or with
        `connection` until it is part of that transaction.

        Raises:
            NotRunningError: called on the engine's own loop, where blocking would stop it; use `await app.send(...)`.
        """
        outgoing = [self.outgoing(event, id, ts)]
        if self._send_wrappers:
            raise ConfigurationError(
                "send_sync does not pass through async around_send middleware; use `await app.send(...)`"
            )
        if connection is not None:
            return self.transactional.send_sync(connection, outgoing)[0]
        return self._sender().send_threadsafe(outgoing)[0]

    async def send_signal(self, name: str, data: Any) -> str | None:
        """Give a signal to the run that waits for it with `ctx.step.wait_for_signal`. Returns when that is on disk.

        Args:
            name: The signal's name.
            data: What the waiting run receives; anything a step may return.

        Returns:
            The id of the run that was resumed, or None when nobody waits. A signal that nobody waits for is not kept.

        Raises:
            EventInvalidError: the name is empty or too long, or the data can't be written as JSON.
            NotRunningError: neither `app.running()` nor a server address.
            StoreError: the disk refused; nothing was resumed.
        """
        return await self._sender().send_signal(name, signal_json(name, data))

    async def _deliver(self, outgoing: list[Outgoing], connection: Any = None) -> list[Sent]:
        if not self._send_wrappers and connection is None:
            return await self._sender().send(outgoing)

        async def innermost(events: list[Outgoing]) -> list[Sent]:
            if connection is not None:
                return await self.transactional.send(connection, events)
            return await self._sender().send(events)

        call: Callable[[list[Outgoing]], Awaitable[list[Sent]]] = innermost
        for wrapper in reversed(self._send_wrappers):
            call = partial(_wrap_send, wrapper, call)
        return await call(outgoing)

    def outgoing(self, event: EventLike, event_id: str | None = None, ts: datetime | int | None = None) -> Outgoing:
        """An event validated and encoded, on its way to a sender. Errors as for `send`."""
        out = self._schemas.outgoing(event)
        if event_id is not None:
            out.id = checked_id(event_id, out.name)
        if ts is not None:
            out.ts = checked_ts(ts, out.name)
        return out

    # -- running -----------------------------------------------------------------------------------------------------

    def running(self, *, store: str | None = None, **settings: Any) -> AbstractAsyncContextManager[App]:
        """Run the app's functions in this process, for as long as the block lasts.

        ```python
        async with app.running(store="sqlite:///shop.db"):
            await app.send(...)
        ```

        Leaving the block stops taking work and lets what is running reach its next recorded point.

        Args:
            store: `sqlite:///path` or `sqlite://` for memory. Default: `HOLDFAST_STORE`, else `.holdfast/holdfast.db`.
            **settings: `serve="127.0.0.1:8288"` adds the event API and dashboard; see the configuration reference.
        """
        from holdfast.compose import embedded

        running: AbstractAsyncContextManager[App] = embedded(self, store=store, **settings)
        return running

    def relaying(self, *, databases: Sequence[Database | str] = ()) -> AbstractAsyncContextManager[App]:
        """Bring the events that were sent in transactions of the app's databases to the server it sends to, for as long as
        the block lasts. Only for a process that doesn't run the app itself: `running` includes it.

        Args:
            databases: Further databases, beside those of the app.
        """
        from holdfast.compose import relaying

        block: AbstractAsyncContextManager[App] = relaying(self, databases)
        return block

    async def start(
        self, function: Function[E, R], event: E | Mapping[str, Any], *, id: str | None = None
    ) -> RunHandle[R]:
        """Start one function and get a handle for its result. Durable like any other run.

        Args:
            function: A function of this app.
            event: Its event, or the data of one; for a function with a typed trigger, of that type.
            id: Your id: the same id within 24 hours gives the same run.

        Raises:
            EventInvalidError: the data does not fit the schema of the function's event.
            NotRunningError: the app only sends from here.
        """
        if isinstance(event, Event):
            outgoing = self.outgoing(event, id, None)
        else:
            outgoing = self._payload(function, event, id)
        run_id = await self._control().start(function.slug, outgoing)
        return RunHandle(self, run_id, function.result_type)

    def handle(self, run_id: str, function: Function[Any, R] | None = None) -> RunHandle[R]:
        """A handle on a run that is already there."""
        return RunHandle(self, run_id, Any if function is None else function.result_type)

    @property
    def runs(self) -> Runs:
        """The app's runs: `async for run in app.runs(status="FAILED")`, `app.runs.of_event(id)`, `app.runs.watch(run_id)`."""
        return Runs(self)

    def _payload(self, function: Function[Any, Any], data: Mapping[str, Any], event_id: str | None) -> Outgoing:
        trigger = next((t for t in function.triggers if t.event and not t.event.endswith("*")), None)
        if trigger is None or trigger.event is None:
            raw = encode_json(dict(data), f"payload of {function.id}")
            return Outgoing("inngest/function.invoked", raw, id=event_id)
        return self.outgoing({"name": trigger.event, "data": data}, event_id, None)

    @property
    def resources(self) -> Any:
        """What the app's lifespan yielded here, as in `ctx.resources`: for request handlers beside the functions.

        Raises:
            NotRunningError: the app isn't running in this process.
        """
        if not self._resources:
            raise NotRunningError(
                f"app {self.id!r} has no resources here: they are there within `async with app.running():`"
            )
        return self._resources[-1]

    def _share(self, resources: Any) -> None:
        """From now on these are its resources; the latest are handed out."""
        self._resources.append(resources)

    def _unshare(self, resources: Any) -> None:
        """These are closed, or about to be."""
        self._resources = [one for one in self._resources if one is not resources]

    def bind(self, sender: Sender) -> None:
        """Send through this from now on; the latest wins."""
        self._senders.append(sender)

    def unbind(self, sender: Sender) -> None:
        """Stop sending through this."""
        self._senders.remove(sender)

    def _sender(self) -> Sender:
        if self._senders:
            return self._senders[-1]
        from holdfast.compose import sender_from_environment

        sender: Sender | None = sender_from_environment()
        if sender is None:
            raise NotRunningError(
                f"app {self.id!r} is not running here: enter `async with app.running():`, "
                "or set INNGEST_DEV=1 (or INNGEST_BASE_URL) to send to a holdfast server"
            )
        self._senders.append(sender)
        return sender

    def _control(self) -> Control:
        sender = self._sender()
        if not hasattr(sender, "result"):
            raise NotRunningError(
                f"app {self.id!r} can only send from here; runs are read and started where it is running"
            )
        return cast("Control", sender)


async def _wrap_send(
    wrapper: Middleware, call: Callable[[list[Outgoing]], Awaitable[list[Sent]]], events: list[Outgoing]
) -> list[Sent]:
    return await wrapper.around_send(events, call)
