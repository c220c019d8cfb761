"""Everything about one run."""

from __future__ import annotations

import sqlite3
from itertools import groupby

from holdfast.store.flow_reads import NOTHING_LEASED, Leased
from holdfast.store.reads import RunDetail, StepView
from holdfast.store.sqlite.reading import statements as sql
from holdfast.store.sqlite.reading.line import alarms, batch_events, cancels, place
from holdfast.store.sqlite.reading.views import attempt_view, event_view, log_view, run_view, step_view

MAX_LOGS = 5000
"""Log lines shown of a run: the newest."""
MAX_CHILDREN = 1000


def run_detail(conn: sqlite3.Connection, run_id: bytes, leased: Leased = NOTHING_LEASED) -> RunDetail | None:
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
    run = run_view(found)
    live = run.ended_at is None
    return RunDetail(
        run=run,
        event=None if event is None else event_view(event),
        steps=tuple(steps),
        function_attempts=attempts.get("", ()),
        logs=tuple(log_view(row) for row in conn.execute(sql.LOGS, (run_id, MAX_LOGS))),
        queue=place(conn, run_id, run.function_id, leased, started=run.started_at is not None) if live else None,
        output=None if end is None or end.error is not None else end.data,
        error=None if end is None else end.error,
        children=tuple(run_view(row) for row in conn.execute(sql.CHILDREN, (run_id, MAX_CHILDREN))),
        # a note made again after a restart is the same note
        notes=tuple(dict.fromkeys(row[0] for row in conn.execute(sql.NOTES, (run_id,)))),
        alarms=alarms(conn, run_id) if live else (),
        cancels=cancels(conn, run_id) if live else (),
        batch_events=batch_events(conn, run_id) if run.batch else (),
    )


def _order(step: StepView) -> tuple[int, int, int, str]:
    place = 2 if step.kind == "end" else 1 if step.state == "pending" else 0
    return (place, step.seq if place != 1 else 0, step.started_at, step.key)
