"""Event bodies: from bytes to validated events (protocol section 1.2). Pure, so that it can be fuzzed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, TypeAlias

import msgspec
from pydantic import ValidationError

from holdfast.base.errors import EventInvalidError
from holdfast.base.limits import (
    MAX_EVENT_BYTES,
    MAX_EVENT_TS,
    MAX_EVENTS_PER_REQUEST,
    MAX_JSON_DEPTH,
    MIN_EVENT_TS,
    event_name_problem,
)
from holdfast.sdk.events import Event, decode_data, explain
from holdfast.sdk.sender import Outgoing
from holdfast.server.seed import Seed

MAX_META_BYTES = 32 * 1024
MAX_ID_LENGTH = 512
MAX_SESSIONS = 5
MAX_SESSION_KEY_BYTES = 128
MAX_SESSION_ID_BYTES = 512

SchemaOf: TypeAlias = Callable[[str], type[Event] | None]
"""The class that an app in this process declares for an event name."""


class Wire(msgspec.Struct, gc=False):
    """An event as it comes in. Fields it doesn't name are ignored."""

    name: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"{}")
    id: str | None = None
    ts: int | None = None
    v: str | None = None
    user: msgspec.Raw = msgspec.Raw(b"{}")
    meta: dict[str, Any] | None = None


class Parsed(msgspec.Struct):
    """What a body had in it."""

    events: list[Outgoing]
    """The events before the first bad one."""
    error: str | None = None
    """What is wrong with that one, or with the body."""


_decode_wire = msgspec.json.Decoder(Wire).decode
_decode_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode = msgspec.json.Decoder().decode
_DEPTH = {ord("{"): 1, ord("["): 1, ord("}"): -1, ord("]"): -1}
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in _DEPTH)
_SPACE = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"


def parse_events(body: bytes, schema_of: SchemaOf, seed: Seed | None = None) -> Parsed:
    """The events of a body: one object, or an array of objects.

    Args:
        body: The request's body, uncompressed.
        schema_of: Finds the schema that an event's data must fit.
        seed: From the seed header, for ids that are the same when the client retries.
    """
    if body[:3] == _BOM:
        body = body[3:]
    start = _first_byte(body)
    if start == b"{":
        elements: Iterator[bytes | str] = iter((body,))
    elif start == b"[":
        elements = _elements(body)
    else:
        return Parsed([], _not_an_event(body, start))
    parsed = Parsed([])
    for index, element in enumerate(elements):
        try:
            parsed.events.append(_event(element, index, schema_of, seed))
        except EventInvalidError as error:
            parsed.error = str(error)
            break
    return parsed


def parse_payload(body: bytes, default_name: str, schema_of: SchemaOf) -> Outgoing:
    """The event of an invocation: an object whose name may be left out, or no body at all.

    Args:
        body: The request's body.
        default_name: The event's name when the body gives none.
        schema_of: Finds the schema that the data must fit.

    Raises:
        EventInvalidError: it is not acceptable.
    """
    body = body.strip(_SPACE) or b"{}"
    start = body[:1]
    if start != b"{":
        raise EventInvalidError(
            "Request body must contain an event object" if start == b"[" else _not_an_event(body, start)
        )
    return _event(body, 0, schema_of, None, default_name)


def _first_byte(body: bytes) -> bytes:
    start = body[:1]
    return start if start in {b"{", b"["} else body.lstrip(_SPACE)[:1]


def _not_an_event(body: bytes, start: bytes) -> str:
    if not start:
        return 'the request has no body; send an event as JSON: {"name": "app/thing.happened", "data": {...}}'
    try:
        _decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        return f"the body is not JSON: {_reason(error, body)}"
    return "Request body must contain an event object or an array of event objects"


# -- elements of an array --------------------------------------------------------------------------------------------


