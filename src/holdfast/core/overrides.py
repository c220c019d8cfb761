"""The edited input of a step, kept in its record until the step is done. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.core.rows import StepKind, StepRow, StepState

_BEGIN: Final = b'{"input":'


def override(run_id: bytes, step: StepRow, given: bytes, now: int) -> StepRow:
    """The record of a step that is still to be done, with the input it is to get (protocol section 2.1)."""
    data = _BEGIN + given + b"}"
    return StepRow(run_id, step.key, 0, StepState.PENDING, StepKind.RUN, now, None, 0, None, data, name=step.name)


def input_of(step: StepRow) -> bytes | None:
    """The JSON of the input that a step gets, or got when it failed, instead of what the function gives it."""
    data = step.data
    if data is None or step.state == StepState.DONE or step.kind != StepKind.RUN or not data.startswith(_BEGIN):
        return None
    return data[len(_BEGIN) : -1]


def carried(step: StepRow, before: StepRow | None) -> StepRow:
    """A new state of a step, which keeps the input that was edited for it until it is done."""
    if before is None or step.state == StepState.DONE or input_of(before) is None:
        return step
    return msgspec.structs.replace(step, data=before.data)
