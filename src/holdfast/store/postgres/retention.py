"""Removing what is past its time, a slice at a time. Live runs and what they need are never touched."""

from __future__ import annotations

from holdfast.store.postgres.connection import Connection
from holdfast.store.postgres.statements import Statements

_SLICE = 500

_RUNS = """
SELECT id, ended_at IS NOT NULL AND ended_at < %s AND NOT EXISTS
  (SELECT 1 FROM {s}dead_letters d WHERE d.run_id = runs.id AND d.at >= %s)
FROM {s}runs WHERE id > %s AND id < %s ORDER BY id LIMIT %s
"""
_EVENTS = """
SELECT id, NOT EXISTS (SELECT 1 FROM {s}runs WHERE runs.event_id = events.id)
  AND NOT EXISTS (SELECT 1 FROM {s}batch_events b WHERE b.event_id = events.id)
  AND NOT EXISTS (SELECT 1 FROM {s}gathers g WHERE g.event_id = events.id)
FROM {s}events WHERE id > %s AND id < %s ORDER BY id LIMIT %s
"""
_OLD_IDS = """
DELETE FROM {s}dedupe AS d USING (SELECT function_id, key FROM {s}dedupe WHERE expires < %s LIMIT %s FOR UPDATE SKIP LOCKED) AS o
WHERE d.function_id = o.function_id AND d.key = o.key
"""
_OLD_FIRES = "DELETE FROM {s}cron_fires WHERE at < %s"
_OLD_BULKS = "DELETE FROM {s}bulk_operations WHERE ended_at < %s"
_OLD_WINDOWS = "DELETE FROM {s}windows WHERE expires < %s"
_OLD_THROTTLES = "DELETE FROM {s}throttles WHERE tat < %s"
_SINGLETONS = """
WITH slice AS (SELECT * FROM {s}singletons WHERE (function_id, key) > (%s, %s) ORDER BY function_id, key LIMIT %s),
gone AS (
  DELETE FROM {s}singletons s USING slice WHERE s.function_id = slice.function_id AND s.key = slice.key
    AND s.run_id = slice.run_id AND NOT EXISTS (SELECT 1 FROM {s}runs r WHERE r.id = s.run_id AND r.ended_at IS NULL)
)
SELECT function_id, key FROM slice ORDER BY function_id, key
"""
_OF_RUN = ("steps", "attempts", "waits", "logs", "notes", "progress", "dead_letters", "batch_events")
_THROTTLE_MEMORY_US = 7 * 86_400_000_000
"""After this a throttle with any period and burst in use has nothing left to remember."""


class Pruner:
    """Goes through what is old, from the oldest on, a bounded slice at a time."""

    def __init__(self, statements: Statements) -> None:
        self._sql = statements
        self._run = b""
        self._event = b""
        self._singleton: tuple[int, str] = (0, "")

    def prune(self, conn: Connection, now: int, runs_ms: int, dead_letters_ms: int) -> bool:
        """Go through one slice; whether there is more to go through now. The pass after the last begins anew.

        Args:
            conn: A connection outside a transaction.
            now: The time.
            runs_ms: How long a run is kept after its end, and an event after its arrival.
            dead_letters_ms: How long a run is kept that is a dead letter.
        """
        horizon = now - runs_ms
        with conn.transaction():
            # events after runs: one that a run still needs is kept
            more = self._runs(conn, horizon, now - dead_letters_ms)
            more = more or self._events(conn, horizon)
            more = conn.execute(self._sql.sql(_OLD_IDS), (now, _SLICE)).rowcount == _SLICE or more
            conn.execute(self._sql.sql(_OLD_FIRES), (horizon,))
            conn.execute(self._sql.sql(_OLD_BULKS), (horizon,))
            conn.execute(self._sql.sql(_OLD_WINDOWS), (now,))
            conn.execute(self._sql.sql(_OLD_THROTTLES), (now * 1000 - _THROTTLE_MEMORY_US,))
            return self._singletons(conn) or more

    def _runs(self, conn: Connection, horizon: int, dead_horizon: int) -> bool:
        found = conn.execute(
            self._sql.sql(_RUNS), (horizon, dead_horizon, self._run, _floor(horizon), _SLICE)
        ).fetchall()
        ids = [run_id for run_id, old in found if old]
        for table in _OF_RUN if ids else ():
            self._delete(conn, table, "run_id", ids)
        self._delete(conn, "runs", "id", ids)
        self._run = found[-1][0] if len(found) == _SLICE else b""
        return len(found) == _SLICE

    def _events(self, conn: Connection, horizon: int) -> bool:
        found = conn.execute(self._sql.sql(_EVENTS), (self._event, _floor(horizon), _SLICE)).fetchall()
        ids = [event_id for event_id, unused in found if unused]
        self._delete(conn, "skips", "event_id", ids)
        self._delete(conn, "matched_waits", "event_id", ids)
        self._delete(conn, "events", "id", ids)
        self._event = found[-1][0] if len(found) == _SLICE else b""
        return len(found) == _SLICE

    def _singletons(self, conn: Connection) -> bool:
        found = conn.execute(self._sql.sql(_SINGLETONS), (*self._singleton, _SLICE)).fetchall()
        self._singleton = (found[-1][0], found[-1][1]) if len(found) == _SLICE else (0, "")
        return len(found) == _SLICE

    def _delete(self, conn: Connection, table: str, column: str, ids: list[bytes]) -> None:
        if ids:
            conn.execute(self._sql.sql(f"DELETE FROM {{s}}{table} WHERE {column} = ANY(%s::bytea[])"), (ids,))


def _floor(ms: int) -> bytes:
    """The smallest id of a moment."""
    return max(ms, 0).to_bytes(6, "big") + bytes(10)
