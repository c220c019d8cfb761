"""Queue items and lanes: placing, leasing, parking, claiming. Pure; everything goes through the overlay."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from holdfast.core.plan import DueTimers, Plan, Read, ReadyItems, Tx
from holdfast.core.rows import SUSPECT_LANE, EventRow, ItemRow, ItemState, LaneRow, RunRow, RunStatus

replace = msgspec.structs.replace


class Leased(msgspec.Struct, gc=False):
    """A run this node is to execute, as the commit left it."""

    run: RunRow
    item: ItemRow
    event: EventRow | None = None
    """Its event, when it came in the same plan; otherwise it is read."""


def lease(tx: Tx, run: RunRow, item: ItemRow, leased: list[Leased], event: EventRow | None = None) -> None:
    """Give an item to this node. The lease is counted before anything executes."""
    tx.room -= 1
    item = replace(item, state=ItemState.LEASED, lane=run.lane, owner=tx.owner, epoch=item.epoch + 1, woken=0)
    if run.started_at is None or run.status != RunStatus.RUNNING:
        run = replace(run, status=RunStatus.RUNNING, started_at=tx.now if run.started_at is None else run.started_at)
    tx.put(item)
    tx.put(run)
    leased.append(Leased(run, item, event))


def line_up(tx: Tx, item: ItemRow) -> None:
    """Let an item wait in its lane."""
    lane = SUSPECT_LANE if item.crashes else item.lane
    tx.put(replace(item, state=ItemState.READY, lane=lane, owner=0))
    tx.backlog = True
    if tx.get(LaneRow, lane) is None:
        tx.put(LaneRow(lane, tx.now))


class Claim(Plan[list[Leased]]):
    """Lease what is ready, lane by lane in turn, then stage the timers that are due."""

    __slots__ = ("limit", "read", "suspect")

    def __init__(self, limit: int, functions: frozenset[int], *, suspect: bool) -> None:
        self.then = None
        self.limit = limit
        self.suspect = suspect
        """Whether no suspect is being executed, so that one may be claimed."""
        self.read = ReadyItems(limit, functions, suspect)

    def reads(self) -> Iterable[Read]:
        return (self.read, DueTimers(self.limit))

    def decide(self, tx: Tx) -> list[Leased]:
        leased: list[Leased] = []
        lanes: dict[str, list[ItemRow]] = {}
        for item in tx.find(self.read):
            lanes.setdefault(item.lane, []).append(item)
        self._round_robin(tx, lanes, leased)
        for lane, more in tx.scanned.items():
            row = tx.get(LaneRow, lane)
            if lanes.get(lane) or more:
                tx.put(LaneRow(lane, tx.now if row is None else max(tx.now, row.turn + 1)))
            elif row is not None:
                tx.delete(LaneRow, lane)
        self._stage(tx, leased)
        return leased

    def _round_robin(self, tx: Tx, lanes: dict[str, list[ItemRow]], leased: list[Leased]) -> None:
        turn = list(lanes)
        absent: list[ItemRow] = []
        while turn and tx.room > 0:
            for lane in list(turn):
                items = lanes[lane]
                if not items or tx.room <= 0:
                    turn.remove(lane)
                    continue
                item = items.pop(0)
                run = tx.get(RunRow, item.run_id)
                if run is None or run.ended_at is not None:
                    tx.delete(ItemRow, item.id)
                    continue
                if run.function_id not in tx.functions:
                    absent.append(item)
                    continue
                lease(tx, run, item, leased)
                if lane == SUSPECT_LANE:
                    turn.remove(lane)
        # suspects of an app that isn't here now stay where they are, and keep their lane
        for item in absent:
            lanes[item.lane].append(item)

    def _stage(self, tx: Tx, leased: list[Leased]) -> None:
        backlog = tx.backlog
        for item in tx.find(DueTimers(self.limit)):
            run = tx.get(RunRow, item.run_id)
            if run is None or run.ended_at is not None:
                tx.delete(ItemRow, item.id)
            elif tx.room > 0 and not backlog and not item.crashes and run.function_id in tx.functions:
                lease(tx, run, item, leased)
            else:
                line_up(tx, item)


class Recover(Plan[int]):
    """At start: what an earlier boot was executing when it died becomes suspect."""

    __slots__ = ("items",)
    patient = False

    def __init__(self, items: list[ItemRow]) -> None:
        self.then = None
        self.items = items

    def reads(self) -> Iterable[Read]:
        return [(ItemRow, item.id) for item in self.items]

    def decide(self, tx: Tx) -> int:
        recovered = 0
        for item in self.items:
            current = tx.get(ItemRow, item.id)
            # where several nodes recover, or the executor lives after all, it may have moved on
            if current is not None and (current.state, current.owner, current.epoch) == (
                ItemState.LEASED,
                item.owner,
                item.epoch,
            ):
                line_up(tx, replace(current, crashes=current.crashes + 1))
                recovered += 1
        return recovered
