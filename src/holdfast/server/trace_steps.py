"""What a trace says of a step by its kind: its operation, and what it waited for (protocol section 6). Pure."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from holdfast.base.ids import derived_id, ulid_bytes, ulid_text
from holdfast.core.expressions import field_equals
from holdfast.store.reads import RunDetail, RunView, StepView

_OPERATIONS = {
    "sleep": "SLEEP",
    "wait_event": "WAIT_FOR_EVENT",
    "wait_signal": "WAIT_FOR_SIGNAL",
    "invoke": "INVOKE",
    "ai": "AI_GATEWAY",
}
_TYPES = {
    "send": "step.sendEvent",
    "send_signal": "step.sendSignal",
    "fetch": "step.fetch",
    "ai": "step.ai.infer",
    "race": "step.race",
    "now": "step.now",
}
_TIMED_OUT = frozenset({"InngestInvokeTimeoutError", "InvokeTimeoutError"})
_FINISHED = "inngest/function.finished"


class InvokeStepInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Of an invoked function."""

    triggering_event_id: str
    function_id: str
    timeout: int | None
    return_event_id: str | None = None
    run_id: str | None
    timed_out: bool | None


class SleepStepInfo(msgspec.Struct, frozen=True):
    """Of a sleep."""

    sleep_until: int | None


class WaitForEventStepInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Of a wait for an event."""

    event_name: str
    expression: str | None
    timeout: int | None
    found_event_id: str | None = None
    timed_out: bool | None


class WaitForSignalStepInfo(msgspec.Struct, frozen=True):
    """Of a wait for a signal."""

    signal: str
    timeout: int | None
    timed_out: bool | None


class RunStepInfo(msgspec.Struct, frozen=True):
    """Of a step that is executed."""

    type: str | None


StepInfo: TypeAlias = InvokeStepInfo | SleepStepInfo | WaitForEventStepInfo | WaitForSignalStepInfo | RunStepInfo


def step_operation(step: StepView) -> str:
    """The protocol's name of what kind of step it is."""
    return _OPERATIONS.get(step.kind, "RUN")


def step_type(step: StepView) -> str | None:
    """Which of the steps that are executed it is; None for the plain one."""
    return _TYPES.get(step.kind)


def step_info(detail: RunDetail, step: StepView) -> StepInfo:
    """What is known of a step by its kind."""
    asked = _object(step.asked)
    if step.kind == "sleep":
        until = asked.get("until")
        return SleepStepInfo(until if isinstance(until, int) else step.due or step.ended_at)
    if step.kind == "wait_event":
        return _wait_info(step, asked)
    if step.kind == "wait_signal":
        timed_out = None if step.state == "pending" else step.data in {None, b"null"}
        return WaitForSignalStepInfo(str(asked.get("signal") or ""), asked.get("timeout_at"), timed_out)
    if step.kind == "invoke":
        return _invoke_info(detail, step, asked)
    return RunStepInfo(step_type(step))


def _wait_info(step: StepView, asked: dict[str, Any]) -> WaitForEventStepInfo:
    found = None if step.state == "pending" else _object(step.data)
    return WaitForEventStepInfo(
        event_name=str(asked.get("event") or (found or {}).get("name") or ""),
        expression=_expression(asked),
        timeout=asked.get("timeout_at"),
        found_event_id=found.get("id") if found else None,
        timed_out=None if found is None else not found,
    )


def _expression(asked: dict[str, Any]) -> str | None:
    given = asked.get("if")
    where = asked.get("where")
    parts = [field_equals("async.data", path, value) for path, value in where.items()] if isinstance(where, dict) else []
    if given:
        parts.append(f"({given})" if parts else str(given))
    return " && ".join(parts) or None


def _invoke_info(detail: RunDetail, step: StepView, asked: dict[str, Any]) -> InvokeStepInfo:
    child = _child(detail, step, asked)
    timed_out = None if step.state == "pending" else str((step.error or {}).get("name")) in _TIMED_OUT
    returned = child if child is not None and child.ended_at is not None and step.state != "pending" else None
    return InvokeStepInfo(
        triggering_event_id="" if child is None else child.event_id,
        function_id=str(asked.get("function") or ("" if child is None else child.function)),
        timeout=asked.get("timeout_at"),
        return_event_id=None if timed_out or returned is None else _finished_id(returned),
        run_id=None if timed_out else asked.get("run_id") if child is None else child.id,
        timed_out=timed_out,
    )


def _child(detail: RunDetail, step: StepView, asked: dict[str, Any]) -> RunView | None:
    """The run that a step invoked: its id is derived from the step, unless it belongs to a batch or a debounce."""
    derived = derived_id(0, ulid_bytes(detail.run.id), step.key)[6:]
    for child in detail.children:
        if child.origin == "invoke" and (ulid_bytes(child.id)[6:] == derived or child.id == asked.get("run_id")):
            return child
    return None


def _finished_id(child: RunView) -> str:
    """The id of the event that tells of its end, whether or not that event is stored: it is where something listens."""
    return ulid_text(derived_id(child.ended_at or 0, ulid_bytes(child.id), _FINISHED))


def _object(raw: bytes | None) -> dict[str, Any]:
    value = msgspec.json.decode(raw) if raw else None
    return value if isinstance(value, dict) else {}
