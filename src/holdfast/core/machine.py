"""The life of a run: recording steps, parking, ending, cancelling, starting again. Pure decisions, fenced by the lease."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from holdfast.core.ingest import Accepted, Incoming, Match, accept, event_json, matches, reads_of, resolve, start_run
from holdfast.core.plan import (
    STALE,
    EventsSince,
    ItemsOf,
    Plan,
    Read,
    Refused,
    StepsOf,
    Tx,
    WaitsFor,
    WaitsOf,
)
from holdfast.core.queue import Leased
from holdfast.core.rows import (
    AttemptRow,
    DeadLetterRow,
    EventRow,
    ItemRow,
    ItemState,
    LogRow,
    NoteRow,
    RunRow,
    RunStatus,
    StepKind,
    StepRow,
    StepState,
    WaitRow,
)

replace = msgspec.structs.replace

CHILD_LOOKUP = "inngest/function.finished\0run\0"
"""Prefix of the lookup under which an invoking step waits for its run; followed by the run's id in hex."""


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

    def decide(self, tx: Tx) -> Accepted | Refused:
        recorded = self.record.decide(tx)
        if isinstance(recorded, Refused):
            return recorded
        out = Accepted.empty()
        for incoming in self.incoming:
            accept(tx, incoming, out)
        return out


class Register(Plan[Accepted]):
    """Register something a run waits for: a timer, an event, the result of a run it invokes."""

    __slots__ = ("child", "lease", "logs", "lookback", "step", "wait")

    def __init__(
        self,
        lease: Lease,
        step: StepRow,
        wait: WaitRow | None = None,
        *,
        child: Incoming | None = None,
        lookback: EventsSince | None = None,
        logs: Sequence[LogRow] = (),
    ) -> None:
        self.then = None
        self.lease = lease
        self.step = step
        self.wait = wait
        self.child = child
        """The invoked run's event; its one match is the run."""
        self.lookback = lookback
        """Earlier events that may satisfy the wait as well."""
        self.logs = logs

    def reads(self) -> Iterable[Read]:
        reads: list[Read] = [(ItemRow, self.lease.item_id), (RunRow, self.lease.run_id)]
        if self.lookback is not None:
            reads.append(self.lookback)
        if self.child is not None:
            reads.extend(reads_of([self.child]))
        return reads

    def decide(self, tx: Tx) -> Accepted | Refused:
        if holds(tx, self.lease) is None:
            return STALE
        out = Accepted.empty()
        tx.insert(self.step)
        for line in self.logs:
            tx.put(line)
        if self.wait is not None:
            tx.insert(self.wait)
            if self.lookback is not None:
                self._look_back(tx, self.wait, self.lookback, out)
        if self.child is not None:
            tx.insert(self.child.event)
            start_run(tx, self.child.matches[0], self.child.event, 0, out.leased)
        return out

    def _look_back(self, tx: Tx, wait: WaitRow, lookback: EventsSince, out: Accepted) -> None:
        run = tx.get(RunRow, wait.run_id)
        for event in tx.find(lookback):
            if run is not None and event.id == run.event_id:
                continue
            if wait.lookup in lookups_of(event, {wait.lookup.split("\0")[1]} if "\0" in wait.lookup else {""}):
                body = event_json(event)
                if matches(wait, body) and resolve(tx, wait, body, None, out):
                    return


def lookups_of(event: EventRow, paths: Iterable[str]) -> tuple[str, ...]:
    """The lookups under which waits for an event would be registered, given the paths in use for its name."""
    out = []
    data = None
    for path in paths:
        if not path:
            out.append(event.name)
            continue
        if data is None:
            data = msgspec.json.decode(event.data)
        value = data
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is None or isinstance(value, str | int | float | bool):
            out.append(wait_lookup(event.name, path, value))
    return tuple(out)


