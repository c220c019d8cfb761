"""How a run is doing, in four short reads: no payloads but its event's, no log lines."""

from __future__ import annotations

import sqlite3

import msgspec

from holdfast.core.rows import StepState
from holdfast.store.reads import RunProgress
from holdfast.store.sqlite.reading import statements as sql
from holdfast.store.sqlite.reading.views import attempt_view, event_view, run_view


def run_progress(conn: sqlite3.Connection, run_id: bytes) -> RunProgress | None:
    """A run's progress; None when there is no such run."""
    found = conn.execute(sql.RUNS_BY_ID.format(marks="?"), (run_id,)).fetchone()
    if found is None:
        return None
    run = run_view(found)
    event = conn.execute(sql.EVENT, (found[5],)).fetchone()
    rows = conn.execute(sql.ATTEMPTS, (run_id,)).fetchall()
    failed = {row[0] for row in rows}
    pending = {row[0] for row in conn.execute(sql.PENDING, (run_id, StepState.PENDING))} if failed else set()
    # a later attempt of the function itself leaves no trace before the end, but in what it does
    again = "" in failed and run.status in {"QUEUED", "WAITING"} and not pending
    end = conn.execute(sql.FINAL_ERROR, (run_id,)).fetchone()
    attempts = sorted((attempt_view(row) for row in rows), key=lambda attempt: attempt.ended_at)
    return RunProgress(
        run=run,
        event=None if event is None else event_view(event),
        attempts=tuple(attempts),
        retrying=run.ended_at is None and (again or not failed.isdisjoint(pending)),
        error=None if end is None else msgspec.json.decode(end[0]),
    )
