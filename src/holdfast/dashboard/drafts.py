"""Events as people type them into a form: checked like any other, with an error that names the line."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from pydantic import ValidationError

from holdfast.base.codec import decode_json, encode_json
from holdfast.base.errors import EventInvalidError
from holdfast.base.limits import MAX_EVENT_BYTES, event_name_problem
from holdfast.dashboard.samples import sample
from holdfast.sdk.app import App, nearest
from holdfast.sdk.events import Event, decode_data, explain
from holdfast.sdk.sender import Outgoing


def draft(apps: Mapping[str, App], name: str, data: str, event_id: str) -> Outgoing:
    """An event from the form's fields. Numbers keep all their digits.

    Raises:
        EventInvalidError: name or data can't be accepted; the message says where and why.
    """
    name = name.strip()
    if not name:
        raise EventInvalidError("the event needs a name, such as shop/order.paid")
    problem = event_name_problem(name, sent=True)
    if problem:
        raise EventInvalidError(problem)
    model = model_of(apps, name)
    if model is None:
        _refuse_near_miss(apps, name)
    raw = object_bytes(data, f"event '{name}'")
    if model is not None:
        check(model, name, raw)
    return Outgoing(name, raw, id=event_id.strip() or None)


def object_bytes(text: str, what: str) -> bytes:
    """The JSON object a text holds, without its white space.

    Raises:
        EventInvalidError: it is not JSON or not an object.
    """
    raw = text.strip().encode() or b"{}"
    if len(raw) > MAX_EVENT_BYTES:
        raise EventInvalidError(f"{what}: the data is {len(raw):,} bytes; an event may have {MAX_EVENT_BYTES:,}")
    try:
        value = decode_json(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise EventInvalidError(f"{what}: the data is not JSON: {_locate(text.strip(), str(error))}") from error
    if not isinstance(value, dict):
        raise EventInvalidError(f'{what}: the data must be an object like {{"order_id": "o1"}}, not {_kind(value)}')
    return msgspec.json.format(raw, indent=-1)


def json_value(text: str, what: str) -> Any:
    """The value that a JSON text holds. Numbers keep all their digits.

    Raises:
        EventInvalidError: it is not JSON; the message says where.
    """
    raw = text.strip()
    try:
        return decode_json(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise EventInvalidError(f"{what} is not JSON: {_locate(raw, str(error))}") from error


def check(model: type[Event], name: str, raw: bytes) -> None:
    """Refuse data that does not fit the event's schema.

    Raises:
        EventInvalidError: it names the fields.
    """
    try:
        decode_data(model, raw)
    except ValidationError as error:
        raise EventInvalidError(explain(error, name, model)) from error


def model_of(apps: Mapping[str, App], name: str) -> type[Event] | None:
    """The class by which an app of this process declares an event."""
    return next((app.events[name] for app in apps.values() if name in app.events), None)


def declared(apps: Mapping[str, App]) -> list[str]:
    """Names of all declared events that may be sent, sorted."""
    return sorted({name for app in apps.values() for name in app.events if event_name_problem(name, sent=True) is None})


def command(name: str, data: bytes) -> str:
    """The command that sends an event from a terminal."""
    return f"holdfast send {shlex.quote(name)} {shlex.quote(data.decode())}"


def example(apps: Mapping[str, App]) -> str:
    """A command to begin with: it sends an event that a function here listens to, where there is one."""
    listened = [
        (trigger.event, trigger.model)
        for app in apps.values()
        for function in app.functions.values()
        for trigger in function.triggers
        if trigger.event and "*" not in trigger.event and event_name_problem(trigger.event, sent=True) is None
    ]
    # typed events first: their example is one that will be accepted
    for name, model in sorted(listened, key=lambda pair: (pair[1] is None, len(pair[0]))):
        return command(name, b"{}" if model is None else encode_json(sample(model), name))
    return command("shop/order.paid", b'{"order_id":"o1"}')


def _refuse_near_miss(apps: Mapping[str, App], name: str) -> None:
    known: Iterable[str] = declared(apps)
    if apps and all(app.closed_schema for app in apps.values()):
        raise EventInvalidError(f"no app here declares an event '{name}'{nearest(name, known)}")


def _locate(text: str, problem: str) -> str:
    head, _, tail = problem.rpartition("(byte ")
    if "truncated" in problem:
        head, before = "it ends too early,", text
    elif tail.rstrip(")").isdecimal():
        before = text.encode()[: int(tail.rstrip(")"))].decode("utf-8", "ignore")
    else:
        return problem
    return f"{head.strip()} at line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}"


def _kind(value: object) -> str:
    return {list: "an array", str: "a string", bool: "true or false", type(None): "null"}.get(type(value), "a number")
