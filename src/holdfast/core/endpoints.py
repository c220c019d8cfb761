"""Runs of durable endpoints while the request that began them is still being answered (protocol section 1.6). Pure.

Such a run is attached: its item is TIMED and its due moment is when it counts as abandoned, because the application has reported
nothing for so long. Then, or when a report asks for what can't be done within the request, the run is called like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from holdfast.base.limits import EVENT_ID_WINDOW_MS
from holdfast.core.ingest import Accepted
from holdfast.core.machine import Lease
from holdfast.core.plan import DUPLICATE, STALE, Arrival, Plan, Read, Refused, Tx
from holdfast.core.progress import Progress, keep, progress_of
from holdfast.core.rows import DedupeRow, EventRow, ItemRow, ItemState, RunRow, RunStatus

replace = msgspec.structs.replace

ABANDONED_AFTER_MS = 600_000
"""How long an attached run may report nothing."""
PAUSED = Refused("paused")
"""Its function is paused: nothing starts."""
_REQUEST = -1
"""Stands as owner in the lease of an attached run."""


def attached_lease(run_id: bytes) -> Lease:
    """The right of a request to move the run forward that it began."""
    return Lease(run_id, run_id, _REQUEST, 0)


class Begin(Plan[Accepted]):
    """Begin a run that is executed within a request. Refused as DUPLICATE when it, or one for the same event id, is there.

    Args:
        event: The event that stands for the request.
        run_id: The run's id, which the SDK has chosen.
        function_id: The endpoint.
        version: Of its configuration.
        progress: Where the run stands at first.
    """

    __slots__ = ("event", "function_id", "progress", "run_id", "version")
    patient = False

    def __init__(self, event: EventRow, run_id: bytes, function_id: int, version: int, progress: Progress) -> None:
        self.then = None
        self.event = event
        self.run_id = run_id
        self.function_id = function_id
        self.version = version
        self.progress = progress

    def reads(self) -> Iterable[Read]:
        reads: list[Read] = [(RunRow, self.run_id)]
        if self.event.key is not None:
            reads.append((DedupeRow, (self.function_id, self.event.key)))
        return reads

    def decide(self, tx: Tx) -> Accepted | Refused:
        event, now = self.event, tx.now
        if tx.get(RunRow, self.run_id) is not None:
            return DUPLICATE
        if tx.paused and self.function_id in tx.paused:
            return PAUSED
        if event.key is not None:
            known = tx.get(DedupeRow, (self.function_id, event.key))
            if known is not None and known.expires > now:
                return DUPLICATE
            tx.put(DedupeRow(self.function_id, event.key, self.run_id, now + EVENT_ID_WINDOW_MS))
        lane = str(self.function_id)
        due = now + ABANDONED_AFTER_MS
        run = RunRow(
            self.run_id, self.function_id, event.id, RunStatus.RUNNING, now, now, None, lane, version=self.version
        )
        tx.append(event)
        tx.insert(keep(run, self.progress))
        tx.insert(ItemRow(run.id, run.id, ItemState.TIMED, lane, due, due))
        out = Accepted.empty()
        out.runs.append(run.id)
        out.arm(due)
        return out


class Attached(Plan[Accepted]):
    """What a request reports of the run that it executes: another plan, fenced by the run's being attached to it.

    Args:
        lease: See `attached_lease`.
        inner: The plan, made for that lease.
    """

    __slots__ = ("inner", "lease")

    def __init__(self, lease: Lease, inner: Plan[Accepted]) -> None:
        self.then = None
        self.lease = lease
        self.inner = inner

    def reads(self) -> Iterable[Read]:
        return [(ItemRow, self.lease.item_id), (RunRow, self.lease.run_id), *self.inner.reads()]

    def arrivals(self) -> Sequence[Arrival]:
        return self.inner.arrivals()

    def awaits(self) -> Sequence[str]:
        return self.inner.awaits()

    def excludes(self) -> Sequence[str]:
        return self.inner.excludes()

    def decide(self, tx: Tx) -> Accepted | Refused:
        item = tx.get(ItemRow, self.lease.item_id)
        run = tx.get(RunRow, self.lease.run_id)
        if item is None or run is None or item.state != ItemState.TIMED or item.epoch != self.lease.epoch:
            return STALE
        if not progress_of(run).attached:
            return STALE
        tx.put(replace(item, state=ItemState.LEASED, owner=self.lease.owner))
        self._detach(tx, run)
        out = self.inner.decide(tx)
        if isinstance(out, Refused):
            tx.put(item)
            tx.put(run)
            return out
        left = tx.get(ItemRow, item.id)
        if left is not None and left.state == ItemState.LEASED and left.owner == self.lease.owner:
            self._go_on(tx, left, out)
        return out

    def _detach(self, tx: Tx, run: RunRow) -> None:
        progress = progress_of(run)
        progress.attached = False
        tx.put(keep(run, progress))

    def _go_on(self, tx: Tx, item: ItemRow, out: Accepted) -> None:
        """The request goes on executing."""
        due = tx.now + ABANDONED_AFTER_MS
        tx.put(replace(item, state=ItemState.TIMED, owner=0, due=due, rank=due))
        run = tx.get(RunRow, self.lease.run_id)
        assert run is not None
        progress = progress_of(run)
        progress.attached = True
        tx.put(keep(run, progress))
        out.arm(due)
