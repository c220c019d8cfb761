"""Recording what was decided about cron occurrences: each at most once, none silently. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from holdfast.core.firing import Decision
from holdfast.core.ingest import Accepted, Incoming, accept, reads_of, watched
from holdfast.core.plan import Plan, Read, Refused, Tx
from holdfast.core.rows import CronFireRow, CronRow

DECIDED = Refused("the occurrence has been decided")


class FireCron(Plan[Accepted]):
    """Fire the occurrences that are to fire, record those that are missed, and set the next."""

    __slots__ = ("decision", "expected", "function_id", "incoming", "schedule")

    def __init__(
        self, function_id: int, schedule: str, expected: int, decision: Decision, incoming: Sequence[Incoming]
    ) -> None:
        self.then = None
        self.function_id = function_id
        self.schedule = schedule
        self.expected = expected
        """The occurrence that was to be decided next when the decision was made."""
        self.decision = decision
        self.incoming = incoming
        """One for each occurrence that fires."""

    def reads(self) -> Iterable[Read]:
        occurrences = (*self.decision.fire, *self.decision.missed)
        key = (self.function_id, self.schedule)
        fires = ((CronFireRow, (*key, occurrence)) for occurrence in occurrences)
        return [(CronRow, key), *fires, *reads_of(self.incoming)]

    def arrivals(self) -> Sequence[Incoming]:
        return self.incoming

    def awaits(self) -> Sequence[str]:
        return watched(self.incoming)

    def decide(self, tx: Tx) -> Accepted | Refused:
        decision = self.decision
        row = tx.get(CronRow, (self.function_id, self.schedule))
        if row is None or row.next_at != self.expected:
            return DECIDED
        out = Accepted.empty()
        last = row.last_at
        for occurrence, incoming in zip(decision.fire, self.incoming, strict=True):
            # a schedule that was removed and came back with the clock set back may have fired it before
            if tx.get(CronFireRow, (self.function_id, self.schedule, occurrence)) is None:
                accept(tx, incoming, out)
                run_id = incoming.matches[0].run_id
                tx.insert(CronFireRow(self.function_id, self.schedule, occurrence, run_id, tx.now))
                last = occurrence
        for occurrence in decision.missed:
            record_missed(tx, self.function_id, self.schedule, occurrence)
        missed = row.missed + decision.missed_count
        tx.put(msgspec.structs.replace(row, next_at=decision.next_at, last_at=last, missed=missed))
        return out


def record_missed(tx: Tx, function_id: int, schedule: str, occurrence: int) -> None:
    """Make a missed occurrence visible, unless it was decided before."""
    if tx.get(CronFireRow, (function_id, schedule, occurrence)) is None:
        tx.put(CronFireRow(function_id, schedule, occurrence, None, tx.now))


class SetCron(Plan[None]):
    """Bring the schedules of a function in line with its code; a schedule that stays keeps its place in time."""

    __slots__ = ("function_id", "known", "wanted")
    patient = False

    def __init__(self, function_id: int, wanted: dict[str, int], known: dict[str, int]) -> None:
        self.then = None
        self.function_id = function_id
        self.wanted = wanted
        """Schedules of the code, with their next occurrences."""
        self.known = known
        """Schedules of the store, with theirs."""

    def reads(self) -> Iterable[Read]:
        schedules = {*self.wanted, *self.known}
        reads: list[Read] = [(CronRow, (self.function_id, schedule)) for schedule in schedules]
        reads += [(CronFireRow, (self.function_id, schedule, next_at)) for schedule, next_at in self.known.items()]
        return reads

    def decide(self, tx: Tx) -> None:
        for schedule, next_at in self.wanted.items():
            if tx.get(CronRow, (self.function_id, schedule)) is None:
                tx.put(CronRow(self.function_id, schedule, next_at))
        for schedule, next_at in self.known.items():
            if schedule not in self.wanted:
                if next_at <= tx.now:
                    # it was due under the old code, which was not running
                    record_missed(tx, self.function_id, schedule, next_at)
                tx.delete(CronRow, (self.function_id, schedule))
