"""The end of a run: by itself or by cancellation, with everything that becomes visible with it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from holdfast.core.gates import release
from holdfast.core.ingest import Accepted, Incoming, accept, reads_of, resolve
from holdfast.core.machine import Lease, headline, holds
from holdfast.core.plan import STALE, ItemsOf, Plan, Read, Refused, Tx, WaitsFor, WaitsOf
from holdfast.core.queue import goes_at_once, lease, line_up
from holdfast.core.rows import (
    AlarmKind,
    AlarmRow,
    DeadLetterRow,
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
from holdfast.core.waiting import CHILD_LOOKUP

replace = msgspec.structs.replace


class Ending(msgspec.Struct, gc=False):
    """How a run ended."""

    status: RunStatus
    output: bytes | None = None
    """JSON of the return value."""
    type: str | None = None
    error: bytes | None = None
    """JSON {name, message, stack} of the final failure."""
    fingerprint: str = ""
    reason: str | None = None
    """Why it was cancelled, where a rule did it."""


class End(Plan[Accepted]):
    """End a run: status, output, dead letter, lifecycle events and the caller's result, in one commit."""

    __slots__ = ("ending", "invoked", "lease", "lifecycle", "logs", "notes", "remote", "waits")

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
        remote: bool = False,
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
        self.remote = remote
        """Whether its steps may have items of their own."""

    def reads(self) -> Iterable[Read]:
        lease = self.lease
        reads: list[Read] = [(ItemRow, lease.item_id), (RunRow, lease.run_id)]
        if self.waits:
            reads.extend(watch_reads(lease.run_id))
        if self.invoked:
            reads.append(WaitsFor((CHILD_LOOKUP + lease.run_id.hex(),)))
        if self.remote:
            reads.append(ItemsOf(lease.run_id))
        if self.lifecycle:
            reads.extend(reads_of(self.lifecycle))
        return reads

    def arrivals(self) -> Sequence[Incoming]:
        return self.lifecycle

    def decide(self, tx: Tx) -> Accepted | Refused:
        lease = self.lease
        run = tx.get(RunRow, lease.run_id)
        item = holds(tx, lease)
        if item is None or run is None:
            return STALE
        out = Accepted.empty()
        release(tx, item.held, ended=True)
        for other in tx.find(ItemsOf(lease.run_id)) if self.remote else ():
            if other.id != item.id:
                release(tx, other.held, ended=True)
            tx.delete(ItemRow, other.id)
        for line in self.logs:
            tx.put(line)
        for note in self.notes:
            tx.put(note)
        finish(tx, run, self.ending, out, waits=self.waits, invoked=self.invoked)
        for incoming in self.lifecycle:
            accept(tx, incoming, out)
        return out


def finish(tx: Tx, run: RunRow, ending: Ending, out: Accepted, *, waits: bool, invoked: bool) -> None:
    """Write the end of a run; shared by ending and cancelling. The places it held have been given back."""
    now = tx.now
    error = headline(ending.error) if ending.error else run.error if ending.status == RunStatus.COMPLETED else None
    tx.put(replace(run, status=ending.status, ended_at=now, error=error, reason=ending.reason))
    tx.delete(ItemRow, run.id)
    if ending.output is not None or ending.error is not None:
        started = run.queued_at if run.started_at is None else run.started_at
        tx.append(
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
        for kind in AlarmKind:
            if (alarm := tx.get(AlarmRow, (run.id, kind))) is not None:
                tx.delete(AlarmRow, (run.id, kind))
                _let_follow(tx, alarm, out)
    if invoked:
        for wait in tx.find(WaitsFor((CHILD_LOOKUP + run.id.hex(),))):
            if ending.status == RunStatus.COMPLETED:
                resolve(tx, wait, ending.output or b"null", None, out)
            else:
                resolve(tx, wait, None, ending.error or CANCELLED_CHILD, out)


def watch_reads(run_id: bytes) -> list[Read]:
    """What watches over a run: its waits, the events that cancel it, and its timeouts."""
    return [WaitsOf(run_id), *((AlarmRow, (run_id, int(kind))) for kind in AlarmKind)]


def _let_follow(tx: Tx, alarm: AlarmRow, out: Accepted) -> None:
    """The run that was to follow this one may start."""
    follower = None if alarm.by is None else tx.get(RunRow, alarm.by)
    item = None if follower is None else tx.get(ItemRow, follower.id)
    if follower is None or item is None or item.state != ItemState.PARKED or follower.started_at is not None:
        return
    if goes_at_once(tx, follower, item):
        lease(tx, follower, item, out.leased)
    else:
        line_up(tx, item, follower)


CANCELLED_CHILD = msgspec.json.encode(
    {
        "name": "InvokeCancelledError",
        "message": "the invoked run was cancelled",
        "chain": [
            "holdfast.base.errors.InvokeCancelledError",
            "holdfast.base.errors.StepError",
            "holdfast.base.errors.RunCancelledError",
        ],
    }
)


class Cancel(Plan[Accepted | None]):
    """Cancel a run. None: there is no such run, it has ended, or the alarm that asked for it is off."""

    __slots__ = ("alarm", "lifecycle", "patient", "reason", "run_id")

    def __init__(
        self,
        run_id: bytes,
        lifecycle: Sequence[Incoming] = (),
        *,
        reason: str | None = None,
        alarm: AlarmKind | None = None,
    ) -> None:
        self.then = None
        self.run_id = run_id
        self.lifecycle = lifecycle
        self.reason = reason
        self.alarm = alarm
        """The alarm that asks for it; None where a person does."""
        self.patient = alarm is not None  # type: ignore[misc]

    def reads(self) -> Iterable[Read]:
        run_id = self.run_id
        return [
            (RunRow, run_id),
            (ItemRow, run_id),
            ItemsOf(run_id),
            *watch_reads(run_id),
            WaitsFor((CHILD_LOOKUP + run_id.hex(),)),
            *reads_of(self.lifecycle),
        ]

    def arrivals(self) -> Sequence[Incoming]:
        return self.lifecycle

    def decide(self, tx: Tx) -> Accepted | None:
        run = tx.get(RunRow, self.run_id)
        alarm = None if self.alarm is None else tx.get(AlarmRow, (self.run_id, int(self.alarm)))
        if run is None or run.ended_at is not None:
            return self._too_late(tx, alarm)
        if self.alarm is not None and (alarm is None or alarm.at > tx.now or not _rings(alarm, run)):
            if alarm is not None and alarm.at <= tx.now:
                tx.delete(AlarmRow, (alarm.run_id, alarm.kind))  # its rule was taken out before the run started
            return None
        out = Accepted.empty()
        for item in tx.find(ItemsOf(self.run_id)):
            release(tx, item.held, ended=True)
            tx.delete(ItemRow, item.id)
        reason = self.reason if alarm is None else alarm.reason
        finish(tx, run, Ending(RunStatus.CANCELLED, reason=reason), out, waits=True, invoked=True)
        for incoming in self.lifecycle:
            accept(tx, incoming, out)
        return out

    def _too_late(self, tx: Tx, alarm: AlarmRow | None) -> Accepted | None:
        if alarm is None:
            return None
        out = Accepted.empty()
        tx.delete(AlarmRow, (alarm.run_id, alarm.kind))
        _let_follow(tx, alarm, out)
        return out


def _rings(alarm: AlarmRow, run: RunRow) -> bool:
    return alarm.kind != AlarmKind.START or run.started_at is None
