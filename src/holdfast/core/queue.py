"""Queue items and lanes: placing, leasing, parking, claiming. Pure; everything goes through the overlay."""

from __future__ import annotations

from typing import Protocol

import msgspec

from holdfast.base.duration import duration_text
from holdfast.core.gates import (
    blocked_lane,
    gates_of,
    open_to,
    shut,
    take,
    waiting_lane,
)
from holdfast.core.plan import Tx
from holdfast.core.rows import (
    SUSPECT_LANE,
    AlarmKind,
    AlarmRow,
    EventRow,
    ItemRow,
    ItemState,
    LaneRow,
    RunRow,
    RunStatus,
)

replace = msgspec.structs.replace


class Leased(msgspec.Struct, gc=False):
    """A run this node is to execute, as the commit left it."""

    run: RunRow
    item: ItemRow
    event: EventRow | None = None
    """Its event, when it came in the same plan; otherwise it is read."""
    batch: list[EventRow] = []
    """The events of a batch, once they are read."""


class Outcome(msgspec.Struct, gc=False):
    """What a decision sets going."""

    leased: list[Leased] = msgspec.field(default_factory=list)
    due: int | None = None
    """When the first of what it puts off is due."""

    def arm(self, due: int) -> None:
        """Something is due at this moment."""
        self.due = due if self.due is None else min(due, self.due)


class Goings(Protocol):
    """An `Outcome`, or what has more in it."""

    leased: list[Leased]

    def arm(self, due: int) -> None: ...


def lease(tx: Tx, run: RunRow, item: ItemRow, leased: list[Leased], event: EventRow | None = None) -> None:
    """Give an item to this node: its gates are open. The lease is counted before anything executes."""
    tx.room -= 1
    gates = gates_of(tx, run)
    held = take(tx, gates, item.held) if gates else item.held
    lane = run.lane
    item = replace(item, state=ItemState.LEASED, lane=lane, owner=tx.owner, epoch=item.epoch + 1, woken=0, held=held)
    if run.started_at is None or run.status != RunStatus.RUNNING:
        if run.started_at is None:
            set_alarms(tx, run)
        run = replace(run, status=RunStatus.RUNNING, started_at=tx.now if run.started_at is None else run.started_at)
    tx.put(item)
    tx.put(run)
    leased.append(Leased(run, item, event))


def set_alarms(tx: Tx, run: RunRow) -> None:
    """A run starts: it can't be late for its start any more, and its end may have a limit."""
    flow = tx.flows.get(run.function_id) if tx.flows else None
    if flow is None:
        return
    if flow.start_timeout is not None:
        tx.delete(AlarmRow, (run.id, AlarmKind.START))
    if flow.finish_timeout is not None:
        tx.put(AlarmRow(run.id, AlarmKind.FINISH, tx.now + flow.finish_timeout, finish_reason(flow.finish_timeout)))


def finish_reason(ms: int) -> str:
    """Why a run is cancelled that takes too long."""
    return f"timed out: it did not finish within {duration_text(ms)}"


def line_up(tx: Tx, item: ItemRow, run: RunRow | None = None) -> None:
    """Let an item wait in its lane."""
    lane = SUSPECT_LANE if item.crashes else item.lane if run is None else waiting_lane(tx, run)
    tx.put(replace(item, state=ItemState.READY, lane=lane, owner=0))
    if tx.get(LaneRow, lane) is None:
        row = blocked_lane(tx, lane, tx.now, shut(tx, gates_of(tx, run)) if run is not None else None)
        tx.put(row)
        tx.backlog = tx.backlog or not row.blocked


def too_late(tx: Tx, run: RunRow) -> bool:
    """Whether a run should have started by now: it is not leased any more, as its alarm cancels it."""
    if run.started_at is not None:
        return False
    alarm = tx.get(AlarmRow, (run.id, int(AlarmKind.START)))
    return alarm is not None and alarm.at <= tx.now


def goes_at_once(tx: Tx, run: RunRow, item: ItemRow) -> bool:
    """Whether there is room for a run now and nobody waits ahead of it."""
    if tx.room <= 0 or tx.backlog or item.crashes or run.function_id not in tx.functions or too_late(tx, run):
        return False
    return open_to(tx, run, gates_of(tx, run))


def set_going(tx: Tx, run: RunRow, item: ItemRow, out: Goings) -> None:
    """Let a run that was parked go on: at once where there is room, else in its lane."""
    if not tx.knows(LaneRow, waiting_lane(tx, run)):
        # it left memory in this very group, which has therefore not read its lane: the next claim has
        tx.put(replace(item, state=ItemState.TIMED, due=tx.now))
        tx.put(run)
        out.arm(tx.now)
    elif goes_at_once(tx, run, item):
        lease(tx, run, item, out.leased)
    else:
        line_up(tx, item, run)
        tx.put(run)
