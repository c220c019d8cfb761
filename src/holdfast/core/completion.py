"""What a group has to read besides what its plans name: rows that loaded rows point to, and the gates of their runs. Pure."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.core.admission import IDEMPOTENCY
from holdfast.core.flow import GateKind
from holdfast.core.gates import gate_reads, gates_of, held_reads, lane_gates, waiting_lane
from holdfast.core.ingest import CANCEL_KEY
from holdfast.core.plan import LanesAt, Read, Tx
from holdfast.core.progress import step_of_item
from holdfast.core.rows import (
    SUSPECT_LANE,
    AlarmKind,
    AlarmRow,
    DedupeRow,
    GatherRow,
    ItemRow,
    ItemState,
    LaneRow,
    RunRow,
    SingletonRow,
    StepRow,
    WaitRow,
)

RUN_ID_BYTES = 16


def complete(tx: Tx, load: Callable[[Tx, list[Read]], None]) -> None:
    """Load what deciding about the loaded rows looks at: twice, as the second kind of rows follows from the first."""
    pointers = _pointers(tx)
    if pointers:
        load(tx, pointers)
    gates = _gates(tx)
    if gates:
        load(tx, gates)


def _pointers(tx: Tx) -> list[Read]:
    reads: list[Read] = []
    for singleton in tx.loaded(SingletonRow):
        reads.append((RunRow, singleton.run_id))
        if singleton.before is not None:
            reads.append((RunRow, singleton.before))
    reads.extend((RunRow, row.run_id) for row in tx.loaded(DedupeRow) if row.key.startswith(IDEMPOTENCY))
    cancelling = (wait.run_id for wait in tx.loaded(WaitRow) if wait.key.startswith(CANCEL_KEY))
    reads.extend((AlarmRow, (run_id, int(AlarmKind.CANCEL))) for run_id in cancelling)
    for item in tx.loaded(ItemRow):
        if item.state == ItemState.TIMED and len(item.id) > RUN_ID_BYTES:
            reads += [(StepRow, (item.run_id, step_of_item(item.id))), (ItemRow, item.run_id)]
    for alarm in tx.loaded(AlarmRow):
        if alarm.by is not None:
            reads += [(RunRow, alarm.by), (ItemRow, alarm.by)]
    return reads


def _gates(tx: Tx) -> list[Read]:
    reads: list[Read] = []
    for item in tx.loaded(ItemRow):
        if item.held:
            reads.extend(held_reads(item.held))
        run = tx.get(RunRow, item.run_id)
        if run is not None and run.started_at is None:
            reads.extend(_start_alarm(tx, run))
        if run is not None and (item.state != ItemState.LEASED or run.remote is not None):
            reads.append((LaneRow, SUSPECT_LANE if item.crashes else waiting_lane(tx, run)))
            gates = gates_of(tx, run)
            reads.extend(gate_reads(gates))
            if item.crashes:
                reads.extend(LanesAt(gate.id) for gate in gates if gate.kind != GateKind.THROTTLE)
    for gather in tx.loaded(GatherRow):
        flow = tx.flows.get(gather.function_id) if tx.flows and gather.lane else None
        if flow is not None:
            reads.append((LaneRow, gather.lane))
            reads.extend(gate_reads(flow.gates(gather.lane, started=False)))
    for lane in tx.scanned:
        reads.extend(LanesAt(gate.id) for gate in lane_gates(tx, lane) if gate.kind != GateKind.THROTTLE)
    return reads


def _start_alarm(tx: Tx, run: RunRow) -> list[Read]:
    """The alarm that keeps a run from starting late."""
    flow = tx.flows.get(run.function_id) if tx.flows else None
    if flow is None or flow.start_timeout is None:
        return []
    return [(AlarmRow, (run.id, int(AlarmKind.START)))]
