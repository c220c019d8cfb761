"""What a function gets for a recorded step."""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic import ValidationError

from holdfast.base.codec import decode_json, misfit_reason
from holdfast.base.errors import NonRetriableError
from holdfast.core.rows import StepRow, StepState
from holdfast.engine import failures
from holdfast.engine.host import Run
from holdfast.sdk.steps import InvokeCall, RunCall, SignalCall, StepCall, WaitCall


def value_of(live: Run, call: StepCall[Any], row: StepRow) -> Any:
    """What the function gets for a recorded step."""
    if row.state == StepState.FAILED:
        raise failures.step_error(call.key, row.error or b"{}")
    data = row.data
    if type(call) is RunCall:
        return live.host.callables.of(call.fn).codec.decode(data or b"null", row.type)
    if type(call) is WaitCall:
        return None if data is None or data == b"null" else live.fn.received_json(data, call.model)
    if type(call) is SignalCall:
        return None if data is None or data == b"null" else _signal_data(live, call, data)
    if type(call) is InvokeCall:
        return live.host.codec(call.result).decode(data or b"null", row.type)
    return None if data is None else decode_json(data)


_UNCHECKED: dict[Any, Any] = {str: str, int: int, float: (int, float), bool: bool, dict: dict, list: list}
"""Types that the codec reads as they come."""


class _Signal(msgspec.Struct):
    data: msgspec.Raw


def _signal_data(live: Run, call: SignalCall[Any], memo: bytes) -> Any:
    raw = bytes(msgspec.json.decode(memo, type=_Signal).data)
    annotation = call.annotation
    try:
        value = live.host.codec(annotation).decode(raw, None)
        if annotation in _UNCHECKED and not isinstance(value, _UNCHECKED[annotation]):
            raise TypeError(f"it is a {type(value).__name__}")
        return value
    except (ValidationError, msgspec.ValidationError, ValueError, TypeError) as error:
        wanted = getattr(annotation, "__name__", str(annotation))
        raise NonRetriableError(
            f"the data of signal {call.signal!r} can't be read as {wanted}: {misfit_reason(error)}; "
            f"it was {raw[:200].decode(errors='replace')}"
        ) from error
