"""Starting again: reruns, redrives, and dead letters set aside. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from holdfast.core.ingest import Accepted, Match, admit, match_reads
from holdfast.core.overrides import input_of, override
from holdfast.core.plan import EventsOfBatch, Plan, Read, Refused, StepsOf, Tx
from holdfast.core.rows import DeadLetterRow, EventRow, RunRow, StepKind, StepState

replace = msgspec.structs.replace


class Restart(Plan[tuple[bytes, Accepted]]):
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
        reads: list[Read] = [(RunRow, self.run_id), *match_reads(self.match, 0)]
        if self.redrive:
            reads += [(DeadLetterRow, self.run_id), StepsOf(self.run_id)]
        reads.append(EventsOfBatch(self.run_id))
        return reads

    def awaits(self) -> Sequence[str]:
        return self.match.watched()

    def decide(self, tx: Tx) -> tuple[bytes, Accepted] | Refused:
        old = tx.get(RunRow, self.run_id)
        if old is None:
            return Refused("there is no such run")
        if old.ended_at is None:
            return Refused("the run has not ended yet")
        letter = tx.get(DeadLetterRow, self.run_id) if self.redrive else None
        if self.redrive:
            if letter is None:
                return Refused("the run is not a dead letter")
            if letter.redriven_as is not None:
                return letter.redriven_as, Accepted.empty()
        problem = self._problem(tx, old)
        if problem is not None:
            return Refused(problem)
        out = Accepted.empty()
        admit(tx, self.match, EventRow(self._event_id(old), "", 0, 0, b""), out)
        if out.refused:
            return Refused(out.refused[0])
        if letter is not None:
            tx.put(replace(letter, state=1, redriven_as=self.match.run_id, resolved_at=tx.now))
        for one in out.leased:
            one.event = None
        run = tx.get(RunRow, self.match.run_id)
        assert run is not None
        self._begin(tx, old, run)
        return self.match.run_id, out

    def _problem(self, tx: Tx, old: RunRow) -> str | None:
        """Why it can't be done with this old run, if it can't."""
        return None

    def _event_id(self, old: RunRow) -> bytes:
        """The event of the new run."""
        return old.event_id

    def _begin(self, tx: Tx, old: RunRow, run: RunRow) -> None:
        """What the new run begins with."""
        if old.batch:
            run.batch = old.batch
            for event in tx.find(EventsOfBatch(old.id)):
                tx.append(replace(event, run_id=run.id))
        self._copy_steps(tx, run)

    def _copy_steps(self, tx: Tx, run: RunRow) -> None:
        if not self.redrive:
            return
        for step in tx.find(StepsOf(self.run_id)):
            if step.kind == StepKind.END:
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
