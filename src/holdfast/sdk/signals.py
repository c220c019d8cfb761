"""Signals on their way in: their names, and their data as JSON."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec
from pydantic import ValidationError

from holdfast.base.codec import ResultCodec, misfit_reason
from holdfast.base.errors import EventInvalidError, NonRetriableError, NotSerializableError
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


_UNCHECKED: dict[Any, Any] = {str: str, int: int, float: (int, float), bool: bool, dict: dict, list: list}
"""Types that the codec reads as they come."""


class _Memo(msgspec.Struct):
    data: msgspec.Raw


def read_signal(memo: bytes, signal: str, annotation: Any) -> Any:
    """A signal as the function that waited for it gets it.

    Args:
        memo: JSON `{"signal": ..., "data": ...}`; null when the time ran out.
        signal: Its name.
        annotation: What its data is read as.

    Raises:
        NonRetriableError: the data can't be read so.
    """
    if memo == b"null":
        return None
    raw = bytes(msgspec.json.decode(memo, type=_Memo).data)
    try:
        value = ResultCodec.of(annotation).decode(raw, None)
        if annotation in _UNCHECKED and not isinstance(value, _UNCHECKED[annotation]):
            raise TypeError(f"it is a {type(value).__name__}")
        return value
    except (ValidationError, msgspec.ValidationError, ValueError, TypeError) as error:
        wanted = getattr(annotation, "__name__", str(annotation))
        raise NonRetriableError(
            f"the data of signal {signal!r} can't be read as {wanted}: {misfit_reason(error)}; "
            f"it was {raw[:200].decode(errors='replace')}"
        ) from error
