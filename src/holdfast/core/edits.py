"""Starting a run again from one of its steps, with other input or another event. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final
from zlib import crc32

import msgspec

from holdfast.core.ingest import Match
from holdfast.core.overrides import input_of, override
from holdfast.core.plan import Read, StepsOf, Tx
from holdfast.core.restart import Restart
from holdfast.core.rows import EventRow, NoteRow, RunRow, StepKind, StepRow, StepState

replace = msgspec.structs.replace

FAILED_STEP: Final = "\0failed"
"""Stands for the step by which the old run failed."""
_NAMED = 12


class EditedRestart(Restart):
    """A new run that keeps what was recorded before a step, and does that step and all after it again.

    The step's input and the run's event may be replaced. The old run, its steps and its event stay as they are.
    """

    __slots__ = ("_from", "event", "from_step", "input")

    def __init__(
        self,
        run_id: bytes,
        match: Match,
        *,
        redrive: bool = False,
        from_step: str | None = None,
        given: bytes | None = None,
        event: EventRow | None = None,
    ) -> None:
        super().__init__(run_id, match, redrive=redrive)
        self.from_step = from_step
        """The key of the step; None: the first, or when redriving the one after the finished ones."""
        self.input = given
        """JSON of the arguments that the step's body gets instead of those the function gives it."""
        self.event = event
        """The edited event; a row of its own."""

    def reads(self) -> Iterable[Read]:
        return (*super().reads(), StepsOf(self.run_id))

    def _problem(self, tx: Tx) -> str | None:
        self._from = None
        if self.from_step is None:
            return None
        steps = tx.find(StepsOf(self.run_id))
        key = _failed_step(steps) if self.from_step == FAILED_STEP else self.from_step
        if key is None:
            return "it did not fail in a step, so there is no input to replace; name the step"
        self._from = next((step for step in steps if step.key == key and step.kind != StepKind.END), None)
        if self._from is None:
            return f"it has no step {key!r}; {_named(steps)}"
        if self.input is not None and self._from.kind != StepKind.RUN:
            kind = StepKind(self._from.kind).name.lower()
            return f"step {key!r} is a {kind}, which has no input; only the input of step.run can be replaced"
        return None

    def _event(self, tx: Tx, old: RunRow) -> EventRow:
        if self.event is None:
            return super()._event(tx, old)
        tx.append(self.event)
        return self.event

    def _copy_steps(self, tx: Tx) -> None:
        step = self._from
        if step is None:
            super()._copy_steps(tx)
            return
        run = tx.get(RunRow, self.match.run_id)
        if run is None:
            return
        for one in tx.find(StepsOf(self.run_id)):
            if _kept(one, step, redrive=self.redrive):
                tx.insert(replace(one, run_id=run.id))
                run.steps = max(run.steps, one.seq)
        said = f"it begins at step {step.key!r} of the run it repeats"
        # an input that was edited before is the step's until it is done
        given = input_of(step) if self.input is None else self.input
        if given is not None:
            tx.insert(override(run.id, step, given, tx.now))
            said += ", whose input was edited"
        tx.put(NoteRow(run.id, crc32(said.encode()), tx.now, said))


def _kept(one: StepRow, first: StepRow, *, redrive: bool) -> bool:
    """Whether a step is taken over: it has a result, and that was recorded before the step to begin with."""
    if one.kind == StepKind.END or one.state == StepState.PENDING or one.key == first.key:
        return False
    if redrive:
        return one.state == StepState.DONE
    return first.state == StepState.PENDING or one.seq < first.seq


def _failed_step(steps: Sequence[StepRow]) -> str | None:
    end = next((step for step in steps if step.kind == StepKind.END), None)
    if end is None or end.error is None:
        return None
    name = msgspec.json.decode(end.error).get("step")
    return name if isinstance(name, str) else None


def _named(steps: Sequence[StepRow]) -> str:
    keys = [step.key for step in sorted(steps, key=lambda step: step.seq) if step.kind != StepKind.END]
    if not keys:
        return "none of its steps was recorded"
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return f"it has {', '.join(repr(key) for key in keys[:_NAMED])}{more}"
