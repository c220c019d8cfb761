"""Steps that a call has executed and reports while it goes on (protocol section 1.6). A pure decision, fenced by the lease."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from holdfast.core.ingest import Accepted
from holdfast.core.machine import Lease, holds
from holdfast.core.plan import STALE, Plan, Read, Refused, Tx
from holdfast.core.progress import progress_of, step_settled
from holdfast.core.remote import Operation
from holdfast.core.rows import ItemRow, RunRow, StepRow, StepState

replace = msgspec.structs.replace


class Checkpoint(Plan[Accepted]):
    """Record steps of a call that goes on, so that they are not executed again if it breaks off.

    Args:
        lease: The lease of the item the call is for.
        operations: Steps that are done with, or that the call has begun to execute.
    """

    __slots__ = ("lease", "operations")

    def __init__(self, lease: Lease, operations: Sequence[Operation]) -> None:
        self.then = None
        self.lease = lease
        self.operations = operations

    def reads(self) -> Iterable[Read]:
        lease = self.lease
        steps = [(StepRow, (lease.run_id, one.key)) for one in self.operations]
        return [(ItemRow, lease.item_id), (ItemRow, lease.run_id), (RunRow, lease.run_id), *steps]

    def decide(self, tx: Tx) -> Accepted | Refused:
        item = holds(tx, self.lease)
        run = tx.get(RunRow, self.lease.run_id)
        if item is None or run is None or run.ended_at is not None:
            return STALE
        out = Accepted.empty()
        for one in self.operations:
            known = tx.get(StepRow, (run.id, one.key))
            if known is not None and known.state != StepState.PENDING:
                continue  # reported twice: the first report counts
            if not one.settled:
                if known is None:
                    tx.put(one.step)  # it is being executed, which is all there is to say of it
                continue
            run = replace(run, steps=run.steps + 1)
            tx.put(run)
            tx.put(replace(one.step, seq=run.steps))
            if one.attempt is not None:
                tx.put(one.attempt)
            if one.key in progress_of(run).pending:
                # the call goes on, and finds out itself what is next
                step_settled(tx, run, None, one.key, out)
                run = tx.get(RunRow, run.id) or run
        if item.crashes or item.attempt:
            tx.put(replace(item, crashes=0, attempt=0))
        return out
