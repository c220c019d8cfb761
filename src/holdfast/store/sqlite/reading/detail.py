"""Everything about one run."""

from __future__ import annotations

import sqlite3
from itertools import groupby

from holdfast.core.rows import ItemState
from holdfast.store.reads import QueueView, RunDetail, StepView
from holdfast.store.sqlite.reading import statements as sql
from holdfast.store.sqlite.reading.views import attempt_view, event_view, log_view, queue_view, run_view, step_view

MAX_LOGS = 5000
"""Log lines shown of a run: the newest."""
MAX_CHILDREN = 1000


def run_detail(conn: sqlite3.Connection, run_id: bytes) -> RunDetail | None:
    """A run with all that is recorded of it; None when there is no such run."""
    found = conn.execute(sql.RUNS_BY_ID.format(marks="?"), (run_id,)).fetchone()
    if found is None:
        return None
    event = conn.execute(sql.EVENT, (found[5],)).fetchone()
    attempts = {
        key: tuple(attempt_view(row) for row in rows)
        for key, rows in groupby(conn.execute(sql.ATTEMPTS, (run_id,)).fetchall(), key=lambda row: row[0])
    }
    steps = [step_view(row, attempts.get(row[0], ())) for row in conn.execute(sql.STEPS, (run_id,)).fetchall()]
    steps.sort(key=_order)
    end = steps[-1] if steps and steps[-1].kind == "end" else None
    return RunDetail(
        run=run_view(found),
        event=None if event is None else event_view(event),
        steps=tuple(steps),
        function_attempts=attempts.get("", ()),
        logs=tuple(log_view(row) for row in conn.execute(sql.LOGS, (run_id, MAX_LOGS))),
        queue=_queue(conn, run_id),
        output=None if end is None or end.error is not None else end.data,
        error=None if end is None else end.error,
        children=tuple(run_view(row) for row in conn.execute(sql.CHILDREN, (run_id, MAX_CHILDREN))),
        # a note made again after a restart is the same note
        notes=tuple(dict.fromkeys(row[0] for row in conn.execute(sql.NOTES, (run_id,)))),
    )


def _order(step: StepView) -> tuple[int, int, int, str]:
    place = 2 if step.kind == "end" else 1 if step.state == "pending" else 0
    return (place, step.seq if place != 1 else 0, step.started_at, step.key)


def _queue(conn: sqlite3.Connection, run_id: bytes) -> QueueView | None:
    item = conn.execute(sql.ITEM, (run_id, run_id + b"\xff" * 24)).fetchone()
    if item is None:
        return None
    item_id, state, _, lane, rank, _, _ = item
    ahead = conn.execute(sql.AHEAD, (lane, rank, item_id)).fetchone()[0] if state == ItemState.READY else None
    return queue_view(item, None if ahead is None else ahead + 1)
