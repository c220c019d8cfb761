"""The functions this node executes, with everything about them that is worked out once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import msgspec
from pydantic import ValidationError

from holdfast.base.codec import ResultCodec, decode_json
from holdfast.base.errors import NonRetriableError
from holdfast.core.flow import Flow
from holdfast.core.flow_config import FlowReader
from holdfast.core.ingest import event_json
from holdfast.core.rows import EventRow
from holdfast.sdk.app import App
from holdfast.sdk.events import CronTick, Event, ReceivedEvent, decode_data, explain
from holdfast.sdk.functions import Function, return_type
from holdfast.sdk.middleware import Middleware, overrides


class Registered:
    """A function in force on this node."""

    __slots__ = ("app", "codec", "flow", "function", "id", "models", "resources", "step_wrappers", "version", "wrappers")

    def __init__(self, app: App, function: Function[Any, Any], function_id: int, version: int, resources: Any) -> None:
        self.app = app
        self.function = function
        self.id = function_id
        self.version = version
        self.resources = resources
        self.codec = ResultCodec.of(function.result_type)
        flow = FlowReader(function.options.extra, function_id, function.options.keys).read()
        self.flow: Flow | None = None if flow.empty else flow
        """Its flow control, if it has any."""
        self.models: dict[str, type[Event]] = {
            trigger.event or CronTick.__holdfast_event__: trigger.model
            for trigger in function.triggers
            if trigger.model is not None
        }
        middleware: tuple[Middleware, ...] = (*app.middleware, *function.options.middleware)
        self.wrappers = [m for m in middleware if overrides(m, "around_function")]
        self.step_wrappers = [m for m in middleware if overrides(m, "around_step")]

    @property
    def slug(self) -> str:
        return self.function.slug

    def received(self, event: EventRow) -> ReceivedEvent[Any]:
        """The event as the function gets it.

        Raises:
            NonRetriableError: the stored data no longer fits the model.
        """
        return ReceivedEvent(event.key or event.id, event.name, event.ts, self._data(event.name, event.data))

    def model_of(self, event: EventRow) -> Any:
        """The event's data as keys that are functions get it. Errors as for `received`."""
        return self._data(event.name, event.data)

    def _data(self, name: str, data: bytes) -> Any:
        model = self.models.get(name)
        candidates = (
            [model] if model is not None else list(self.models.values()) if name == "inngest/function.invoked" else []
        )
        failure: ValidationError | None = None
        for candidate in candidates:
            try:
                return decode_data(candidate, data)
            except ValidationError as error:
                failure = error
        if failure is not None:
            raise NonRetriableError(f"the stored event no longer fits its model: {explain(failure, name)}") from failure
        return decode_json(data)

    def received_json(self, body: bytes, model: type[Event] | None) -> ReceivedEvent[Any]:
        """A recorded event (of a wait) as the function gets it."""
        envelope = msgspec.json.decode(body, type=_Envelope)
        raw = bytes(envelope.data)
        if model is None:
            data: Any = decode_json(raw)
        else:
            try:
                data = decode_data(model, raw)
            except ValidationError as error:
                raise NonRetriableError(
                    f"the awaited event does not fit its model: {explain(error, envelope.name)}"
                ) from error
        return ReceivedEvent(envelope.id, envelope.name, envelope.ts, data)

    @staticmethod
    def event_json(row: EventRow | None) -> bytes | None:
        """The triggering event as expressions see it."""
        return None if row is None else event_json(row)


class _Envelope(msgspec.Struct):
    name: str
    id: str
    ts: int
    data: msgspec.Raw


class Callee:
    """What is known of a step's body."""

    __slots__ = ("codec", "is_async")

    def __init__(self, fn: Callable[..., Any]) -> None:
        inner = inspect.unwrap(fn) if not inspect.ismethod(fn) else fn
        target: Any = fn
        if not inspect.isroutine(fn) and not inspect.isclass(fn):
            # a partial, or an object with __call__
            target = getattr(fn, "func", getattr(type(fn), "__call__"))  # noqa: B004, B009 - the method itself is wanted
        self.is_async = inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(target)
        annotation = inner if inspect.isclass(inner) else return_type(target if inner is fn else inner)
        self.codec = ResultCodec.of(annotation)


class Callables:
    """Callees, kept for as long as their functions live."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[Any, Callee] = WeakKeyDictionary()

    def of(self, fn: Callable[..., Any]) -> Callee:
        """What is known of a body."""
        key = getattr(fn, "__func__", fn)
        try:
            known = self._known.get(key)
            if known is None:
                known = self._known[key] = Callee(fn)
        except TypeError:  # not weakly referable, or not hashable: worked out each time
            return Callee(fn)
        return known
