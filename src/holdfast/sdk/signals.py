"""Signals on their way in: their names, and their data as JSON."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from holdfast.base.codec import ResultCodec
from holdfast.base.errors import EventInvalidError, NotSerializableError
from holdfast.base.limits import MAX_EVENT_BYTES, MAX_NAME_LENGTH

OnConflict: TypeAlias = Literal["fail", "replace"]
"""What a wait for a signal does when another run waits for it: fail, or take its place."""


def signal_problem(name: object) -> str | None:
    """Why this can't be a signal's name, or None if it can."""
    if not isinstance(name, str) or not name:
        return f"a signal's name must be a non-empty text, not {name!r:.60}"
    if len(name) > MAX_NAME_LENGTH:
        return f"a signal's name may have {MAX_NAME_LENGTH} characters, {name[:30]!r}... has {len(name)}"
    return None


def signal_json(name: str, data: Any) -> bytes:
    """A signal's data, checked with its name.

    Raises:
        EventInvalidError: the name or the data can't be sent.
    """
    problem = signal_problem(name)
    if problem:
        raise EventInvalidError(problem)
    try:
        raw, _ = ResultCodec.of(Any if data is None else type(data)).encode(data, f"data of signal {name!r}")
    except NotSerializableError as error:
        raise EventInvalidError(str(error)) from error
    if len(raw) > MAX_EVENT_BYTES:
        raise EventInvalidError(
            f"the data of signal {name!r} has {len(raw)} bytes, {MAX_EVENT_BYTES} are allowed", status=413
        )
    return raw
