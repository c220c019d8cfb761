"""What a call already knows of a step, and what the function gets for it."""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast.base.codec import ResultCodec, decode_json
from holdfast.base.errors import InvokeTimeoutError, StepError, qualified_name
from holdfast.engine import failures
from holdfast.sdk.callables import Callables
from holdfast.sdk.calls import InvokeCall, RunCall, SignalCall, StepCall, WaitCall
from holdfast.sdk.receiving import read_awaited
from holdfast.sdk.signals import read_signal
from holdfast.wire.calls import Memo, bare_memo, wrapped_memo
from holdfast.wire.opcodes import StepFailure

_TIMED_OUT = "InngestInvokeTimeoutError"


class Tagged(msgspec.Struct, rename={"type": "$type", "value": "$value"}, forbid_unknown_fields=True):
    """A result whose JSON alone could not be read back: of a function without a return annotation."""

    type: str
    value: msgspec.Raw


def tagged(raw: bytes, tag: str | None) -> bytes:
    """A result as it is reported."""
    if tag is None and not raw.startswith(b'{"$'):
        return raw
    return msgspec.json.encode(Tagged(tag or "", msgspec.Raw(raw)))


def memo_of(call: StepCall[Any], raw: msgspec.Raw) -> Memo:
    """What a call says about this step."""
    return wrapped_memo(raw) if not isinstance(call, WaitCall) else bare_memo(raw)


def value_of(call: StepCall[Any], memo: Memo, callables: Callables) -> Any:
    """What the function gets for a finished step.

    Raises:
        StepError: the step failed.
    """
    if memo.error is not None:
        raise step_error(call.key, memo.error)
    data = b"null" if memo.data is None else bytes(memo.data)
    if isinstance(call, RunCall):
        return _untagged(callables.of(call.fn).codec, data)
    if isinstance(call, WaitCall):
        return None if data == b"null" else read_awaited(data, call.model)
    if isinstance(call, SignalCall):
        return read_signal(data, call.signal, call.annotation)
    if isinstance(call, InvokeCall):
        return ResultCodec.of(call.result).decode(data, None)
    return decode_json(data)


def _untagged(codec: ResultCodec, data: bytes) -> Any:
    if data.lstrip().startswith(b"{"):
        try:
            found = msgspec.json.decode(data, type=Tagged)
        except msgspec.ValidationError:  # an object of the user's
            return codec.decode(data, None)
        return codec.decode(bytes(found.value), found.type or None)
    return codec.decode(data, None)


def step_error(key: str, failure: StepFailure) -> StepError:
    """The error a function sees for a recorded failure: the same as in process."""
    data = failure.data
    own = isinstance(data, dict) and "chain" in data and data.keys() <= {"chain", "step"}
    body: dict[str, Any] = {
        "name": failure.name,
        "message": failure.message,
        "stack": failure.stack,
        "chain": failure.chain,
        **(data if own else {"data": data}),
    }
    if failure.name == _TIMED_OUT:
        body |= {"name": InvokeTimeoutError.__name__, "chain": list(map(qualified_name, (InvokeTimeoutError, StepError)))}
    return failures.step_error(key, msgspec.json.encode(body))
