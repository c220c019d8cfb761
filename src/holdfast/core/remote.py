"""What an application answered when it was called to move a run forward (protocol sections 2.3 to 2.5). Pure decisions, fenced
by the lease of the item the call was for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from holdfast.core.gates import release
from holdfast.core.ingest import Accepted, Incoming, admit_invoked, reads_of, resolve, watched
from holdfast.core.machine import Lease, headline, holds
from holdfast.core.overrides import carried
from holdfast.core.plan import STALE, Plan, Read, Refused, Tx, WaitsFor
from holdfast.core.progress import (
    COALESCING_VERSION,
    discover,
    keep,
    progress_of,
    step_item,
    step_of_item,
    step_settled,
)
from holdfast.core.queue import Goings, set_going
from holdfast.core.rows import AttemptRow, ItemRow, ItemState, LogRow, RunRow, StepKind, StepRow, StepState, WaitRow
from holdfast.core.signals import CONFLICT, open_wait
from holdfast.core.waiting import CHILD_LOOKUP, refusal

replace = msgspec.structs.replace

_BREATH_MS = 250


class Operation(msgspec.Struct, gc=False):
    """One thing the application has done or wants done, with everything about it worked out beforehand."""

    step: StepRow
    """As it is to be recorded: DONE, FAILED, or PENDING while it is under way."""
    racing: bool = False
    attempt: AttemptRow | None = None
    """The attempt of it that failed."""
    wait: WaitRow | None = None
    child: Incoming | None = None
    """The event and run of an invoked function."""
    replaces: bool = False
    """Of a wait for a signal: whether it takes the place of another that waits for the same."""

    @property
    def key(self) -> str:
        return self.step.key

    @property
    def settled(self) -> bool:
        """Whether it is done with."""
        return self.step.state != StepState.PENDING

    @property
    def timed(self) -> bool:
        """Whether it waits by itself for a moment, or for something that may come before."""
        return self.step.kind in TIMED_KINDS


TIMED_KINDS = frozenset({StepKind.SLEEP, StepKind.WAIT_EVENT, StepKind.WAIT_SIGNAL, StepKind.INVOKE})


class Answered(Plan[Accepted]):
    """Record what a call brought, and what follows from it.

    Args:
        lease: The lease of the item the call was for.
        operations: What the application reported, in its order.
        version: The request version it speaks, if it said so.
        discovery: Whether it asks for another discovery call whatever it reported.
    """

    __slots__ = ("discovery", "lease", "operations", "version")

    def __init__(
        self, lease: Lease, operations: Sequence[Operation], *, version: int | None = None, discovery: bool = False
    ) -> None:
        self.then = None
        self.lease = lease
        self.operations = operations
        self.version = version
        self.discovery = discovery

    def reads(self) -> Iterable[Read]:
        lease = self.lease
        reads: list[Read] = [(ItemRow, lease.item_id), (ItemRow, lease.run_id), (RunRow, lease.run_id)]
        for one in self.operations:
            reads.append((StepRow, (lease.run_id, one.key)))
            if one.child is not None:
                reads.extend(reads_of([one.child]))
            if one.wait is not None and one.step.kind == StepKind.WAIT_SIGNAL:
                reads.append(WaitsFor((one.wait.lookup,)))
        return reads

    def awaits(self) -> Sequence[str]:
        lookups = [one.wait.lookup for one in self.operations if one.wait is not None and _is_for_event(one)]
        return [*lookups, *watched(one.child for one in self.operations if one.child is not None)]

    def excludes(self) -> Sequence[str]:
        return [one.wait.lookup for one in self.operations if one.wait is not None and one.step.kind == StepKind.WAIT_SIGNAL]

    def decide(self, tx: Tx) -> Accepted | Refused:
        item = holds(tx, self.lease)
        run = tx.get(RunRow, self.lease.run_id)
        if item is None or run is None or run.ended_at is not None:
            return STALE
        if any(self._conflicts(tx, one) for one in self.operations):
            return Refused(CONFLICT)
        out = Accepted.empty()
        under_way = frozenset(progress_of(run).pending)
        run = self._enter(tx, run)
        retried, settled = None, False
        for one in self.operations:
            known = tx.get(StepRow, (run.id, one.key))
            if known is not None and known.state != StepState.PENDING:
                continue  # reported twice: the first report counts
            one.step = carried(one.step, known)
            if one.settled:
                run = self._settle(tx, run, one, out)
                settled = True
            elif one.attempt is not None:
                retried = one
                tx.put(one.attempt)
                tx.put(one.step)
                run = replace(run, error=headline(one.attempt.error))
                tx.put(run)
            elif known is None or one.key not in under_way:
                self._begin(tx, run, one, out)
        self._leave(tx, item, retried, out, settled=settled)
        return out

    def _conflicts(self, tx: Tx, one: Operation) -> bool:
        if one.wait is None or one.step.kind != StepKind.WAIT_SIGNAL or one.replaces:
            return False
        holder = open_wait(tx, one.wait.lookup)
        return holder is not None and (holder.run_id, holder.key) != (one.wait.run_id, one.key)

    def _enter(self, tx: Tx, run: RunRow) -> RunRow:
        """Note the request version, and which steps are under way from now on."""
        progress = progress_of(run)
        if self.version is not None and progress.version < 0:
            progress.version = self.version
        beginning = [one for one in self.operations if not one.settled and one.attempt is None]
        if len(self.operations) > 1 and any(not one.settled for one in self.operations):
            progress.planning = True
        together: list[str] = []
        for one in beginning:
            known = tx.get(StepRow, (run.id, one.key))
            unsettled = known is None or known.state == StepState.PENDING
            if unsettled and one.key not in progress.pending:
                progress.pending.append(one.key)
                (progress.racing if one.racing else together).append(one.key)
        if together:
            progress.groups.append(together)
        run = keep(run, progress)
        tx.put(run)
        return run

    def _settle(self, tx: Tx, run: RunRow, one: Operation, out: Accepted) -> RunRow:
        run = replace(run, steps=run.steps + 1)
        if one.attempt is not None:
            tx.put(one.attempt)
            run = replace(run, error=headline(one.attempt.error))
        tx.put(replace(one.step, seq=run.steps))
        tx.put(run)
        if one.key in progress_of(run).pending:
            item = tx.get(ItemRow, run.id)
            own = self.lease.item_id == run.id
            # the discovery this answers is not one to wait for: `_leave` calls for the next
            step_settled(tx, run, None if own else item, one.key, out)
            run = tx.get(RunRow, run.id) or run
        return run

    def _begin(self, tx: Tx, run: RunRow, one: Operation, out: Accepted) -> None:
        """A step is under way from now on: executed by a call of its own, or waited for."""
        tx.put(one.step)
        item_id = step_item(run.id, one.key)
        rank = tx.now - run.priority * 1000
        if not one.timed:
            set_going(tx, run, ItemRow(item_id, run.id, ItemState.PARKED, run.lane, rank, 0), out)
            return
        due = one.step.due or 0
        tx.put(ItemRow(item_id, run.id, ItemState.TIMED, run.lane, due, due))
        out.arm(due)
        if one.wait is not None:
            self._wait(tx, run, one, one.wait, out)

    def _wait(self, tx: Tx, run: RunRow, one: Operation, wait: WaitRow, out: Accepted) -> None:
        if one.child is not None:
            tx.insert(one.child.event)
            before = len(out.refused)
            admit_invoked(tx, one.child.matches[0], one.child.event, out)
            if len(out.refused) > before:
                self._fail(tx, run, one, refusal(out.refused[-1]), out)
                return
            wait = replace(wait, lookup=CHILD_LOOKUP + out.runs[-1].hex())
        elif one.step.kind == StepKind.WAIT_SIGNAL:
            holder = open_wait(tx, wait.lookup)
            if holder is not None:
                resolve(tx, holder, b"null", None, out)
        tx.put(wait)

    def _fail(self, tx: Tx, run: RunRow, one: Operation, error: bytes, out: Accepted) -> None:
        current = tx.get(RunRow, run.id) or run
        current = replace(current, steps=current.steps + 1)
        failed = replace(
            one.step, state=StepState.FAILED, seq=current.steps, ended_at=tx.now, due=None, data=None, error=error
        )
        tx.put(failed)
        tx.put(current)
        step_settled(tx, current, tx.get(ItemRow, run.id), one.key, out)

    def _leave(self, tx: Tx, item: ItemRow, retried: Operation | None, out: Accepted, *, settled: bool) -> None:
        """What becomes of the item the call was for."""
        run = tx.get(RunRow, self.lease.run_id)
        assert run is not None
        held = release(tx, item.held, ended=False)
        item = replace(item, held=held, owner=0, woken=0, crashes=0)
        own = item.id == run.id
        if retried is not None:
            due = retried.step.due or tx.now
            rank = due - run.priority * 1000
            tx.put(replace(item, state=ItemState.TIMED, due=due, rank=rank, attempt=item.attempt + 1))
            out.arm(due)
            return
        if not own:
            self._leave_step(tx, run, item, out)
            return
        if not self.operations and not self.discovery and not progress_of(run).pending:
            # nothing was found to do, and nothing is under way: asked again, but not without a breath
            due = tx.now + _BREATH_MS
            tx.put(replace(item, state=ItemState.TIMED, due=due, rank=due - run.priority * 1000, attempt=0))
            out.arm(due)
            return
        item = replace(item, state=ItemState.PARKED, attempt=0, due=0)
        tx.put(item)
        progress = progress_of(run)
        told_at_once = settled and progress.version < COALESCING_VERSION
        if self.discovery or not progress.pending or progress.owed or told_at_once:
            progress.owed = max(0, progress.owed - 1)
            run = keep(run, progress)
            tx.put(run)
            discover(tx, run, item, out)

    def _leave_step(self, tx: Tx, run: RunRow, item: ItemRow, out: Accepted) -> None:
        """The call was for one step; if it isn't settled now, the function knows nothing of it and is asked what it wants."""
        tx.delete(ItemRow, item.id)
        key = step_of_item(item.id)
        if key not in progress_of(run).pending or any(one.key == key and not one.settled for one in self.operations):
            return
        tx.delete(StepRow, (run.id, key))
        step_settled(tx, run, tx.get(ItemRow, run.id), key, out)


