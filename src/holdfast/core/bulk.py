"""Acting on many runs: a slice of a bulk operation, with its progress, in one commit. Pure.

Where an operation stands is one row, and a slice moves that row on in the transaction that changes its runs. So whatever
crashes, each run is acted on once: either the slice is there with its progress, or neither is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any

import msgspec

from holdfast.core.plan import STALE, Plan, Read, Refused, Tx
from holdfast.core.restart import Restart
from holdfast.core.rows import BulkRow, BulkState

replace = msgspec.structs.replace

BEHIND = Refused("behind")
"""Another slice has moved the operation on, or it was cancelled: this one does nothing."""


class Outcome(Enum):
    """What became of one run of a slice."""

    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"


class Act(msgspec.Struct, gc=False):
    """What a slice does with one run: a plan to be decided, or the reason why there is none."""

    run_id: bytes
    plan: Plan[Any] | None = None
    refused: str | None = None
    """Why it can't be done; None and no plan: there is nothing to do."""


class Slice(Plan["Progress"]):
    """Act on the next runs of a bulk operation and move it on behind them."""

    __slots__ = ("acts", "bulk_id", "cursor", "last", "parts", "size")

    def __init__(self, bulk: BulkRow, acts: Sequence[Act], *, last: bool) -> None:
        self.then = None
        self.bulk_id = bulk.id
        self.cursor = bulk.cursor
        self.acts = acts
        self.last = last
        """Whether no run is left after these."""
        self.parts = 1 + len(acts)  # type: ignore[misc]
        self.size = 256 + sum(act.plan.size for act in acts if act.plan is not None)  # type: ignore[misc]

    def reads(self) -> Iterable[Read]:
        reads: list[Read] = [(BulkRow, self.bulk_id)]
        for act in self.acts:
            if act.plan is not None:
                reads.extend(act.plan.reads())
        return reads

    def decide(self, tx: Tx) -> Progress | Refused:
        bulk = tx.get(BulkRow, self.bulk_id)
        if bulk is None or bulk.state != BulkState.RUNNING or bulk.cursor != self.cursor:
            return BEHIND
        answers: list[Any] = []
        counts = dict.fromkeys(Outcome, 0)
        error = bulk.error
        for act in self.acts:
            answer: Any = None if act.plan is None else act.plan.decide(tx)
            outcome = outcome_of(act, answer)
            counts[outcome] += 1
            if outcome is Outcome.FAILED:
                error = act.refused or answer.reason
            answers.append(answer)
        moved = replace(
            bulk,
            done=bulk.done + counts[Outcome.DONE],
            skipped=bulk.skipped + counts[Outcome.SKIPPED],
            failed=bulk.failed + counts[Outcome.FAILED],
            error=error,
            cursor=self.acts[-1].run_id if self.acts else bulk.cursor,
            state=BulkState.DONE if self.last else bulk.state,
            ended_at=tx.now if self.last else None,
        )
        tx.put(moved)
        return Progress(moved, answers)


class Progress(msgspec.Struct, gc=False):
    """Where an operation stands after a slice, and what the plans of the slice answered."""

    bulk: BulkRow
    answers: list[Any]


def outcome_of(act: Act, answer: Any) -> Outcome:
    """What an answer means. False and None are the answers of plans that found nothing to do any more."""
    if act.plan is None:
        return Outcome.SKIPPED if act.refused is None else Outcome.FAILED
    if isinstance(answer, Refused):
        return Outcome.FAILED
    if isinstance(act.plan, Restart) and answer[0] != act.plan.match.run_id:
        return Outcome.SKIPPED  # a dead letter that was redriven already, as that run
    return Outcome.SKIPPED if answer is None or answer is False else Outcome.DONE


class CancelBulk(Plan[BulkRow]):
    """Stop a bulk operation where it stands. Refused when it has ended, or there is none."""

    __slots__ = ("bulk_id",)
    patient = False

    def __init__(self, bulk_id: bytes) -> None:
        self.then = None
        self.bulk_id = bulk_id

    def reads(self) -> Iterable[Read]:
        return ((BulkRow, self.bulk_id),)

    def decide(self, tx: Tx) -> BulkRow | Refused:
        bulk = tx.get(BulkRow, self.bulk_id)
        if bulk is None or bulk.state != BulkState.RUNNING:
            return STALE
        stopped = replace(bulk, state=BulkState.CANCELLED, ended_at=tx.now)
        tx.put(stopped)
        return stopped
