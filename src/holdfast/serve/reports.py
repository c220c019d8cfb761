"""Steps as opcodes: what a call reports that it has done, or wants done (protocol section 2.3)."""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast.base.clock import iso
from holdfast.base.duration import duration_text
from holdfast.base.errors import StepUsageError
from holdfast.base.ids import step_hash
from holdfast.base.limits import MAX_INVOKE_MS
from holdfast.base.retry import Backoff, RetryPolicy
from holdfast.core.expressions import field_equals
from holdfast.engine import failures
from holdfast.sdk.calls import (
    InvokeCall,
    NowCall,
    RunCall,
    SendCall,
    SendSignalCall,
    SignalCall,
    SleepCall,
    StepCall,
    WaitCall,
)
from holdfast.sdk.outgoing import payload
from holdfast.sdk.repeats import repeat_index
from holdfast.wire.opcodes import RACE, Op, Opcode, StepFailure, Userland

EXECUTABLE = (RunCall, SendCall, SendSignalCall, NowCall)
"""The calls whose bodies the app executes; of the others the server takes care."""

_PROTOCOLS_OWN = Backoff.table().describe()
_TYPES: dict[type[Any], str] = {SendCall: "step.sendEvent", SendSignalCall: "step.sendSignal"}
"""What servers show of a body that isn't the user's."""


def hash_of(call: StepCall[Any]) -> str:
    """A step's hash."""
    return step_hash(call.key)


def planned(call: StepCall[Any], *, race: bool) -> Opcode:
    """A step that is to be done: by the server, or by a call that targets it."""
    opts: dict[str, Any] = {}
    name: str | None = None
    op = Op.STEP_PLANNED
    if isinstance(call, SleepCall):
        name = duration_text(call.duration or 0) if call.until is None else iso(call.until)
        op, opts = Op.SLEEP, {"duration": name}
    elif isinstance(call, WaitCall):
        name = call.event
        op, opts = Op.WAIT_FOR_EVENT, _wait_options(call)
    elif isinstance(call, InvokeCall):
        op, opts = Op.INVOKE_FUNCTION, _invoke_options(call)
    elif isinstance(call, SignalCall):
        name = call.signal
        conflict = "replace" if call.replace else "fail"
        op, opts = Op.WAIT_FOR_SIGNAL, {"signal": name, "timeout": duration_text(call.timeout), "conflict": conflict}
    return _opcode(op, call, name=name, opts={**opts, **_common(call, race=race)})


def done(call: StepCall[Any], data: bytes, *, race: bool) -> Opcode:
    """A step whose body has returned."""
    opcode = _opcode(Op.STEP_RUN, call, opts=_common(call, race=race))
    opcode.data = msgspec.Raw(data)
    return opcode


def failed(call: StepCall[Any], error: BaseException, *, final: bool, race: bool) -> Opcode:
    """A step whose body has raised: to be tried again, or failed for good."""
    opcode = _opcode(Op.STEP_FAILED if final else Op.STEP_ERROR, call, opts=_common(call, race=race))
    opcode.error = failure_of(error)
    return opcode


def _common(call: StepCall[Any], *, race: bool) -> dict[str, Any]:
    """The options that any report of a step has."""
    kind = _TYPES.get(type(call))
    return {**({} if kind is None else {"type": kind}), **({"parallelMode": RACE} if race else {})}


def _opcode(op: Op, call: StepCall[Any], *, name: str | None = None, opts: dict[str, Any]) -> Opcode:
    return Opcode(
        op, hash_of(call), name or call.id, opts or None, display_name=call.id,
        userland=Userland(call.id, repeat_index(call) or None),
    )  # fmt: skip


def check(call: StepCall[Any]) -> None:
    """Refuse what the protocol has no words for.

    Raises:
        StepUsageError: naming the step and the remedy.
    """
    if isinstance(call, WaitCall) and call.since is not None:
        raise StepUsageError(
            f"step {call.key!r}: since={call.since!r} is not in the protocol, so a function that is called over HTTP can't use it; "
            "wait without it from the start, in parallel with the step that leads to the event"
        )
    if isinstance(call, InvokeCall) and call.cancel_with_parent:
        raise StepUsageError(
            f"step {call.key!r}: cancel_with_parent is not in the protocol, so a function that is called over HTTP can't use it"
        )


def _wait_options(call: WaitCall[Any]) -> dict[str, Any]:
    conditions = [field_equals("async.data", path, value) for path, value in call.where.items()]
    if call.expression is not None:
        conditions.append(f"({call.expression})" if conditions else call.expression)
    options = {"event": call.event, "timeout": duration_text(call.timeout)}
    return {**options, "if": " && ".join(conditions)} if conditions else options


def _invoke_options(call: InvokeCall[Any]) -> dict[str, Any]:
    options: dict[str, Any] = {
        "function_id": call.function,
        "payload": {"data": msgspec.json.decode(payload(call.payload))},
    }
    if call.timeout != MAX_INVOKE_MS:
        options["timeout"] = duration_text(call.timeout)
    return options


# -- errors ----------------------------------------------------------------------------------------------------------


def failure_of(error: BaseException) -> StepFailure:
    """An error as it is reported: bounded, with the class chain that `StepError.matches` compares."""
    record = msgspec.json.decode(failures.record(error))
    data = {name: record[name] for name in ("chain", "step") if name in record}
    return StepFailure(
        record["name"], record["message"], record["stack"], data=data, no_retry=failures.is_final(error)
    )


def again(error: BaseException, policy: RetryPolicy, attempt: int, now: int) -> tuple[bool, int | None]:
    """Whether an error is tried again, and after how many milliseconds: None for the protocol's own delays."""
    delay = failures.next_delay_ms(error, policy, attempt, now)
    own = failures.retry_after_ms(error, now) is None and policy.describe() == _PROTOCOLS_OWN
    return delay is not None, None if own else delay