def _elements(body: bytes) -> Iterator[bytes | str]:
    """The elements of an array, each as bytes; a str is the error that ends it."""
    try:
        raws: Sequence[Any] = _decode_elements(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        yield from _elements_until_error(body, f"the body is not JSON: {_reason(error, body)}")
        return
    for index, raw in enumerate(raws):
        if index >= MAX_EVENTS_PER_REQUEST:
            yield f"Cannot have more than {MAX_EVENTS_PER_REQUEST} events in a batch"
            return
        yield bytes(raw)


def _elements_until_error(body: bytes, problem: str) -> Iterator[bytes | str]:
    """The whole elements before the place where an array stops being JSON."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        text = body[: error.start].decode()
    position = _skip_space(text, text.index("[") + 1)
    for index in range(MAX_EVENTS_PER_REQUEST):
        if index:
            if text[position : position + 1] != ",":
                break
            position = _skip_space(text, position + 1)
        try:
            _, end = _SCANNER.raw_decode(text, position)
        except (ValueError, RecursionError):
            break
        yield text[position:end].encode("utf-8", "surrogatepass")
        position = _skip_space(text, end)
    yield problem


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


_SCANNER = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=len, parse_float=len)
"""Finds where an element ends; its values are thrown away, so numbers are not converted."""


def _skip_space(text: str, position: int) -> int:
    while text[position : position + 1] in {" ", "\t", "\r", "\n"}:
        position += 1
    return position


# -- one event -------------------------------------------------------------------------------------------------------


def _event(
    element: bytes | str, index: int, schema_of: SchemaOf, seed: Seed | None, default_name: str = ""
) -> Outgoing:
    if isinstance(element, str):
        raise EventInvalidError(element)
    if len(element) > MAX_EVENT_BYTES:
        raise EventInvalidError(
            f"Event is over the max size of {MAX_EVENT_BYTES} bytes: it has {len(element)}; "
            "store large content elsewhere and send its address"
        )
    check_depth(element)
    wire = _wire(element)
    name = wire.name or default_name
    problem = event_name_problem(name, sent=bool(wire.name))
    if problem:
        raise EventInvalidError(problem)
    _check_ts(wire.ts)
    if wire.id is not None and len(wire.id) > MAX_ID_LENGTH:
        raise EventInvalidError(f"event {name!r}: its id is longer than {MAX_ID_LENGTH} characters")
    return Outgoing(
        name,
        _data(wire, name, schema_of(name)),
        id=wire.id or None,
        ts=wire.ts or None,
        user=_user(wire, name),
        v=wire.v,
        meta=None if not wire.meta else _meta(wire.meta, name),
        internal_id=None if seed is None else seed.id(index + 1),
    )


def check_depth(raw: bytes) -> None:
    """Refuse JSON that is nested too deep to be read safely. Exact, in one pass over the brackets outside strings.

    Raises:
        EventInvalidError: it is.
    """
    if raw.count(b"{") + raw.count(b"[") <= MAX_JSON_DEPTH:
        return
    if b'"' in raw:
        # what strings contain doesn't count; escaped quotes go first, so that the rest pair up
        raw = b"".join(raw.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    brackets = raw.translate(None, _NOT_BRACKETS)
    if max(accumulate(map(_DEPTH.__getitem__, brackets)), default=0) > MAX_JSON_DEPTH:
        raise EventInvalidError(f"the event is nested deeper than {MAX_JSON_DEPTH} levels; flatten its data")


def _wire(element: bytes) -> Wire:
    try:
        return _decode_wire(element)
    except msgspec.ValidationError as error:
        raise EventInvalidError(_misfit(element, error)) from error
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise EventInvalidError(f"the body is not JSON: {_reason(error, element)}") from error


def _misfit(element: bytes, error: msgspec.ValidationError) -> str:
    """The sentence for an envelope whose fields have the wrong types."""
    reason, at, path = str(error).partition(" - at `$.")
    if not at:
        return "Request body must contain an event object or an array of event objects"
    field = path.rstrip("`").split(".")[0].split("[")[0]
    if field == "ts":
        return "ts must be a whole number of milliseconds since 1970"
    wanted, got, *_ = [*re.findall(r"`(\w+)", reason), "", ""]
    kinds = {
        "str": "a string",
        "int": "a number",
        "float": "a number",
        "object": "an object",
        "array": "an array",
        "bool": "a boolean",
    }
    if wanted not in kinds or got not in kinds:
        return f"the event's {field} is not valid: {reason[:1].lower()}{reason[1:]}"
    return f"the event's {field} must be {kinds[wanted]}, not {kinds[got]}"


def _check_ts(ts: int | None) -> None:
    if ts:
        if ts < MIN_EVENT_TS:
            raise EventInvalidError(f"timestamp is before Jan 1, 1980: {ts}; ts is in milliseconds since 1970")
        if ts >= MAX_EVENT_TS:
            raise EventInvalidError(f"timestamp is after Jan 1, 2100: {ts}; ts is in milliseconds since 1970")


def _data(wire: Wire, name: str, model: type[Event] | None) -> bytes:
    """The event's data as it came, once it is known to be an object that fits its schema."""
    raw = bytes(wire.data)
    value = _object(raw, f"event {name!r}: data")
    if not value:
        raw = b"{}"
    elif "_inngest" in value:
        # set by SDKs of other engines for themselves; never a sender's to give (protocol section 1.2)
        raw = _without(value, "_inngest")
    if model is not None:
        try:
            decode_data(model, raw)
        except ValidationError as error:
            raise EventInvalidError(explain(error, name, model)) from error
    return raw


def _without(value: Mapping[str, Any], key: str) -> bytes:
    # the standard library writes integers of any size
    return json.dumps({k: v for k, v in value.items() if k != key}, ensure_ascii=False, separators=(",", ":")).encode()


def _user(wire: Wire, name: str) -> bytes | None:
    raw = bytes(wire.user)
    return raw if _object(raw, f"event {name!r}: user") else None


def _object(raw: bytes, what: str) -> dict[str, Any]:
    """A JSON object; null counts as an empty one. Reading it whole proves that it can be read later."""
    if raw == b"{}":
        return {}
    try:
        value = _decode(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise EventInvalidError(f"{what} is not JSON: {_reason(error, raw)}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise EventInvalidError(f"{what} must be an object, not {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "a boolean"
    return {list: "an array", str: "a string", int: "a number", float: "a number"}.get(type(value), "another type")


def _has_lone_surrogate(raw: bytes) -> bool:
    if not re.search(rb"\\u[dD][89a-fA-F]", raw):
        return False
    try:
        text: str = json.dumps(json.loads(raw), ensure_ascii=False)
    except (ValueError, RecursionError):
        return False
    return any("\ud800" <= char <= "\udfff" for char in text)


def _reason(error: Exception, raw: bytes) -> str:
    """Why bytes are not JSON, in words."""
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 text ({error.reason})"
    if isinstance(error, RecursionError):
        return f"it is nested deeper than {MAX_JSON_DEPTH} levels"
    text = str(error).removeprefix("JSON is malformed: ")
    if ("truncated" in text or "surrogate" in text) and _has_lone_surrogate(raw):
        return "a string in it has half of a surrogate pair"
    place = re.search(r"\(byte (\d+)\)", text)
    if place and raw[int(place[1]) :].lstrip(b"-").startswith((b"NaN", b"Infinity")):
        return f"NaN and Infinity have no JSON form {place[0]}; send null or a string"
    return text[:1].lower() + text[1:].partition(" - at ")[0]


# -- meta ------------------------------------------------------------------------------------------------------------


def _meta(meta: dict[str, Any], name: str) -> bytes | None:
    sessions = merge_sessions(meta.pop("propagated_sessions", None), meta.pop("sessions", None), name)
    if sessions:
        meta["sessions"] = sessions
    if not meta:
        return None
    raw = msgspec.json.encode(meta)
    if len(raw) > MAX_META_BYTES:
        raise EventInvalidError(f"event {name!r}: meta has {len(raw)} bytes; at most {MAX_META_BYTES} are kept")
    return raw


def merge_sessions(propagated: Any, manual: Any, name: str) -> dict[str, str]:
    """The session labels of an event: those its sender set win over those handed on; null takes one away.

    Raises:
        EventInvalidError: they are not text, too many or too long.
    """
    merged: dict[str, str] = {}
    for layer in (propagated, manual):
        if layer is None:
            continue
        if not isinstance(layer, dict):
            raise EventInvalidError(f"event {name!r}: meta.sessions must be an object, not {_kind(layer)}")
        for key, value in layer.items():
            if value is None:
                merged.pop(key, None)
            elif not isinstance(value, str):
                raise EventInvalidError(f"event {name!r}: session {key[:60]!r} must be a string, not {_kind(value)}")
            else:
                merged[key] = value
    if len(merged) > MAX_SESSIONS:
        raise EventInvalidError(f"event {name!r} has {len(merged)} sessions; at most {MAX_SESSIONS} are allowed")
    for key, value in merged.items():
        if len(key.encode()) > MAX_SESSION_KEY_BYTES:
            raise EventInvalidError(
                f"event {name!r}: session key {key[:60]!r}... is longer than {MAX_SESSION_KEY_BYTES} bytes"
            )
        if len(value.encode()) > MAX_SESSION_ID_BYTES:
            raise EventInvalidError(
                f"event {name!r}: the id of session {key!r} is longer than {MAX_SESSION_ID_BYTES} bytes"
            )
    return merged
