"""How far a run says it is. Pure: what may be said, and the decisions that keep the latest of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec

from holdfast.base.errors import StepUsageError
from holdfast.core.machine import Lease, holds
from holdfast.core.plan import STALE, Plan, Read, Refused, Tx
from holdfast.core.rows import ItemRow, LogRow, ProgressRow, RunRow

MAX_TEXT = 500
"""Characters of a progress text that are kept."""
MAX_LINE = 10_000
"""Characters of a line that a function logged which are kept."""
_ROUNDING = 1e-6


class Progress(msgspec.Struct, frozen=True):
    """How far a run has said it is: `ctx.progress(0.4, "images")`."""

    fraction: float | None
    """From 0 to 1; None when it can't say."""
    text: str
    """What it is at; empty when it didn't say."""
    at: int
    """When it said so, in milliseconds since 1970."""


def checked(fraction: float | None, text: str, at: int) -> Progress:
    """What a function says, as it is kept.

    Raises:
        StepUsageError: the fraction isn't a number from 0 to 1, or the text is no text.
    """
    if not isinstance(text, str):
        raise StepUsageError(f"progress: the text must be a str, not {text!r:.60}; say ctx.progress(0.4, 'images')")
    if fraction is not None:
        number = isinstance(fraction, int | float) and not isinstance(fraction, bool)
        if not number or math.isnan(fraction) or not -_ROUNDING <= fraction <= 1 + _ROUNDING:
            raise StepUsageError(
                f"progress: the fraction must be a number from 0 to 1, or None where it isn't known, not {fraction!r:.60}"
            )
        fraction = min(1.0, max(0.0, float(fraction)))
    clean = text.encode(errors="replace").decode()
    return Progress(fraction, clean if len(clean) <= MAX_TEXT else clean[: MAX_TEXT - 1] + "…", at)


def row_of(run_id: bytes, progress: Progress) -> ProgressRow:
    """The row that keeps it."""
    return ProgressRow(run_id, progress.at, progress.fraction, progress.text)


class Report(Plan[bool]):
    """Keep what the holder of a lease says, where no other write of its takes it along."""

    __slots__ = ("lease", "row")

    def __init__(self, lease: Lease, row: ProgressRow | None) -> None:
        self.then = None
        self.lease = lease
        self.row = row
        """None when it was written already: the plan only tells when that is on disk."""

    def reads(self) -> Iterable[Read]:
        return ((ItemRow, self.lease.item_id), (RunRow, self.lease.run_id)) if self.row is not None else ()

    def decide(self, tx: Tx) -> bool | Refused:
        if self.row is not None:
            if holds(tx, self.lease) is None:
                return STALE
            tx.put(self.row)
        return True


class ReportElsewhere(Plan[bool]):
    """Keep what a run says that is executed by calling its application. False: the run is not there or has ended."""

    __slots__ = ("rows", "run_id")

    def __init__(self, run_id: bytes, rows: Sequence[ProgressRow | LogRow]) -> None:
        self.then = None
        self.run_id = run_id
        self.rows = rows

    def reads(self) -> Iterable[Read]:
        return ((RunRow, self.run_id),)

    def decide(self, tx: Tx) -> bool | Refused:
        run = tx.get(RunRow, self.run_id)
        if run is None or run.ended_at is not None:
            return False
        for row in self.rows:
            tx.put(row)
        return True
