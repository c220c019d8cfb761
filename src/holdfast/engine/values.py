"""What a function gets for a recorded step."""

from __future__ import annotations

from typing import Any

from holdfast.base.codec import decode_json
from holdfast.core.rows import StepRow, StepState
from holdfast.engine import failures
from holdfast.engine.host import Run
from holdfast.sdk.signals import read_signal
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
        return None if data is None else read_signal(data, call.signal, call.annotation)
    if type(call) is InvokeCall:
        return live.host.codec(call.result).decode(data or b"null", row.type)
    return None if data is None else decode_json(data)
