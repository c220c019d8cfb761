"""Counts, rates and percentiles over a period.

Runs are counted by when they were queued, which their ids tell without an index of its own; failures by when they
happened, so that a run that waited a week and failed now shows now.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path

from holdfast.core.rows import SUSPECT_LANE, RunStatus
from holdfast.store.reads import Backlog, FunctionStats, Overview
from holdfast.store.sqlite.reading import statements as sql
from holdfast.store.sqlite.reading.listing import first_id, runs_by_id
from holdfast.store.sqlite.reading.views import SqlRow

MAX_SLICES = 500
MAX_BACKLOG = 100_000
PERCENTILE_RUNS = 1000
"""Completed runs of a function that its percentiles are computed from: the newest of the period."""
RECENT_FAILURES = 10
_NO_FAILURES = (0, None)
_LAST_ID = b"\xff" * 16


def overview(conn: sqlite3.Connection, path: Path, since: int, now: int, slices: int) -> Overview:
    """The counters of the home page."""
    queued, running, waiting, ready, timers, next_timer, *oldest = conn.execute(sql.QUEUE_FIGURES).fetchone()
    buckets = _buckets(conn, since, now, max(1, min(slices, MAX_SLICES)))
    failures = [row[0] for row in conn.execute(sql.LATEST_FAILURES, (since, RECENT_FAILURES))]
    return Overview(
        queued=queued,
        running=running,
        waiting=waiting,
        completed=sum(bucket[1] for bucket in buckets),
        failed=sum(bucket[2] for bucket in buckets),
        cancelled=sum(bucket[3] for bucket in buckets),
        dead=conn.execute(sql.DEAD).fetchone()[0],
        events=conn.execute(sql.EVENTS_RECEIVED, (first_id(since),)).fetchone()[0] or 0,
        backlog=ready,
        oldest_ready_at=_oldest_ready(conn, now, *oldest),
        timers=timers,
        next_timer_at=next_timer,
        store_bytes=store_bytes(path),
        buckets=tuple(buckets),
        recent_failures=tuple(runs_by_id(conn, failures)),
    )


def _oldest_ready(
    conn: sqlite3.Connection, now: int, new: bytes | None, delayed: int | None, woken: int | None
) -> int | None:
    """Since when the first in line waits: queued and never leased, or due after a delay, or woken."""
    moments = [moment for moment in (delayed, woken) if moment is not None]
    if new is not None:
        row = conn.execute(sql.QUEUED_AT, (new,)).fetchone()
        moments += [] if row is None else [row[0]]
    # a rank counts the run's priority in: it may lie ahead
    return min(now, *moments) if moments else None


def _buckets(conn: sqlite3.Connection, since: int, now: int, slices: int) -> list[tuple[int, int, int, int, int]]:
    width = max(1, -(-(now - since) // slices))
    failed: Counter[int] = Counter()
    for index, count in conn.execute(sql.FAILURES_BY_SLICE, (since, width)):
        failed[min(index, slices - 1)] += count
    out = []
    for index in range(slices):
        start = since + index * width
        # the last has no end: what is being written now belongs to it
        end = _LAST_ID if index == slices - 1 else first_id(start + width)
        completed, cancelled, started = conn.execute(sql.SLICE, (first_id(start), end)).fetchone()
        out.append((start, completed, failed[index], cancelled, started))
    return out


def backlog(conn: sqlite3.Connection, function_id: int) -> Backlog:
    """What of a function waits for a place."""
    prefix = f"{function_id}/"
    ready, oldest = conn.execute(sql.BACKLOG, (str(function_id), prefix, f"{function_id}0", MAX_BACKLOG)).fetchone()
    return Backlog(ready, oldest)


def store_bytes(path: Path) -> int:
    """Bytes of the database and of its log."""
    return sum(file.stat().st_size for file in (path, path.with_name(path.name + "-wal")) if file.exists())


def function_stats(conn: sqlite3.Connection, since: int) -> list[FunctionStats]:
    """Every function of the apps' code, and those no longer in it that ran within the period."""
    first = first_id(since)
    live: dict[int, tuple[int, int]] = {}
    for function_id, active, recent in conn.execute(sql.LIVE_BY_FUNCTION, (first, SUSPECT_LANE)):
        known = live.get(function_id, (0, 0))
        live[function_id] = (known[0] + active, known[1] + recent)
    ended: dict[int, Counter[int]] = {}
    for function_id, status, count in conn.execute(sql.ENDED_BY_FUNCTION, (first,)):
        ended.setdefault(function_id, Counter())[status] = count
    failures = {row[0]: (row[1], row[2]) for row in conn.execute(sql.FAILURES_BY_FUNCTION, (since,))}
    out = []
    for row in conn.execute(sql.FUNCTIONS).fetchall():
        function_id, archived = row[0], row[6]
        unfinished, failed = live.get(function_id, (0, 0)), failures.get(function_id, _NO_FAILURES)
        stats = _stats_of(conn, row, first, unfinished, ended.get(function_id, Counter()), failed)
        if not archived or stats.started or stats.active:
            out.append(stats)
    return out


def _stats_of(
    conn: sqlite3.Connection,
    function: SqlRow,
    first: bytes,
    live: tuple[int, int],
    ended: Counter[int],
    failures: tuple[int, str | None],
) -> FunctionStats:
    function_id, app, slug, name, *_ = function
    started = conn.execute(sql.STARTED, (function_id, first)).fetchone()[0]
    last = conn.execute(sql.LAST_RUN, (function_id,)).fetchone()
    # only runs that didn't complete are indexed by status: the rest completed
    completed = max(0, started - ended.total() - live[1])
    p50, p95 = conn.execute(sql.PERCENTILES, (function_id, first, PERCENTILE_RUNS)).fetchone()
    return FunctionStats(
        function_id=function_id,
        function=slug,
        function_name=name,
        app=app,
        started=started,
        completed=completed,
        failed=failures[0],
        cancelled=ended[RunStatus.CANCELLED],
        active=live[0],
        p50_ms=p50,
        p95_ms=p95,
        last_run_at=None if last is None else last[0],
        last_error=failures[1],
    )
