"""From what a user passes to `send` to a validated, encoded event on its way in."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from holdfast.base.clock import to_ms
from holdfast.base.codec import encode_json
from holdfast.base.errors import EventInvalidError, NotSerializableError, UnknownEventError
from holdfast.base.limits import (
    MAX_EVENT_BYTES,
    MAX_EVENT_TS,
    MAX_EVENTS_PER_REQUEST,
    MIN_EVENT_TS,
    event_name_problem,
)
from holdfast.sdk.events import Event, encode_data, event_name, explain
from holdfast.sdk.sender import Outgoing

_ENVELOPE = ("name", "data", "id", "ts", "v", "user")


class Schemas:
    """The event classes of an app, and whether it may send others."""

    __slots__ = ("app_id", "closed", "models")

    def __init__(self, app_id: str, models: dict[str, type[Event]], closed: bool) -> None:
        self.app_id = app_id
        self.models = models
        self.closed = closed

    def outgoing(self, event: Event | Mapping[str, Any]) -> Outgoing:
        """An event as it goes to a sender.

        Raises:
            EventInvalidError: it does not fit its schema, or is no event.
            UnknownEventError: the app declares its events and this is none of them.
        """
        if not isinstance(event, Event):
            return self._of_mapping(event)
        name = event.__holdfast_event__ or event_name(type(event))
        if name not in self.models:
            self._check_name(name)
        return Outgoing(name, encode_data(event))

    def _check_name(self, name: str) -> None:
        problem = event_name_problem(name, sent=True)
        if problem:
            raise EventInvalidError(problem)
        if self.closed:
            raise UnknownEventError(f"app {self.app_id!r} declares no event {name!r}{nearest(name, self.models)}")

    def _of_mapping(self, event: object) -> Outgoing:
        name = event.get("name") if isinstance(event, Mapping) else None
        if not isinstance(event, Mapping) or not isinstance(name, str):
            raise EventInvalidError(
                f"an event needs a name: {{'name': 'app/thing.happened', 'data': {{...}}}}, not {event!r:.120}"
            )
        model = self.models.get(name)
        if model is None:
            self._check_name(name)
        unknown = set(event) - set(_ENVELOPE)
        if unknown:
            field = min(unknown, key=str)
            raise EventInvalidError(
                f"event {name!r} has an unknown field {field!r}; what it carries belongs into 'data'"
            )
        data = {} if event.get("data") is None else event["data"]
        if not isinstance(data, Mapping):
            raise EventInvalidError(f"event {name!r}: data must be an object, not {type(data).__name__}")
        raw = _encode(data, name) if model is None else encode_mapping(model, data)
        user = event.get("user")
        return Outgoing(
            name, raw, id=checked_id(event.get("id"), name), ts=checked_ts(event.get("ts"), name), v=event.get("v"),
            user=_encode(user, f"{name}, user") if user else None,
        )  # fmt: skip


def encode_mapping(model: type[Event], data: Mapping[str, Any]) -> bytes:
    """Data as wire JSON, once it fits the model.

    Raises:
        EventInvalidError: it does not fit; the message names the fields.
    """
    try:
        return encode_data(model.model_validate(data, by_alias=True, by_name=True))
    except ValidationError as error:
        raise EventInvalidError(explain(error, event_name(model), model)) from error


def checked_id(event_id: object, name: str) -> str | None:
    """An event's id, if it can be one."""
    if event_id is None or (isinstance(event_id, str) and event_id):
        return event_id
    raise EventInvalidError(f"event {name!r}: an id is a non-empty string, not {event_id!r:.60}")


def checked_ts(ts: object, name: str) -> int | None:
    """An event's time in milliseconds since 1970, if it is one; None stays None."""
    if ts is None:
        return None
    if isinstance(ts, datetime):
        ts = to_ms(ts)
    if isinstance(ts, bool) or not isinstance(ts, int):
        raise EventInvalidError(f"event {name!r}: ts is a datetime or milliseconds since 1970, not {ts!r:.60}")
    if not MIN_EVENT_TS <= ts < MAX_EVENT_TS:
        raise EventInvalidError(
            f"event {name!r}: ts {ts} is not between 1980 and 2100; it is milliseconds since 1970, not seconds"
        )
    return ts


def check_bounds(events: Sequence[Outgoing]) -> None:
    """Refuse events that are too many or too large.

    Raises:
        EventInvalidError: they are.
    """
    check_count(len(events))
    for event in events:
        check_size(event)


def check_count(count: int) -> None:
    """Refuse more events at once than may be sent."""
    if count > MAX_EVENTS_PER_REQUEST:
        raise EventInvalidError(f"Cannot have more than {MAX_EVENTS_PER_REQUEST} events in a batch")


def check_size(event: Outgoing) -> None:
    """Refuse an event that is too large."""
    if len(event.data) > MAX_EVENT_BYTES:
        raise EventInvalidError(
            f"Event is over the max size: {event.name} has {len(event.data)} bytes, {MAX_EVENT_BYTES} are allowed"
        )


def _encode(value: Any, name: str) -> bytes:
    try:
        return encode_json(dict(value) if isinstance(value, Mapping) else value, f"event {name!r}")
    except NotSerializableError as error:
        raise EventInvalidError(str(error)) from error


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing when no known name is near."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def payload(event: Event | Mapping[str, Any]) -> bytes:
    """The data of an invocation as wire JSON: a typed event's, or a plain object's."""
    return encode_data(event) if isinstance(event, Event) else encode_json(dict(event), "payload")
