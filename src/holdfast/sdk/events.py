"""Typed events: what users send, and what functions receive."""

from __future__ import annotations

from datetime import datetime
from difflib import get_close_matches
from enum import Enum
from types import UnionType
from typing import Any, ClassVar, Generic, TypeVar, Union, get_args, get_origin

from msgspec import DecodeError
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticSerializationError, PydanticUndefined, to_jsonable_python

from holdfast.base.clock import to_datetime
from holdfast.base.codec import decode_json, encode_json
from holdfast.base.errors import ConfigurationError, EventInvalidError, NotSerializableError
from holdfast.base.ids import ulid_text
from holdfast.base.limits import event_name_problem
from holdfast.base.masks import MASKED, Masks
from holdfast.sdk.sensitive import sensitive_paths

D = TypeVar("D")
E = TypeVar("E", bound="Event")


class Event(BaseModel):
    """A typed event. Subclass it with the event's wire name and declare its data as pydantic fields.

    ```python
    class OrderPaid(Event, name="shop/order.paid"):
        order_id: str
    ```

    Fields with an alias (`alias_generator=to_camel`, or `Field(alias=...)`) are written and read under the alias on the
    wire and under their own name in Python. The envelope's `id`, `name`, `ts` and `data` are not attributes of the
    class, so that fields may have these names.

    Raises:
        ConfigurationError: the class has no `name=`, or the name is reserved or too long.
    """

    model_config = ConfigDict(
        populate_by_name=True, extra="forbid", ser_json_inf_nan="constants", protected_namespaces=()
    )

    __holdfast_event__: ClassVar[str] = ""

    def __init_subclass__(cls, *, name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name:
            problem = event_name_problem(name)
            if problem:
                raise ConfigurationError(f"class {cls.__qualname__}: {problem}")
            cls.__holdfast_event__ = name


class CronTick(Event, name="inngest/scheduled.timer"):
    """What a function triggered by a cron schedule receives (protocol section 4)."""

    model_config = ConfigDict(extra="ignore")

    cron: str = ""
    """The schedule that fired, as configured."""
    scheduledAt: str = ""  # noqa: N815 - the protocol's spelling
    """When the occurrence was due, RFC 3339."""
    fireAt: str = ""  # noqa: N815
    """When it was fired, RFC 3339: later than due after downtime or by jitter."""


class FunctionFailed(Event, name="inngest/function.failed"):
    """What `on_failure` handlers receive (protocol section 4)."""

    model_config = ConfigDict(extra="ignore")

    function_id: str
    """`<app>-<function id>` of the function that failed."""
    run_id: str
    app_id: str = ""
    error: dict[str, Any] = {}
    """`name`, `message` and `stack`: of a step that failed for good, its own error, and `step` says which it was."""
    event: dict[str, Any] = {}
    events: list[dict[str, Any]] = []
    correlation_id: str | None = None
    """`<run id>.<step>` of the step that invoked the run, if one did."""


class FunctionFinished(Event, name="inngest/function.finished"):
    """A run has ended: completed, failed or cancelled (protocol section 4). Stored where something listens to it."""

    model_config = ConfigDict(extra="ignore")

    function_id: str
    """`<app>-<function id>` of the function that finished."""
    run_id: str
    app_id: str = ""
    result: Any = None
    """What it returned."""
    error: dict[str, Any] | None = None
    """`name`, `message` and `stack` if it failed, and `step` if that was by a step."""
    event: dict[str, Any] = {}
    events: list[dict[str, Any]] = []
    correlation_id: str | None = None
    """`<run id>.<step>` of the step that invoked the run, if one did."""


class FunctionCancelled(Event, name="inngest/function.cancelled"):
    """A run was cancelled (protocol section 4)."""

    model_config = ConfigDict(extra="ignore")

    function_id: str
    """`<app>-<function id>` of the function whose run it was."""
    run_id: str
    app_id: str = ""
    event: dict[str, Any] = {}
    events: list[dict[str, Any]] = []
    correlation_id: str | None = None
    """`<run id>.<step>` of the step that invoked the run, if one did."""


class ReceivedEvent(Generic[D]):
    """An event as a function or a wait receives it: its envelope, and its data as the typed model."""

    __slots__ = ("_id", "data", "name", "ts")

    def __init__(self, id: str | bytes, name: str, ts: int, data: D) -> None:
        self._id = id
        self.name = name
        self.ts = ts
        """Milliseconds since 1970, UTC."""
        self.data = data

    @property
    def id(self) -> str:
        """The id the sender gave it, else the one assigned when it was accepted."""
        if isinstance(self._id, bytes):
            self._id = ulid_text(self._id)
        return self._id

    @property
    def time(self) -> datetime:
        """`ts` as an aware datetime."""
        return to_datetime(self.ts)

    def __repr__(self) -> str:
        return f"ReceivedEvent(id={self.id!r}, name={self.name!r}, ts={self.ts}, data={self.data!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ReceivedEvent) and (self.id, self.name, self.ts, self.data) == (
            other.id,
            other.name,
            other.ts,
            other.data,
        )

    __hash__ = None  # type: ignore[assignment]


