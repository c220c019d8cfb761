"""Where a run stands in the queue, and what keeps it there."""

from __future__ import annotations

import sqlite3

from holdfast.base.ids import ulid_text
from holdfast.core.flow import Cap, Flow, Gate, GateKind, Rate
from holdfast.core.flow_words import named_gates
from holdfast.core.ingest import CANCEL_KEY
from holdfast.core.rows import SUSPECT_LANE, AlarmKind, ItemState
from holdfast.store.flow_reads import AlarmView, CancelView, GateView, Leased
from holdfast.store.reads import BatchEventView, QueueView
from holdfast.store.sqlite.reading import flow_statements as sql
from holdfast.store.sqlite.reading import statements
from holdfast.store.sqlite.reading.compiled import PAUSES, flow_of
from holdfast.store.sqlite.reading.views import SqlRow, queue_view

MAX_AHEAD = 10_000
"""Places in line are counted up to here."""
MAX_BATCH = 1000
_AFTER_CANCEL_KEY = "\x01cancel;"


def place(conn: sqlite3.Connection, run_id: bytes, function_id: int, leased: Leased, *, started: bool) -> QueueView | None:
    """A live run's place; None when it has none."""
    item = conn.execute(statements.ITEM, (run_id, run_id + b"\xff" * 24)).fetchone()
    if item is None:
        return None
    item_id, state, _, lane, rank, _, _ = item
    if state == ItemState.PARKED and not started:
        # nothing else keeps a run from its start without a time
        return queue_view(item, None, gate=GateView("singleton"))
    if state != ItemState.READY:
        return queue_view(item, None)
    ahead = conn.execute(sql.AHEAD, (lane, rank, item_id, MAX_AHEAD)).fetchone()[0]
    gate = _gate(conn, function_id, lane, ahead, leased)
    return queue_view(item, ahead + 1, more_ahead=ahead == MAX_AHEAD, gate=gate)


def _gate(conn: sqlite3.Connection, function_id: int, lane: str, ahead: int, leased: Leased) -> GateView:
    function = conn.execute(sql.FUNCTION, (function_id,)).fetchone()
    busy = GateView("capacity")
    if function is None:
        return busy
    config, limits, paused = function
    if PAUSES[paused] == "hold":
        return GateView("paused")
    row = conn.execute(sql.LANE, (lane,)).fetchone()
    if row is None or lane == SUSPECT_LANE:
        return busy
    stop = shut_gate(conn, flow_of(function_id, config, limits), lane, row, leased)
    if stop is None:
        return busy
    rule, gate, used = stop
    if not isinstance(rule, Rate):
        return GateView(rule.name, gate.key, used, gate.limit)
    return GateView(rule.name, gate.key, None, gate.limit, row[1] + ahead * gate.period // gate.limit)


def shut_gate(
    conn: sqlite3.Connection, flow: Flow, lane: str, row: SqlRow, leased: Leased
) -> tuple[Cap | Rate, Gate, int] | None:
    """The gate that a lane waits at, with its rule and the places taken; None when it may be served.

    `row` is blocked, until and gate of the lane. A lane may have been written as waiting for a place that is free since: then
    its turn is about to come.
    """
    blocked, _, gate_id = row
    found = named_gates(flow, lane.removesuffix("~"), started=lane.endswith("~")).get(gate_id) if blocked else None
    if found is None:
        return None
    rule, gate = found
    if gate.kind == GateKind.THROTTLE:
        return rule, gate, 0
    used = leased.gates.get(gate_id, 0) if gate.kind == GateKind.LEASE else run_count(conn, gate_id)
    return None if used < gate.limit else (rule, gate, used)


def run_count(conn: sqlite3.Connection, gate_id: str) -> int:
    """Places of a limit of runs that are taken."""
    row = conn.execute(sql.RUN_COUNT, (gate_id,)).fetchone()
    return 0 if row is None else int(row[0])


def alarms(conn: sqlite3.Connection, run_id: bytes) -> tuple[AlarmView, ...]:
    """When a run will be cancelled."""
    return tuple(AlarmView(AlarmKind(kind).name.lower(), at, why) for kind, at, why in conn.execute(sql.ALARMS, (run_id,)))


def cancels(conn: sqlite3.Connection, run_id: bytes) -> tuple[CancelView, ...]:
    """The events that cancel a run."""
    rows = conn.execute(sql.CANCELS, (run_id, CANCEL_KEY, _AFTER_CANCEL_KEY))
    return tuple(CancelView(_name(lookup), _condition(lookup, expression), expires) for lookup, expression, expires in rows)


def _name(lookup: str) -> str:
    return lookup.partition("\0")[0]


def _condition(lookup: str, expression: str | None) -> str:
    _, path, value = (*lookup.split("\0", 2), "", "")[:3]
    return f"{path} is {value}" if path else expression or ""


def batch_events(conn: sqlite3.Connection, run_id: bytes) -> tuple[BatchEventView, ...]:
    """The events of a batch."""
    rows = conn.execute(sql.BATCH_EVENTS, (run_id, MAX_BATCH))
    return tuple(BatchEventView(ulid_text(event_id), name, at) for event_id, name, at in rows)
