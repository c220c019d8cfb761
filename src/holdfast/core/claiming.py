"""Claiming: leasing what is ready, lane by lane in turn, and what was timed and is due. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from holdfast.core.flow import GateKind
from holdfast.core.gates import Shut, blocked_lane, gates_of, lane_gates, release, shut, used, wake_lanes
from holdfast.core.plan import DueTimers, Plan, Read, ReadyItems, Tx
from holdfast.core.progress import step_of_item
from holdfast.core.queue import Leased, Outcome, goes_at_once, lease, line_up, too_late
from holdfast.core.remote import TIMED_KINDS, time_is_up
from holdfast.core.rows import SUSPECT_LANE, ItemRow, ItemState, LaneRow, RunRow, StepRow

replace = msgspec.structs.replace


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
        served: set[str] = set()
        stops = self._round_robin(tx, lanes, leased, served)
        for lane, more in tx.scanned.items():
            row = tx.get(LaneRow, lane)
            turn = tx.now if row is None else max(tx.now, row.turn + 1)
            if row is not None and lane in stops and lane not in served:
                turn = row.turn  # what it was woken for went to another: it is still its turn
            if lanes.get(lane) or more:
                tx.put(blocked_lane(tx, lane, turn, stops.get(lane)))
            elif row is not None:
                tx.delete(LaneRow, lane)
        self._pass_on(tx, lanes.get(SUSPECT_LANE, ()))
        self._stage(tx, Outcome(leased))
        return leased

    def _round_robin(
        self, tx: Tx, lanes: dict[str, list[ItemRow]], leased: list[Leased], served: set[str]
    ) -> dict[str, Shut]:
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
                elif too_late(tx, run):
                    tx.put(replace(item, state=ItemState.PARKED))
                elif (stop := shut(tx, gates_of(tx, run))) is not None:
                    stops[lane] = stop
                    turn.remove(lane)
                    continue
                else:
                    lease(tx, run, item, leased)
                    served.add(lane)
                    if lane == SUSPECT_LANE:
                        turn.remove(lane)
                items.pop(0)
        # suspects of an app that isn't here now stay where they are, and keep their lane
        for item in absent:
            lanes[item.lane].append(item)
        return stops

    def _pass_on(self, tx: Tx, suspects: Sequence[ItemRow]) -> None:
        """A lane that was woken and didn't take the place it was woken for leaves it to the next that waits for it."""
        gates = {gate.id: gate for lane in tx.scanned for gate in lane_gates(tx, lane)}
        for item in suspects[:1]:
            run = tx.get(RunRow, item.run_id)
            if run is not None:
                gates.update((gate.id, gate) for gate in gates_of(tx, run))
        for gate in gates.values():
            if gate.kind != GateKind.THROTTLE:
                wake_lanes(tx, gate.id, gate.limit - used(tx, gate.id))

    def _stage(self, tx: Tx, out: Outcome) -> None:
        for item in tx.find(DueTimers(self.limit)):
            run = tx.get(RunRow, item.run_id)
            if run is None or run.ended_at is not None:
                tx.delete(ItemRow, item.id)
            elif (step := _timed_step(tx, run, item)) is not None:
                time_is_up(tx, run, item, step, out)
            elif goes_at_once(tx, run, item):
                lease(tx, run, item, out.leased)
            else:
                line_up(tx, item, run)


def _timed_step(tx: Tx, run: RunRow, item: ItemRow) -> StepRow | None:
    """The step whose result is that a moment has come, if this is its item."""
    if run.remote is None or item.id == run.id:
        return None
    step = tx.get(StepRow, (run.id, step_of_item(item.id)))
    return step if step is not None and step.kind in TIMED_KINDS else None


class Recover(Plan[int]):
    """At start: what an earlier boot was executing when it died becomes suspect."""

    __slots__ = ("items",)
    patient = False

    def __init__(self, items: list[ItemRow]) -> None:
        self.then = None
        self.items = items

    def reads(self) -> Iterable[Read]:
        reads: list[Read] = [(ItemRow, item.id) for item in self.items]
        reads.extend((RunRow, item.run_id) for item in self.items)
        reads.append((LaneRow, SUSPECT_LANE))
        return reads

    def decide(self, tx: Tx) -> int:
        recovered = 0
        for known in self.items:
            item = tx.get(ItemRow, known.id)
            # where several nodes recover, or the executor lives after all, it may have moved on
            if item is None or (item.state, item.owner, item.epoch) != (ItemState.LEASED, known.owner, known.epoch):
                continue
            recovered += 1
            held = release(tx, item.held, ended=False)
            run = tx.get(RunRow, item.run_id)
            if run is not None and run.remote is not None:
                # its code runs in the application: it isn't what took this process down
                tx.put(replace(item, state=ItemState.TIMED, owner=0, held=held, due=0, rank=0))
            else:
                line_up(tx, replace(item, crashes=item.crashes + 1, held=held))
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
