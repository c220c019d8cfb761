"""Signals: one run waits under a name, and whoever gives the signal resumes it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from zlib import crc32

import msgspec

from holdfast.base.ids import ulid_text
from holdfast.core.ingest import Accepted, resolve
from holdfast.core.machine import Lease, Record, holds
from holdfast.core.plan import STALE, Plan, Read, Refused, Tx, WaitsFor
from holdfast.core.rows import ItemRow, LogRow, NoteRow, RunRow, StepRow, StepState, WaitRow

SIGNAL_LOOKUP = "\0signal\0"
"""Prefix of the lookup under which a run waits for a signal; no event's name is empty, so none of theirs begins so."""
CONFLICT = "Signal conflict; signal wait already exists for another run"
"""The protocol's words (section 2.3)."""


def signal_lookup(name: str) -> str:
    """The lookup of a wait for a signal."""
    return SIGNAL_LOOKUP + name


class Given(msgspec.Struct, gc=False):
    """What became of a signal."""

    run_id: bytes | None
    """The run that was resumed; None when none waited."""
    accepted: Accepted


class AwaitSignal(Plan[StepRow]):
    """Register a wait for a signal. The answer is the step: PENDING, or FAILED where another wait is in its place."""

    __slots__ = ("lease", "logs", "replace", "replaced", "step", "wait")

    def __init__(
        self, lease: Lease, step: StepRow, wait: WaitRow, *, replace: bool, logs: Sequence[LogRow] = ()
    ) -> None:
        self.then = None
        self.lease = lease
        self.step = step
        self.wait = wait
        self.replace = replace
        """Whether to end the wait of whoever waits already, instead of failing."""
        self.logs = logs
        self.replaced = Accepted.empty()
        """What replacing has resumed, to be acted on after the commit."""

    def reads(self) -> Iterable[Read]:
        return ((ItemRow, self.lease.item_id), (RunRow, self.lease.run_id), WaitsFor((self.wait.lookup,)))

    def excludes(self) -> Sequence[str]:
        return (self.wait.lookup,)

    def decide(self, tx: Tx) -> StepRow | Refused:
        run = tx.get(RunRow, self.lease.run_id)
        if holds(tx, self.lease) is None or run is None:
            return STALE
        for line in self.logs:
            tx.put(line)
        self.replaced = Accepted.empty()
        waiting = open_wait(tx, self.wait.lookup)
        if waiting is not None and not self.replace:
            run.steps += 1
            failed = msgspec.structs.replace(
                self.step, state=StepState.FAILED, seq=run.steps, ended_at=tx.now, due=None, data=None,
                error=_conflict(waiting.run_id),
            )  # fmt: skip
            tx.insert(failed)
            return failed
        if waiting is not None:
            resolve(tx, waiting, b"null", None, self.replaced)
            text = f"the wait {waiting.key!r} ended without its signal: run {ulid_text(run.id)} waits for it instead"
            tx.put(NoteRow(waiting.run_id, crc32(text.encode()), tx.now, text))
        tx.insert(self.step)
        tx.insert(self.wait)
        return self.step


class GiveSignal(Plan[Given]):
    """Resume the run that waits for a signal."""

    __slots__ = ("data", "lookup")
    patient = False

    def __init__(self, name: str, data: bytes) -> None:
        self.then = None
        self.lookup = signal_lookup(name)
        self.data = signal_memo(name, data)

    def reads(self) -> Iterable[Read]:
        return (WaitsFor((self.lookup,)),)

    def excludes(self) -> Sequence[str]:
        return (self.lookup,)

    def decide(self, tx: Tx) -> Given:
        out = Accepted.empty()
        waiting = open_wait(tx, self.lookup)
        if waiting is not None and resolve(tx, waiting, self.data, None, out):
            return Given(waiting.run_id, out)
        return Given(None, out)


class RecordSignal(Plan[Given]):
    """Record a step that gives a signal, and give it in the same transaction: given if and only if recorded."""

    __slots__ = ("give", "record")

    def __init__(self, record: Record, give: GiveSignal) -> None:
        self.then = None
        self.record = record
        self.give = give

    def reads(self) -> Iterable[Read]:
        return (*self.record.reads(), *self.give.reads())

    def excludes(self) -> Sequence[str]:
        return self.give.excludes()

    def decide(self, tx: Tx) -> Given | Refused:
        recorded = self.record.decide(tx)
        if isinstance(recorded, Refused):
            return recorded
        given = self.give.decide(tx)
        recorded.data = msgspec.json.encode(None if given.run_id is None else ulid_text(given.run_id))
        return given


def open_wait(tx: Tx, lookup: str) -> WaitRow | None:
    """The wait under a lookup whose time is not over."""
    for wait in tx.find(WaitsFor((lookup,))):
        if wait.expires is None or wait.expires > tx.now:
            return wait  # type: ignore[no-any-return]
    return None


def signal_memo(name: str, data: bytes) -> bytes:
    """What is recorded for a wait whose signal came (protocol section 2.3)."""
    return msgspec.json.encode({"signal": name, "data": msgspec.Raw(data)})


def _conflict(holder: bytes) -> bytes:
    return msgspec.json.encode(
        {
            "name": "SignalConflictError",
            "message": CONFLICT,
            "chain": ["holdfast.base.errors.SignalConflictError", "holdfast.base.errors.StepError"],
            "data": {"run_id": ulid_text(holder)},
        }
    )