def wait_lookup(name: str, path: str, value: object) -> str:
    """The lookup of a wait for an event whose data has a value at a path. 1 and 1.0 are the same value."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"{name}\0{path}\0{msgspec.json.encode(value).decode()}"


class TimeOut(Plan[StepRow]):
    """A wait's time has run out: recorded as its result, unless what it waits for came first."""

    __slots__ = ("lease", "step")

    def __init__(self, lease: Lease, step: StepRow) -> None:
        self.then = None
        self.lease = lease
        self.step = step
        """The step with its time-out result."""

    def reads(self) -> Iterable[Read]:
        key = (self.lease.run_id, self.step.key)
        return ((ItemRow, self.lease.item_id), (RunRow, self.lease.run_id), (WaitRow, key), (StepRow, key))

    def decide(self, tx: Tx) -> StepRow | Refused:
        run = tx.get(RunRow, self.lease.run_id)
        if holds(tx, self.lease) is None or run is None:
            return STALE
        key = (self.lease.run_id, self.step.key)
        current = tx.get(StepRow, key)
        if current is not None and current.state != StepState.PENDING:
            return current
        run.steps += 1
        self.step.seq = run.steps
        tx.delete(WaitRow, key)
        tx.put(self.step)
        return self.step


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
            tx.put(replace(run, attempt=self.attempt.attempt + 1, error=_headline(self.attempt.error)))
        else:
            if self.fresh:
                tx.insert(self.step)
            else:
                tx.put(self.step)
            tx.put(replace(run, error=_headline(self.attempt.error)))
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
        tx.put(replace(item, state=state, owner=0, woken=0, crashes=0, due=due, rank=due))
        return True


class Ending(msgspec.Struct, gc=False):
    """How a run ended."""

    status: RunStatus
    output: bytes | None = None
    """JSON of the return value."""
    type: str | None = None
    error: bytes | None = None
    """JSON {name, message, stack} of the final failure."""
    fingerprint: str = ""


class End(Plan[Accepted]):
    """End a run: status, output, dead letter, lifecycle events and the caller's result, in one commit."""

    __slots__ = ("ending", "invoked", "lease", "lifecycle", "logs", "notes", "waits")

    def __init__(
        self,
        lease: Lease,
        ending: Ending,
        *,
        invoked: bool = False,
        waits: bool = False,
        lifecycle: Sequence[Incoming] = (),
        logs: Sequence[LogRow] = (),
        notes: Sequence[NoteRow] = (),
    ) -> None:
        self.then = None
        self.lease = lease
        self.ending = ending
        self.invoked = invoked
        """Whether another run may wait for its result."""
        self.waits = waits
        """Whether it may have open waits of its own."""
        self.lifecycle = lifecycle
        self.logs = logs
        self.notes = notes

    def reads(self) -> Iterable[Read]:
        lease = self.lease
        reads: list[Read] = [(ItemRow, lease.item_id), (RunRow, lease.run_id)]
        if self.waits:
            reads.append(WaitsOf(lease.run_id))
        if self.invoked:
            reads.append(WaitsFor((CHILD_LOOKUP + lease.run_id.hex(),)))
        if self.lifecycle:
            reads.extend(reads_of(self.lifecycle))
        return reads

    def decide(self, tx: Tx) -> Accepted | Refused:
        lease = self.lease
        run = tx.get(RunRow, lease.run_id)
        if holds(tx, lease) is None or run is None:
            return STALE
        out = Accepted.empty()
        for line in self.logs:
            tx.put(line)
        for note in self.notes:
            tx.put(note)
        finish(tx, run, self.ending, out, waits=self.waits, invoked=self.invoked)
        for incoming in self.lifecycle:
            accept(tx, incoming, out)
        return out


def finish(tx: Tx, run: RunRow, ending: Ending, out: Accepted, *, waits: bool, invoked: bool) -> None:
    """Write the end of a run; shared by ending and cancelling."""
    now = tx.now
    error = _headline(ending.error) if ending.error else run.error if ending.status == RunStatus.COMPLETED else None
    tx.put(replace(run, status=ending.status, ended_at=now, error=error))
    tx.delete(ItemRow, run.id)
    if ending.output is not None or ending.error is not None:
        started = run.queued_at if run.started_at is None else run.started_at
        tx.put(
            StepRow(
                run.id,
                "",
                run.steps + 1,
                StepState.FAILED if ending.error else StepState.DONE,
                StepKind.END,
                started,
                now,
                run.attempt,
                None,
                ending.output,
                ending.error,
                ending.type,
            )
        )
    if ending.status == RunStatus.FAILED:
        tx.put(DeadLetterRow(run.id, run.function_id, now, ending.fingerprint, error or "failed"))
    if waits:
        for wait in tx.find(WaitsOf(run.id)):
            tx.delete(WaitRow, (wait.run_id, wait.key))
    if invoked:
        for wait in tx.find(WaitsFor((CHILD_LOOKUP + run.id.hex(),))):
            if ending.status == RunStatus.COMPLETED:
                resolve(tx, wait, ending.output or b"null", None, out)
            else:
                resolve(tx, wait, None, ending.error or CANCELLED_CHILD, out)


