"""Queue items and lanes: placing, leasing, parking, claiming. Pure; everything goes through the overlay."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from holdfast.base.duration import duration_text
from holdfast.core.flow import GateKind
from holdfast.core.gates import (
    Shut,
    blocked_lane,
    gates_of,
    lane_gates,
    open_to,
    release,
    shut,
    take,
    used,
    waiting_lane,
    wake_lanes,
)
from holdfast.core.plan import DueTimers, Plan, Read, ReadyItems, Tx
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
            # an earlier plan of the group may have let an item wait in a lane that was not looked into
            row = None if item.lane in tx.scanned else tx.get(LaneRow, item.lane)
            if row is None or not row.blocked:
                lanes.setdefault(item.lane, []).append(item)
        stops = self._round_robin(tx, lanes, leased)
        for lane, more in tx.scanned.items():
            row = tx.get(LaneRow, lane)
            turn = tx.now if row is None else max(tx.now, row.turn + 1)
            if lanes.get(lane) or more:
                tx.put(blocked_lane(tx, lane, turn, stops.get(lane)))
            elif row is not None:
                tx.delete(LaneRow, lane)
        self._pass_on(tx)
        self._stage(tx, leased)
        return leased

    def _round_robin(self, tx: Tx, lanes: dict[str, list[ItemRow]], leased: list[Leased]) -> dict[str, Shut]:
        turn = list(lanes)
        absent: list[ItemRow] = []
        stops: dict[str, Shut] = {}
        while turn and tx.room > 0:
            for lane in list(turn):
                items = lanes[lane]
                if not items or tx.room <= 0:
                    turn.remove(lane)
                    continue
                item = items[0]
                run = tx.get(RunRow, item.run_id)
                if run is None or run.ended_at is not None:
                    tx.delete(ItemRow, item.id)
                elif run.function_id not in tx.functions:
                    absent.append(item)
                elif (stop := shut(tx, gates_of(tx, run))) is not None:
                    stops[lane] = stop
                    turn.remove(lane)
                    continue
                else:
                    lease(tx, run, item, leased)
                    if lane == SUSPECT_LANE:
                        turn.remove(lane)
                items.pop(0)
        # suspects of an app that isn't here now stay where they are, and keep their lane
        for item in absent:
            lanes[item.lane].append(item)
        return stops

    def _pass_on(self, tx: Tx) -> None:
        """A lane that was woken and didn't take the place it was woken for leaves it to the next that waits for it."""
        gates = {gate.id: gate for lane in tx.scanned for gate in lane_gates(tx, lane)}
        for gate in gates.values():
            if gate.kind != GateKind.THROTTLE:
                wake_lanes(tx, gate.id, gate.limit - used(tx, gate.id))

    def _stage(self, tx: Tx, leased: list[Leased]) -> None:
        for item in tx.find(DueTimers(self.limit)):
            run = tx.get(RunRow, item.run_id)
            if run is None or run.ended_at is not None:
                tx.delete(ItemRow, item.id)
            elif goes_at_once(tx, run, item):
                lease(tx, run, item, leased)
            else:
                line_up(tx, item, run)


def goes_at_once(tx: Tx, run: RunRow, item: ItemRow) -> bool:
    """Whether there is room for a run now and nobody waits ahead of it."""
    if tx.room <= 0 or tx.backlog or item.crashes or run.function_id not in tx.functions:
        return False
    return open_to(tx, run, gates_of(tx, run))


class Recover(Plan[int]):
    """At start: what an earlier boot was executing when it died becomes suspect."""

    __slots__ = ("items",)
    patient = False

    def __init__(self, items: list[ItemRow]) -> None:
        self.then = None
        self.items = items

    def reads(self) -> Iterable[Read]:
        reads: list[Read] = [(ItemRow, item.id) for item in self.items]
        reads.append((LaneRow, SUSPECT_LANE))
        return reads

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
                held = release(tx, current.held, ended=False)
                line_up(tx, replace(current, crashes=current.crashes + 1, held=held))
                recovered += 1
        return recovered


class OpenLanes(Plan[None]):
    """Let lanes look at their gates again: a limit was changed."""

    __slots__ = ("lanes",)

    def __init__(self, lanes: tuple[str, ...]) -> None:
        self.then = None
        self.lanes = lanes

    def reads(self) -> Iterable[Read]:
        return [(LaneRow, lane) for lane in self.lanes]

    def decide(self, tx: Tx) -> None:
        for lane in self.lanes:
            row = tx.get(LaneRow, lane)
            if row is not None and row.blocked:
                tx.put(replace(row, blocked=0, until=0, gate=""))
