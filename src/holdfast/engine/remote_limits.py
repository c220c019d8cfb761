"""What a run may not do that is executed by calling its application: have too many steps, too much state (protocol section 2.6), or
go round in circles.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.core.rows import StepRow
from holdfast.engine.host import Host
from holdfast.engine.operations import RunFailure
from holdfast.engine.remote_run import RemoteRun
from holdfast.wire.errors import WireError
from holdfast.wire.opcodes import EXECUTED, Opcode


def check_limits(host: Host, function_id: int, steps: Sequence[StepRow], opcodes: Sequence[Opcode]) -> None:
    """Whether a run may have these opcodes beside the steps that it has.

    Raises:
        RunFailure: it may not, and fails with that.
    """
    new = {one.id for one in opcodes if one.id} - {step.key for step in steps}
    limit = host.step_limit(function_id)
    if len(steps) + len(new) > limit:
        message = f"The function run exceeded the step limit of {limit} steps."
        raise _overflow("InngestErrFunctionOverflowed", "function has too many steps", message)
    allowed = host.state_limit(function_id)
    size = sum(len(step.data or b"") for step in steps) + sum(len(bytes(one.data)) for one in opcodes)
    if size > allowed:
        message = f"The function run exceeded the state size limit of {allowed} bytes."
        raise _overflow("InngestErrStateOverflowed", f"InngestErrStateOverflowed: {message}", message)


def check_progress(remote: RemoteRun, opcodes: Sequence[Opcode]) -> None:
    """Whether an answer moves its run forward: one that doesn't would be asked for again and again.

    Raises:
        WireError: it doesn't.
    """
    if opcodes and all(one.id in remote.given for one in opcodes):
        raise WireError(f"{opcodes[0].title!r} was reported again though the call gave its result")
    for one in opcodes:
        if one.id == remote.target and one.op not in EXECUTED:
            raise WireError(f"the call for the step {one.title!r} was answered with {one.op} in place of its result")


def _overflow(name: str, error: str, message: str) -> RunFailure:
    return RunFailure(name, message, {"error": {"error": error, "name": name, "message": message}})
