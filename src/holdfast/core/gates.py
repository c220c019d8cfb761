"""Passing gates: concurrency limits and throttles, as counts in rows. Pure; everything goes through the overlay.

A lane whose first run finds a gate shut is blocked at that gate, and a place given back wakes the lane that has waited there
longest. A claim therefore never looks at what can't be started (docs/architecture.md, "The queue").
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from holdfast.core.flow import CONTINUING, Gate, GateKind, lane_function
from holdfast.core.plan import LanesAt, Read, Tx
from holdfast.core.rows import (
    SUSPECT_LANE,
    LaneRow,
    LeaseCountRow,
    Row,
    RunCountRow,
    RunRow,
    ThrottleRow,
)

replace = msgspec.structs.replace

NO_GATES: tuple[Gate, ...] = ()
_COUNTS: dict[str, type[LeaseCountRow | RunCountRow]] = {"l": LeaseCountRow, "r": RunCountRow}
_US = 1000
_SKEW_US = 250_000
"""By how much the clocks of nodes may differ, which follow one database's, and by how long a decision may have waited."""


class Shut(msgspec.Struct, frozen=True, gc=False):
    """A gate that doesn't let a run pass now."""

    gate: Gate
    until: int = 0
    """When it opens by itself; 0 where somebody has to give a place back."""


def gates_of(tx: Tx, run: RunRow) -> tuple[Gate, ...]:
    """What a run has to pass to be leased."""
    flow = tx.flows.get(run.function_id) if tx.flows else None
    return NO_GATES if flow is None else flow.gates(run.lane, started=run.started_at is not None)


def waiting_lane(tx: Tx, run: RunRow) -> str:
    """Where a run lines up."""
    flow = tx.flows.get(run.function_id) if tx.flows else None
    return run.lane if flow is None else flow.waiting_lane(run)


def gate_reads(gates: Iterable[Gate]) -> list[Read]:
    """The rows that passing these gates looks at."""
    return [(ThrottleRow if gate.kind == GateKind.THROTTLE else _COUNTS[gate.id[0]], gate.id) for gate in gates]


def held_reads(held: str) -> list[Read]:
    """The rows that giving back these places looks at."""
    reads: list[Read] = []
    for gate in held.split("\n"):
        reads.append((_COUNTS[gate[0]], gate))
        reads.append(LanesAt(gate))
    return reads


# -- passing ---------------------------------------------------------------------------------------------------------


def shut(tx: Tx, gates: Sequence[Gate]) -> Shut | None:
    """The first of these gates that a run can't pass now; None when all are open."""
    for gate in gates:
        if gate.kind == GateKind.THROTTLE:
            until = _throttled_until(tx, gate)
            if until:
                return Shut(gate, until)
        elif used(tx, gate.id) >= gate.limit:
            return Shut(gate)
    return None


def used(tx: Tx, gate_id: str) -> int:
    """How many places of a gate are taken."""
    row = tx.get(_COUNTS[gate_id[0]], gate_id)
    return 0 if row is None else row.used


def take(tx: Tx, gates: Sequence[Gate], held: str = "") -> str:
    """Pass gates that are open; what is held now, for `ItemRow.held`."""
    ids = held.split("\n") if held else []
    for gate in gates:
        if gate.kind == GateKind.THROTTLE:
            _count_start(tx, gate)
        else:
            _add(tx, gate.id, 1)
            ids.append(gate.id)
    return "\n".join(ids)


def _add(tx: Tx, gate_id: str, change: int) -> None:
    cls: type[LeaseCountRow | RunCountRow] = _COUNTS[gate_id[0]]
    count = used(tx, gate_id) + change
    if count > 0:
        row: Row = cls(gate_id, count)
        tx.put(row)
    elif tx.get(cls, gate_id) is not None:
        tx.delete(cls, gate_id)


