"""What travels between the processes: length-prefixed MessagePack, one frame for each call and each answer."""

from __future__ import annotations

import inspect
from enum import IntEnum
from typing import Any, Final

import msgspec

from holdfast.base import errors
from holdfast.base.errors import EventInvalidError, HoldfastError

PROTOCOL: Final = 1
"""Rises with every change; processes of different numbers don't talk to each other."""
MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
HEADER_BYTES: Final = 4
CANCEL: Final = "$cancel"
"""Instead of a method: nobody waits for the answer to the call of this id any more."""


class Hello(msgspec.Struct):
    """The first frame on every connection, from the owner."""

    protocol: int
    pid: int
    apps: list[str]
    server: bool
    """Whether it is a server process (`holdfast dev`, `holdfast start`), which comes back to its file when it restarts."""


class Call(msgspec.Struct, array_like=True):
    """Something asked of the owner."""

    id: int
    method: str
    args: msgspec.Raw


class Outcome(IntEnum):
    """How a call ended."""

    DONE = 0
    FAILED = 1
    GONE = 2
    """The owner is stopping and has done nothing: ask the next one."""


class Answer(msgspec.Struct, array_like=True):
    """What came of a call: its value, or a `Failure`."""

    id: int
    outcome: Outcome
    value: msgspec.Raw


class Failure(msgspec.Struct):
    """An error on its way to the process that asked."""

    name: str
    message: str
    fields: dict[str, Any] = {}


def frame(message: msgspec.Struct) -> bytes:
    """A message with its length before it.

    Raises:
        EventInvalidError: it is larger than a frame may be.
    """
    body = msgspec.msgpack.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise EventInvalidError(
            f"{len(body)} bytes at once are too much for the process that owns the store, {MAX_FRAME_BYTES} are allowed: "
            "send in smaller portions"
        )
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def raw(value: Any) -> msgspec.Raw:
    """A value, encoded to be put into a frame."""
    return msgspec.Raw(msgspec.msgpack.encode(value))


_KNOWN: dict[str, type[Exception]] = {
    name: found
    for name, found in vars(errors).items()
    if inspect.isclass(found) and issubclass(found, HoldfastError)
} | {"TimeoutError": TimeoutError}


def failure_of(error: Exception) -> Failure:
    """An error in words that the other process can make the same error of."""
    for kind in type(error).__mro__:
        if _KNOWN.get(kind.__name__) is kind:
            fields = {name: value for name, value in vars(error).items() if isinstance(value, _PLAIN)}
            return Failure(kind.__name__, str(error), fields)
    return Failure("HoldfastError", f"{type(error).__name__}: {error}")


def error_of(failure: Failure) -> Exception:
    """The error that a failure tells of, with the fields that it had."""
    kind = _KNOWN.get(failure.name, HoldfastError)
    error = kind.__new__(kind)
    Exception.__init__(error, failure.message)
    for name, value in failure.fields.items():
        setattr(error, name, tuple(value) if isinstance(value, list) else value)
    return error


_PLAIN = (str, int, float, bool, tuple, type(None))
