"""Starting again: reruns, redrives, and dead letters set aside. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from holdfast.core.ingest import Match, start_run
from holdfast.core.overrides import input_of, override
from holdfast.core.plan import Plan, Read, Refused, StepsOf, Tx
from holdfast.core.queue import Leased
from holdfast.core.rows import DeadLetterRow, EventRow, RunRow, StepKind, StepState

replace = msgspec.structs.replace


class Restart(Plan[tuple[bytes, list[Leased]]]):
    """Make a new run of an old one: afresh (rerun), or going on after its finished steps (redrive).

    The old run isn't altered. A dead letter is redriven once: a second redrive answers with the first one's run.
    """

    __slots__ = ("match", "redrive", "run_id")
    patient = False

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
        problem = self._problem(tx)
        if problem is not None:
            return Refused(problem)
        if self.redrive:
            letter = tx.get(DeadLetterRow, self.run_id)
            if letter is None:
                return Refused("the run is not a dead letter")
            if letter.redriven_as is not None:
                return letter.redriven_as, leased
            tx.put(replace(letter, state=1, redriven_as=self.match.run_id, resolved_at=tx.now))
        start_run(tx, self.match, self._event(tx, old), 0, leased)
        for one in leased:
            one.event = None
        self._copy_steps(tx)
        return self.match.run_id, leased

    def _problem(self, tx: Tx) -> str | None:
        """Why it can't be done with this old run, if it can't."""
        return None

    def _event(self, tx: Tx, old: RunRow) -> EventRow:
        """The event of the new run; only its id is looked at."""
        return EventRow(old.event_id, "", 0, 0, b"")

    def _copy_steps(self, tx: Tx) -> None:
        if not self.redrive:
            return
        run = tx.get(RunRow, self.match.run_id)
        for step in tx.find(StepsOf(self.run_id)):
            if run is None or step.kind == StepKind.END:
                continue
            given = input_of(step)
            if step.state == StepState.DONE:
                tx.insert(replace(step, run_id=run.id))
                run.steps = max(run.steps, step.seq)
            elif given is not None:
                tx.insert(override(run.id, step, given, tx.now))


class Discard(Plan[bool]):
    """Set a dead letter aside for good. False: there is none to discard."""

    __slots__ = ("run_id",)
    patient = False

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
    patient = False

    def __init__(self, rows: Sequence[msgspec.Struct]) -> None:
        self.then = None
        self.rows = rows

    def reads(self) -> Iterable[Read]:
        return ()

    def decide(self, tx: Tx) -> None:
        for row in self.rows:
            tx.put(row)  # type: ignore[arg-type]