def _throttled_until(tx: Tx, gate: Gate) -> int:
    """When the next start may be, in ms; 0 if now. GCRA: `limit` starts a period, evenly, and `burst` beyond that at once."""
    interval = gate.period * _US // gate.limit
    opens = _arrival(tx, gate, interval) - interval * gate.burst
    return 0 if opens <= tx.now * _US else -(-opens // _US)


def _count_start(tx: Tx, gate: Gate) -> None:
    interval = gate.period * _US // gate.limit
    tx.put(ThrottleRow(gate.id, max(_arrival(tx, gate, interval), tx.now * _US) + interval))


def _arrival(tx: Tx, gate: Gate, interval: int) -> int:
    """The theoretical arrival time, in µs. One further ahead than this limit can bring it is from a slower limit that was in
    force before, or from before the clock was set back: it would hold starts up for as long, so the next may be now. A little
    further, it is from a node whose clock is ahead of this one's, and counts.
    """
    row = tx.get(ThrottleRow, gate.id)
    if row is None:
        return 0
    now = tx.now * _US
    furthest = now + interval * (gate.burst + 1) + _SKEW_US
    return row.tat if row.tat <= furthest else now + interval * gate.burst


# -- giving back -------------------------------------------------------------------------------------------------------


def release(tx: Tx, held: str, *, ended: bool) -> str:
    """Give back the places of a lease, and of a run that has ended; what is still held."""
    if not held:
        return ""
    kept = []
    for gate_id in held.split("\n"):
        if ended or gate_id[0] == "l":
            _add(tx, gate_id, -1)
            wake_lanes(tx, gate_id, 1)
        else:
            kept.append(gate_id)
    return "\n".join(kept)


def release_one(tx: Tx, held: str, gates: Sequence[Gate]) -> str:
    """Give back one place of each of these gates; what is still held."""
    ids = held.split("\n")
    for gate in gates:
        if gate.id in ids:
            ids.remove(gate.id)
            _add(tx, gate.id, -1)
            wake_lanes(tx, gate.id, 1)
    return "\n".join(ids)


def wake_lanes(tx: Tx, gate_id: str, count: int) -> None:
    """Let the lanes that have waited longest at a gate have their turn again: so many that can take a place here and now.

    Lanes of functions that are held or not here are woken on the way; they look at the gate when they are.
    """
    if count <= 0:
        return
    waiting = tx.found_before(LanesAt(gate_id))
    if len(waiting) < count:
        waiting = tx.find(LanesAt(gate_id))
    waiting.sort(key=_turn)
    for lane in waiting:
        tx.put(replace(lane, blocked=0, gate=""))
        if lane.lane == SUSPECT_LANE or lane_function(lane.lane) in tx.functions:
            tx.backlog = True
            count -= 1
            if count == 0:
                return


def _turn(lane: LaneRow) -> int:
    return lane.turn


# -- lining up ---------------------------------------------------------------------------------------------------------


def blocked_lane(tx: Tx, lane: str, turn: int, stop: Shut | None) -> LaneRow:
    """The row of a lane whose first run finds this gate shut, or none."""
    if stop is None:
        return LaneRow(lane, turn)
    if stop.until:
        return LaneRow(lane, turn, 2, stop.until, stop.gate.id)
    return LaneRow(lane, turn, 1, 0, stop.gate.id)


def open_to(tx: Tx, run: RunRow, gates: Sequence[Gate]) -> bool:
    """Whether a run may be leased at once: its gates are open and nobody waits ahead of it in its lane."""
    return not gates or (tx.get(LaneRow, waiting_lane(tx, run)) is None and shut(tx, gates) is None)


def lane_gates(tx: Tx, lane: str) -> tuple[Gate, ...]:
    """What the runs of a lane have to pass; those of suspects have nothing in common."""
    flow = tx.flows.get(lane_function(lane)) if tx.flows and lane != SUSPECT_LANE else None
    if flow is None:
        return NO_GATES
    return flow.gates(lane.removesuffix(CONTINUING), started=lane.endswith(CONTINUING))
