"""What the holder of a lease reports: results, failed attempts, leaving memory. Pure decisions, fenced by the lease."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from holdfast.core.flow import Gate
from holdfast.core.gates import gate_reads, release, release_one, shut, take
from holdfast.core.ingest import Accepted, Incoming, accept, reads_of, watched
from holdfast.core.plan import (
    STALE,
    Plan,
    Read,
    Refused,
    Tx,
)
from holdfast.core.rows import (
    AttemptRow,
    ItemRow,
    ItemState,
    LogRow,
    NoteRow,
    RunRow,
    StepRow,
)

replace = msgspec.structs.replace


class Lease(msgspec.Struct, gc=False, frozen=True):
    """Proof of the right to move a run forward."""

    item_id: bytes
    run_id: bytes
    owner: int
    epoch: int


def holds(tx: Tx, lease: Lease) -> ItemRow | None:
    """The leased item, if this lease is still the current one (promise 4: the epoch predicate)."""
    item = tx.get(ItemRow, lease.item_id)
    if item is None or item.state != ItemState.LEASED or item.owner != lease.owner or item.epoch != lease.epoch:
        return None
    return item


class Record(Plan[StepRow]):
    """Record the result of a step."""

    __slots__ = ("fresh", "lease", "logs", "step")

    def __init__(self, lease: Lease, step: StepRow, logs: Sequence[LogRow] = (), *, fresh: bool = True) -> None:
        self.then = None
        self.lease = lease
        self.step = step
        self.logs = logs
        self.fresh = fresh
        """Whether the step has no row yet."""

    def reads(self) -> Iterable[Read]:
        lease = self.lease
        return ((ItemRow, lease.item_id), (RunRow, lease.run_id))

    def decide(self, tx: Tx) -> StepRow | Refused:
        item = holds(tx, self.lease)
        run = tx.get(RunRow, self.lease.run_id)
        if item is None or run is None:
            return STALE
        run.steps += 1
        step = self.step
        step.seq = run.steps
        if self.fresh:
            tx.append(step)
        else:
            tx.put(step)
        if item.crashes:
            tx.put(replace(item, crashes=0))
        for line in self.logs:
            tx.put(line)
        return step


class RecordSend(Plan[Accepted]):
    """Record a send step and accept its events in the same transaction: sent if and only if recorded."""

    __slots__ = ("incoming", "record")

    def __init__(self, record: Record, incoming: Sequence[Incoming]) -> None:
        self.then = None
        self.record = record
        self.incoming = incoming

    def reads(self) -> Iterable[Read]:
        return (*self.record.reads(), *reads_of(self.incoming))

    def arrivals(self) -> Sequence[Incoming]:
        return self.incoming

    def awaits(self) -> Sequence[str]:
        return watched(self.incoming)

    def decide(self, tx: Tx) -> Accepted | Refused:
        recorded = self.record.decide(tx)
        if isinstance(recorded, Refused):
            return recorded
        out = Accepted.empty()
        for incoming in self.incoming:
            accept(tx, incoming, out)
        return out


class FailAttempt(Plan["StepRow | None"]):
    """An attempt failed and another will follow: of a step, or of the function itself (no step)."""

    __slots__ = ("attempt", "fresh", "lease", "logs", "step")

    def __init__(
        self,
        lease: Lease,
        attempt: AttemptRow,
        step: StepRow | None,
        logs: Sequence[LogRow] = (),
        *,
        fresh: bool = True,
    ) -> None:
        self.then = None
        self.lease = lease
        self.attempt = attempt
        self.step = step
        self.logs = logs
        self.fresh = fresh

    def reads(self) -> Iterable[Read]:
        return ((ItemRow, self.lease.item_id), (RunRow, self.lease.run_id))

    def decide(self, tx: Tx) -> StepRow | Refused | None:
        item = holds(tx, self.lease)
        run = tx.get(RunRow, self.lease.run_id)
        if item is None or run is None:
            return STALE
        tx.put(self.attempt)
        for line in self.logs:
            tx.put(line)
        if self.step is None:
            tx.put(replace(run, attempt=self.attempt.attempt + 1, error=headline(self.attempt.error)))
        else:
            if self.fresh:
                tx.insert(self.step)
            else:
                tx.put(self.step)
            tx.put(replace(run, error=headline(self.attempt.error)))
        if item.crashes:
            tx.put(replace(item, crashes=0))
        return self.step


class Park(Plan[bool]):
    """Release a run from memory until a moment or until something wakes it. False: something has woken it already."""

    __slots__ = ("due", "lease", "logs", "notes", "seen")

    def __init__(
        self, lease: Lease, due: int | None, seen: int, logs: Sequence[LogRow] = (), notes: Sequence[NoteRow] = ()
    ) -> None:
        self.then = None
        self.lease = lease
        self.due = due
        """When its earliest timer is due; None when it waits without a time."""
        self.seen = seen
        """How many wake-ups of this lease its owner knows of."""
        self.logs = logs
        self.notes = notes

    def reads(self) -> Iterable[Read]:
        return ((ItemRow, self.lease.item_id), (RunRow, self.lease.run_id))

    def decide(self, tx: Tx) -> bool | Refused:
        item = holds(tx, self.lease)
        run = tx.get(RunRow, self.lease.run_id)
        if item is None or run is None:
            return STALE
        if item.woken != self.seen:
            return False
        for line in self.logs:
            tx.put(line)
        for note in self.notes:
            tx.put(note)
        tx.put(run)
        state = ItemState.PARKED if self.due is None else ItemState.TIMED
        due = self.due or 0
        rank = due - run.priority * 1000
        held = release(tx, item.held, ended=False)
        tx.put(replace(item, state=state, owner=0, woken=0, crashes=0, due=due, rank=rank, held=held))
        return True


class Widen(Plan[bool]):
    """A step body is to run beside another of its run: it needs a place of its own. False: there is none."""

    __slots__ = ("gates", "lease")

    def __init__(self, lease: Lease, gates: Sequence[Gate]) -> None:
        self.then = None
        self.lease = lease
        self.gates = gates

    def reads(self) -> Iterable[Read]:
        return ((ItemRow, self.lease.item_id), (RunRow, self.lease.run_id), *gate_reads(self.gates))

    def decide(self, tx: Tx) -> bool | Refused:
        item = holds(tx, self.lease)
        if item is None:
            return STALE
        if tx.backlog or shut(tx, self.gates) is not None:
            return False
        tx.put(replace(item, held=take(tx, self.gates, item.held)))
        return True


class Narrow(Plan[None]):
    """Bodies that ran beside another are done: their places go back."""

    __slots__ = ("count", "gates", "lease")

    def __init__(self, lease: Lease, gates: Sequence[Gate], count: int) -> None:
        self.then = None
        self.lease = lease
        self.gates = gates
        self.count = count

    def reads(self) -> Iterable[Read]:
        return ((ItemRow, self.lease.item_id), (RunRow, self.lease.run_id), *gate_reads(self.gates))

    def decide(self, tx: Tx) -> Refused | None:
        item = holds(tx, self.lease)
        if item is None:
            return STALE
        held = item.held
        for _ in range(self.count):
            held = release_one(tx, held, self.gates)
        tx.put(replace(item, held=held))
        return None


def headline(error: bytes) -> str:
    """Class name and first line of a recorded error, for lists."""
    decoded = msgspec.json.decode(error)
    message = str(decoded.get("message", "")).split("\n", 1)[0]
    return f"{decoded.get('name', 'Error')}: {message}"[:500]
