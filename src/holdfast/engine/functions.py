"""The functions this node executes, with everything about them that is worked out once."""

from __future__ import annotations

from typing import Any

from holdfast.base.codec import ResultCodec
from holdfast.core.flow import Flow
from holdfast.core.flow_config import FlowReader
from holdfast.core.ingest import event_json
from holdfast.core.rows import EventRow
from holdfast.sdk.app import App
from holdfast.sdk.events import Event, ReceivedEvent
from holdfast.sdk.functions import Function
from holdfast.sdk.middleware import Middleware, overrides
from holdfast.sdk.receiving import Receiver, read_awaited


class Registered:
    """A function in force on this node."""

    __slots__ = (
        "app",
        "codec",
        "flow",
        "function",
        "id",
        "receiver",
        "resources",
        "step_wrappers",
        "version",
        "wrappers",
    )

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
        self.receiver = Receiver(function)
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
        return self.receiver.read(event.key or event.id, event.name, event.ts, event.data)

    def model_of(self, event: EventRow) -> Any:
        """The event's data as keys that are functions get it. Errors as for `received`."""
        return self.receiver.read(event.key or event.id, event.name, event.ts, event.data).data

    @staticmethod
    def received_json(body: bytes, model: type[Event] | None) -> ReceivedEvent[Any]:
        """A recorded event (of a wait) as the function gets it."""
        return read_awaited(body, model)

    @staticmethod
    def event_json(row: EventRow | None) -> bytes | None:
        """The triggering event as expressions see it."""
        return None if row is None else event_json(row)
