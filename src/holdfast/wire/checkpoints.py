"""Checkpoints: steps that an SDK reports while a function goes on (protocol section 1.6)."""

from __future__ import annotations

import msgspec

from holdfast.wire.canonical import decode
from holdfast.wire.errors import WireError
from holdfast.wire.opcodes import Opcode, decode_opcodes

STALE = 409
"""The status that says: the run has been dispatched anew since, so the call has to stop."""


class AsyncCheckpoint(msgspec.Struct):
    """The body of `POST /v1/checkpoint/{run}/async`."""

    run_id: str
    steps: list[Opcode]
    fn_id: str = ""
    qi_id: str = ""
    """The queue item of the call, as the call said."""
    request_id: str | None = None
    generation_id: int = 0
    request_started_at: int = 0
    ts: int = 0


class _Loose(msgspec.Struct):
    run_id: str
    steps: msgspec.Raw = msgspec.Raw(b"[]")
    fn_id: str | None = None
    qi_id: str | None = None
    request_id: str | None = None
    generation_id: int | str | None = None
    request_started_at: int | None = None
    ts: int | None = None


def checkpoint_path(run_id: str) -> str:
    """Where a run's steps are reported."""
    return f"/v1/checkpoint/{run_id}/async"


def encode_checkpoint(checkpoint: AsyncCheckpoint) -> bytes:
    """Write a report."""
    return msgspec.json.encode(checkpoint)


def decode_checkpoint(body: bytes) -> AsyncCheckpoint:
    """Read a report.

    Raises:
        WireError: it is not one, or has an opcode that can't be reported so.
    """
    loose: _Loose = decode(body, _Loose)
    steps = decode_opcodes(bytes(loose.steps))
    for step in steps:
        if not step.op.checkpointable:
            raise WireError(f"{step.op} {step.title!r} can't be reported in a checkpoint")
    generation = str(loose.generation_id or 0)
    return AsyncCheckpoint(
        loose.run_id, steps, loose.fn_id or "", loose.qi_id or "", loose.request_id,
        int(generation) if generation.isdecimal() else 0, loose.request_started_at or 0, loose.ts or 0,
    )  # fmt: skip
