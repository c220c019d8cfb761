"""What an SDK reports while a call goes on (protocol section 1.6)."""

from __future__ import annotations

import msgspec

from holdfast.wire.canonical import decode
from holdfast.wire.errors import WireError
from holdfast.wire.opcodes import Op, Opcode, decode_opcodes

RECORDED = frozenset({Op.STEP, Op.STEP_RUN, Op.STEP_FAILED})
"""What may be reported so: steps that are done with."""


class _Document(msgspec.Struct):
    steps: msgspec.Raw
    qi_id: str
    generation_id: int | str | None = None


class CheckpointRequest(msgspec.Struct):
    """Steps that a call has executed."""

    job: str
    """The queue item of the call, as the call named it."""
    generation: int | None
    """The lease of the item that the call was made with, where the SDK says it."""
    steps: list[Opcode]


def decode_checkpoint(body: bytes) -> CheckpointRequest:
    """The body of a checkpoint.

    Raises:
        WireError: it can't be understood, or reports what is no step that is done with.
    """
    document: _Document = decode(body, _Document)
    steps = decode_opcodes(bytes(document.steps))
    for step in steps:
        if step.op not in RECORDED:
            raise WireError(f"{step.op} can't be checkpointed; report it with the answer to the call")
    try:
        generation = None if document.generation_id is None else int(document.generation_id)
    except ValueError:
        raise WireError(f"generation_id is a number, not {document.generation_id!r:.40}") from None
    return CheckpointRequest(document.qi_id, generation, steps)