CANCELLED_CHILD = msgspec.json.encode(
    {
        "name": "RunCancelledError",
        "message": "the invoked run was cancelled",
        "chain": ["holdfast.base.errors.RunCancelledError"],
    }
)


def _headline(error: bytes) -> str:
    decoded = msgspec.json.decode(error)
    message = str(decoded.get("message", "")).split("\n", 1)[0]
    return f"{decoded.get('name', 'Error')}: {message}"[:500]


class Cancel(Plan[Accepted | None]):
    """Cancel a run. None: there is no such run, or it has ended."""

    __slots__ = ("lifecycle", "run_id")

    def __init__(self, run_id: bytes, lifecycle: Sequence[Incoming] = ()) -> None:
        self.then = None
        self.run_id = run_id
        self.lifecycle = lifecycle

    def reads(self) -> Iterable[Read]:
        run_id = self.run_id
        return [
            (RunRow, run_id),
            (ItemRow, run_id),
            ItemsOf(run_id),
            WaitsOf(run_id),
            WaitsFor((CHILD_LOOKUP + run_id.hex(),)),
            *reads_of(self.lifecycle),
        ]

    def decide(self, tx: Tx) -> Accepted | None:
        run = tx.get(RunRow, self.run_id)
        if run is None or run.ended_at is not None:
            return None
        out = Accepted.empty()
        for item in tx.find(ItemsOf(self.run_id)):
            tx.delete(ItemRow, item.id)
        finish(tx, run, Ending(RunStatus.CANCELLED), out, waits=True, invoked=True)
        for incoming in self.lifecycle:
            accept(tx, incoming, out)
        return out


class Restart(Plan[tuple[bytes, list[Leased]]]):
    """Make a new run of an old one: afresh (rerun), or going on after its finished steps (redrive).

    The old run isn't altered. A dead letter is redriven once: a second redrive answers with the first one's run.
    """

    __slots__ = ("match", "redrive", "run_id")

    def __init__(self, run_id: bytes, match: Match, *, redrive: bool) -> None:
        self.then = None
        self.run_id = run_id
        self.match = match
        self.redrive = redrive

    def reads(self) -> Iterable[Read]:
        reads: list[Read] = [(RunRow, self.run_id)]
        if self.redrive:
            reads += [(DeadLetterRow, self.run_id), StepsOf(self.run_id)]
        return reads

    def decide(self, tx: Tx) -> tuple[bytes, list[Leased]] | Refused:
        old = tx.get(RunRow, self.run_id)
        if old is None:
            return Refused("there is no such run")
        if old.ended_at is None:
            return Refused("the run has not ended yet")
        leased: list[Leased] = []
        if self.redrive:
            letter = tx.get(DeadLetterRow, self.run_id)
            if letter is None:
                return Refused("the run is not a dead letter")
            if letter.redriven_as is not None:
                return letter.redriven_as, leased
            tx.put(replace(letter, state=1, redriven_as=self.match.run_id, resolved_at=tx.now))
        event = EventRow(old.event_id, "", 0, 0, b"")
        start_run(tx, self.match, event, 0, leased)
        for one in leased:
            one.event = None
        if self.redrive:
            self._copy_steps(tx)
        return self.match.run_id, leased

    def _copy_steps(self, tx: Tx) -> None:
        run = tx.get(RunRow, self.match.run_id)
        for step in tx.find(StepsOf(self.run_id)):
            if step.state == StepState.DONE and step.kind != StepKind.END and run is not None:
                tx.insert(replace(step, run_id=run.id))
                run.steps = max(run.steps, step.seq)


class Discard(Plan[bool]):
    """Set a dead letter aside for good. False: there is none to discard."""

    __slots__ = ("run_id",)

    def __init__(self, run_id: bytes) -> None:
        self.then = None
        self.run_id = run_id

    def reads(self) -> Iterable[Read]:
        return ((DeadLetterRow, self.run_id),)

    def decide(self, tx: Tx) -> bool:
        letter = tx.get(DeadLetterRow, self.run_id)
        if letter is None or letter.state != 0:
            return False
        tx.put(replace(letter, state=2, resolved_at=tx.now))
        return True


class Write(Plan[None]):
    """Rows that need no decision: audit entries, log lines."""

    __slots__ = ("rows",)

    def __init__(self, rows: Sequence[msgspec.Struct]) -> None:
        self.then = None
        self.rows = rows

    def reads(self) -> Iterable[Read]:
        return ()

    def decide(self, tx: Tx) -> None:
        for row in self.rows:
            tx.put(row)  # type: ignore[arg-type]