def _is_for_event(one: Operation) -> bool:
    return one.step.kind == StepKind.WAIT_EVENT


class RetryCall(Plan[Accepted]):
    """The function itself failed, or could not be reached: the same call again at a moment."""

    __slots__ = ("attempt", "due", "lease", "logs")

    def __init__(self, lease: Lease, due: int, attempt: AttemptRow | None, logs: Sequence[LogRow] = ()) -> None:
        self.then = None
        self.lease = lease
        self.due = due
        self.attempt = attempt
        """What failed; None when the application was not there, which costs no attempt."""
        self.logs = logs

    def reads(self) -> Iterable[Read]:
        return ((ItemRow, self.lease.item_id), (RunRow, self.lease.run_id))

    def decide(self, tx: Tx) -> Accepted | Refused:
        item = holds(tx, self.lease)
        run = tx.get(RunRow, self.lease.run_id)
        if item is None or run is None:
            return STALE
        out = Accepted.empty()
        held = release(tx, item.held, ended=False)
        count = item.attempt + (self.attempt is not None)
        rank = self.due - run.priority * 1000
        tx.put(replace(item, state=ItemState.TIMED, owner=0, due=self.due, rank=rank, held=held, attempt=count))
        if self.attempt is not None:
            tx.put(self.attempt)
            tx.put(replace(run, attempt=run.attempt + 1, error=headline(self.attempt.error)))
        out.arm(self.due)
        return out


def time_is_up(tx: Tx, run: RunRow, item: ItemRow, step: StepRow, out: Goings) -> None:
    """The moment of a sleeping or waiting step has come: that is its result, unless something came before."""
    tx.delete(ItemRow, item.id)
    if step.state != StepState.PENDING:
        return
    run = replace(run, steps=run.steps + 1)
    error = INVOKE_TIMEOUT if step.kind == StepKind.INVOKE else None
    state = StepState.DONE if error is None else StepState.FAILED
    data = b"null" if error is None else None
    tx.put(replace(step, state=state, seq=run.steps, ended_at=tx.now, due=None, data=data, error=error))
    tx.put(run)
    if step.kind != StepKind.SLEEP:
        tx.delete(WaitRow, (run.id, step.key))
    step_settled(tx, run, tx.get(ItemRow, run.id), step.key, out)


INVOKE_TIMEOUT = msgspec.json.encode(
    {
        "error": "InngestInvokeTimeoutError: Timed out waiting for invoked function to complete",
        "name": "InngestInvokeTimeoutError",
        "message": "Timed out waiting for invoked function to complete",
    }
)