def event_name(model: type[Event]) -> str:
    """The wire name of an event class.

    Raises:
        ConfigurationError: the class was declared without `name=`.
    """
    name = model.__holdfast_event__
    if not name:
        raise ConfigurationError(
            f"class {model.__qualname__} has no event name; "
            f"declare it as `class {model.__name__}(Event, name='app/thing.happened')`"
        )
    return name


def encode_data(event: Event) -> bytes:
    """The event's data as wire JSON, under the wire names.

    Raises:
        EventInvalidError: a field was changed into something that does not fit, or is NaN.
    """
    try:
        raw = event.__pydantic_serializer__.to_json(event, by_alias=True, warnings="error")
    except PydanticSerializationError as error:
        raw = _encode_changed(event, error)
    if b"NaN" in raw or b"Infinity" in raw:
        _refuse_nan(event, raw)
    return raw


def _encode_changed(event: Event, cause: Exception) -> bytes:
    """An event whose fields were assigned after it was made has to fit its schema again."""
    name = event_name(type(event))
    try:
        fitting = type(event).model_validate(event.model_dump(warnings="none"), by_name=True)
        return fitting.__pydantic_serializer__.to_json(fitting, by_alias=True, warnings="error")
    except ValidationError as error:
        raise EventInvalidError(explain(error, name, type(event))) from error
    except PydanticSerializationError as error:
        raise EventInvalidError(f"event {name!r} can't be written as JSON: {error}") from cause


def _refuse_nan(event: Event, raw: bytes) -> None:
    """Text may well contain these words; numbers may not."""
    try:
        decode_json(raw)
    except DecodeError as error:
        name = event_name(type(event))
        try:
            encode_json(event.model_dump(by_alias=True), f"event {name!r}")
        except NotSerializableError as found:
            raise EventInvalidError(str(found)) from found
        raise EventInvalidError(f"event {name!r} can't be written as JSON: {error}") from error


def decode_data(model: type[E], data: bytes) -> E:
    """The typed model of wire JSON; unknown fields are ignored, so that a sender may be newer than the receiver.

    Raises:
        pydantic.ValidationError: the data does not fit the model.
    """
    event: E = model.__pydantic_validator__.validate_json(data, by_alias=True, by_name=True, extra="ignore")
    return event


def explain(error: ValidationError, name: str, model: type[Event]) -> str:
    """One sentence per field that does not fit, naming the field; what marked ones were is not told."""
    parts = []
    masks = Masks(sensitive_paths(model))
    marked = {path.rpartition(".")[2] for path in masks.paths}
    for item in error.errors(include_url=False, include_context=False):
        where = ".".join(str(part) for part in item["loc"]) or "data"
        given = item.get("input", PydanticUndefined)
        around = tuple(part for part in item["loc"] if isinstance(part, str))
        got = "" if item["type"] in {"missing", "json_invalid"} else f" (got {_short(masks.value(given, around))})"
        if not marked.isdisjoint(map(str, item["loc"])):
            got = f" (got {MASKED})" if got else ""
        parts.append(f"{where}: {item['msg'][:1].lower()}{item['msg'][1:]}{got}")
    return f"event {name!r} does not fit its schema: " + "; ".join(parts)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def wire_path(model: type[Event], path: str) -> str:
    """The wire spelling of a dotted path of Python field names.

    Raises:
        ConfigurationError: the model has no such field.
    """
    return ".".join(_wire_names(model, path.split("."), event_name(model)))


def _wire_names(model: type[BaseModel], names: list[str], event: str) -> list[str]:
    head, rest = names[0], names[1:]
    for field_name, field in model.model_fields.items():
        wire = field.serialization_alias or field.alias or field_name
        if head in {field_name, field.alias, wire}:
            inner = _model_of(field.annotation) if rest else None
            return [wire, *(rest if inner is None else _wire_names(inner, rest, event))]
    if model.model_config.get("extra") == "allow":
        return names
    known = ", ".join(sorted(model.model_fields)) or "none"
    inside = "" if issubclass(model, Event) else f" in {model.__name__}"
    close = get_close_matches(head, list(model.model_fields), n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    raise ConfigurationError(f"event {event!r} has no field {head!r}{inside}{hint} its fields are: {known}")


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model of a field that holds one, optional or not."""
    union = get_origin(annotation) in {Union, UnionType}
    members = [member for member in get_args(annotation) if member is not type(None)] if union else [annotation]
    if len(members) == 1 and isinstance(members[0], type) and issubclass(members[0], BaseModel):
        return members[0]
    return None


def wire_scalar(value: Any) -> str | int | float | bool | None:
    """A value to compare a field with, as JSON has it: enums by value, UUIDs, dates and decimals as their text.

    Raises:
        TypeError: it is none of these.
    """
    if value is None or (isinstance(value, str | int | float | bool) and not isinstance(value, Enum)):
        return value
    plain = to_jsonable_python(value)
    if plain is None or isinstance(plain, str | int | float | bool):
        return plain
    raise TypeError(f"must be a string, number, bool or None, not {type(value).__name__}")
