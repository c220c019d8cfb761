"""From stored or sent JSON to what a function receives: the same whatever drives it."""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic import ValidationError

from holdfast.base.codec import decode_json
from holdfast.base.errors import NonRetriableError
from holdfast.sdk.events import CronTick, Event, ReceivedEvent, decode_data, explain
from holdfast.sdk.functions import Function


class Receiver:
    """Reads the events of one function, each as the model of the trigger that it came by."""

    __slots__ = ("models",)

    def __init__(self, function: Function[Any, Any]) -> None:
        self.models: dict[str, type[Event]] = {
            trigger.event or CronTick.__holdfast_event__: trigger.model
            for trigger in function.triggers
            if trigger.model is not None
        }

    def read(self, id: bytes | str, name: str, ts: int, data: bytes) -> ReceivedEvent[Any]:
        """The event as the function gets it.

        Raises:
            NonRetriableError: the data no longer fits the model.
        """
        return ReceivedEvent(id, name, ts, self._data(name, data))

    def _data(self, name: str, data: bytes) -> Any:
        model = self.models.get(name)
        candidates = (
            [model] if model is not None else list(self.models.values()) if name == "inngest/function.invoked" else []
        )
        failure: tuple[ValidationError, type[Event]] | None = None
        for candidate in candidates:
            try:
                return decode_data(candidate, data)
            except ValidationError as error:
                failure = error, candidate
        if failure is not None:
            # its cause would be in the record, with the values that do not fit
            raise NonRetriableError(
                f"the stored event no longer fits its model: {explain(failure[0], name, failure[1])}"
            ) from None
        decoded = decode_json(data)
        if name == "inngest/function.invoked" and isinstance(decoded, dict):
            decoded.pop("_inngest", None)  # about the invocation, not part of what was passed
        return decoded


def read_awaited(body: bytes, model: type[Event] | None) -> ReceivedEvent[Any]:
    """A recorded event (of a wait) as the function gets it.

    Raises:
        NonRetriableError: its data does not fit the model.
    """
    envelope = msgspec.json.decode(body, type=_Envelope)
    raw = bytes(envelope.data)
    if model is None:
        data: Any = decode_json(raw)
    else:
        try:
            data = decode_data(model, raw)
        except ValidationError as error:
            raise NonRetriableError(
                f"the awaited event does not fit its model: {explain(error, envelope.name, model)}"
            ) from None
    return ReceivedEvent(envelope.id, envelope.name, envelope.ts, data)


class _Envelope(msgspec.Struct):
    name: str
    id: str = ""
    ts: int = 0
    data: msgspec.Raw = msgspec.Raw(b"{}")
