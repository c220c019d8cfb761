"""Recording steps that an application reports while its call goes on (protocol section 1.6)."""

from __future__ import annotations

from holdfast.base.ids import ulid_text
from holdfast.core.checkpoint import Checkpoint
from holdfast.core.machine import Lease
from holdfast.core.plan import Refused, StepsOf
from holdfast.core.remote import Operation
from holdfast.core.rows import EventRow, ItemRow, ItemState, RunRow
from holdfast.engine.host import Host
from holdfast.engine.http_driver import HttpDriver
from holdfast.engine.notices import Notice
from holdfast.engine.operations import Translator
from holdfast.engine.remote_limits import check_limits
from holdfast.wire.checkpoints import AsyncCheckpoint
from holdfast.wire.errors import WireError
from holdfast.wire.opcodes import EXECUTED, Op, Opcode


async def checkpoint(host: Host, driver: HttpDriver, run_id: bytes, request: AsyncCheckpoint) -> bool:
    """Record the steps; False when the call they came from is no longer the one that counts.

    A planned step among them is one that the call has begun to execute, and reports because it takes long.

    Raises:
        WireError: a step can't be understood.
        RunFailure: the run may not have so many steps, or so much state.
    """
    for step in request.steps:
        if step.op not in EXECUTED and step.op is not Op.STEP_PLANNED:
            raise WireError(f"{step.op} {step.title!r} can't be checkpointed; report it with the answer to the call")
    try:
        item_id = bytes.fromhex(request.qi_id)
    except ValueError:
        return False
    rows = await host.store.read([(ItemRow, item_id), (RunRow, run_id), StepsOf(run_id)])
    item, run = rows.get(ItemRow, item_id), rows.get(RunRow, run_id)
    if item is None or run is None or item.run_id != run_id or item.state != ItemState.LEASED:
        return False
    if request.generation_id and request.generation_id != item.epoch:
        return False
    fn = driver.function(run.function_id)
    event = (await host.store.read([(EventRow, run.event_id)])).get(EventRow, run.event_id)
    if fn is None or event is None:
        return False
    check_limits(host, fn.id, rows.find(StepsOf(run_id)), request.steps)

    def translated(opcode: Opcode) -> Operation | None:
        began = _began(opcode, host.clock.now())
        return Translator(host, fn, run, item, event, began=began, no_retry=False, retry_after=None).translate(opcode)

    operations = [one for one in map(translated, request.steps) if one is not None]
    plan = Checkpoint(Lease(item.id, run.id, item.owner, item.epoch), operations)
    plan.then = host.accepted
    answer = await host.submit(plan)
    if isinstance(answer, Refused):
        return False
    driver.recorded(item_id, [one.step for one in operations])
    if ulid_text(run_id) in host.notices.followed:
        host.notices.publish(Notice("progress", ulid_text(run_id), fn.id))
    return True


def _began(opcode: Opcode, now: int) -> int:
    """When a step began, by the application's own clock, if that can be true."""
    at = opcode.timing.get("a") if isinstance(opcode.timing, dict) else None
    return min(round(at / 1e6), now) if isinstance(at, int | float) and at > 0 else now
