"""Starting a run again from one of its steps, with other input or another event. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final
from zlib import crc32

import msgspec

from holdfast.core.ingest import Match
from holdfast.core.machine import headline
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
        return (*super().reads(), StepsOf(self.run_id), (StepRow, (self.run_id, "")))

    def _problem(self, tx: Tx, old: RunRow) -> str | None:
        self._from = None
        if self.event is not None and old.batch:
            return f"it has a batch of {old.batch} events, which can't be replaced by one"
        if self.from_step is None:
            return None
        steps = [step for step in tx.find(StepsOf(self.run_id)) if step.kind != StepKind.END]
        if self.from_step == FAILED_STEP:
            self._from = _failed_step(tx.get(StepRow, (self.run_id, "")), steps)
            if self._from is None:
                return "it did not fail in a step, so there is no input to replace; name the step"
        else:
            self._from = _step_called(self.from_step, steps)
            if self._from is None:
                return f"it has no step {self.from_step!r}; {_named(steps)}"
        if self.input is not None and self._from.kind != StepKind.RUN:
            kind = StepKind(self._from.kind).name.lower()
            return f"step {shown(self._from)!r} is a {kind}, which has no input; only the input of step.run can be replaced"
        return None

    def _event_id(self, old: RunRow) -> bytes:
        return old.event_id if self.event is None else self.event.id

    def _begin(self, tx: Tx, old: RunRow, run: RunRow) -> None:
        if self.event is not None:
            tx.append(self.event)
        super()._begin(tx, old, run)

    def _copy_steps(self, tx: Tx, run: RunRow) -> None:
        step = self._from
        if step is None:
            super()._copy_steps(tx, run)
            return
        for one in tx.find(StepsOf(self.run_id)):
            if _kept(one, step, redrive=self.redrive):
                tx.insert(replace(one, run_id=run.id))
                run.steps = max(run.steps, one.seq)
        said = f"it begins at step {shown(step)!r} of the run it repeats"
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


def shown(step: StepRow) -> str:
    """What a person calls a step: its key is a hash where an application was called."""
    return step.name or step.key


def _step_called(name: str, steps: Sequence[StepRow]) -> StepRow | None:
    by_key = next((step for step in steps if step.key == name), None)
    return by_key or min((step for step in steps if step.name == name), key=_order, default=None)


def _failed_step(end: StepRow | None, steps: Sequence[StepRow]) -> StepRow | None:
    """The step that the function failed by: the end names it, or an application's failure is that of its step."""
    if end is None or end.error is None:
        return None
    name = msgspec.json.decode(end.error).get("step")
    if isinstance(name, str):
        return next((step for step in steps if step.key == name), None)
    failure = headline(end.error)
    failed = [step for step in steps if step.name and step.error is not None and headline(step.error) == failure]
    return max(failed, key=_order, default=None)


def _order(step: StepRow) -> int:
    return step.seq


def _named(steps: Sequence[StepRow]) -> str:
    keys = [shown(step) for step in sorted(steps, key=_order)]
    if not keys:
        return "none of its steps was recorded"
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return f"it has {', '.join(repr(key) for key in keys[:_NAMED])}{more}"
