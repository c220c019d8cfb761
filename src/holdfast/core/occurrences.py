"""Deciding cron occurrences: each at most once, none silently. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from holdfast.core.ingest import Accepted, Incoming, accept, reads_of, watched
from holdfast.core.plan import Plan, Read, Refused, Tx
from holdfast.core.rows import CronFireRow, CronRow


class FireCron(Plan[Accepted]):
    """Fire one occurrence, count those that catch-up passes over, and set the next."""

    __slots__ = ("due", "function_id", "incoming", "missed", "next_at", "schedule")

    def __init__(
        self, function_id: int, schedule: str, due: int, missed: list[int], next_at: int, incoming: Incoming
    ) -> None:
        self.then = None
        self.function_id = function_id
        self.schedule = schedule
        self.due = due
        self.missed = missed
        self.next_at = next_at
        self.incoming = incoming

    def reads(self) -> Iterable[Read]:
        return (
            (CronRow, (self.function_id, self.schedule)),
            (CronFireRow, (self.function_id, self.schedule, self.due)),
            *reads_of([self.incoming]),
        )

    def arrivals(self) -> Sequence[Incoming]:
        return (self.incoming,)

    def awaits(self) -> Sequence[str]:
        return watched([self.incoming])

    def decide(self, tx: Tx) -> Accepted | Refused:
        row = tx.get(CronRow, (self.function_id, self.schedule))
        fired = tx.get(CronFireRow, (self.function_id, self.schedule, self.due))
        if row is None or row.next_at > tx.now or fired is not None:
            return Refused("the occurrence has been decided")
        out = Accepted.empty()
        accept(tx, self.incoming, out)
        run_id = self.incoming.matches[0].run_id
        tx.insert(CronFireRow(self.function_id, self.schedule, self.due, run_id, tx.now))
        for moment in self.missed[-50:]:
            tx.put(CronFireRow(self.function_id, self.schedule, moment, None, tx.now))
        tx.put(
            msgspec.structs.replace(row, next_at=self.next_at, last_at=self.due, missed=row.missed + len(self.missed))
        )
        return out


class SetCron(Plan[None]):
    """Bring the schedules of a function in line with its code; a schedule that stays keeps its place in time."""

    __slots__ = ("function_id", "wanted")
    patient = False

    def __init__(self, function_id: int, wanted: dict[str, int], known: Iterable[str]) -> None:
        self.then = None
        self.function_id = function_id
        self.wanted = {schedule: wanted.get(schedule) for schedule in {*wanted, *known}}

    def reads(self) -> Iterable[Read]:
        return [(CronRow, (self.function_id, schedule)) for schedule in self.wanted]

    def decide(self, tx: Tx) -> None:
        for schedule, next_at in self.wanted.items():
            row = tx.get(CronRow, (self.function_id, schedule))
            if next_at is None:
                tx.delete(CronRow, (self.function_id, schedule))
            elif row is None:
                tx.put(CronRow(self.function_id, schedule, next_at))
