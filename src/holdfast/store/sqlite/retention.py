"""Removing what is past its time, a slice at a time, between groups. Live runs and what they need are never touched."""

from __future__ import annotations

import sqlite3

_SLICE = 500

_RUNS = (
    "SELECT id, ended_at IS NOT NULL AND ended_at < ? AND NOT EXISTS "
    "(SELECT 1 FROM dead_letters d WHERE d.run_id = runs.id AND d.at >= ?) FROM runs WHERE id > ? AND id < ? ORDER BY id LIMIT ?"
)
_EVENTS = (
    "SELECT id, NOT EXISTS (SELECT 1 FROM runs WHERE runs.event_id = events.id) FROM events "
    "WHERE id > ? AND id < ? ORDER BY id LIMIT ?"
)
_OLD_IDS = "SELECT function_id, key FROM dedupe WHERE expires < ? LIMIT ?"
_OLD_FIRES = "DELETE FROM cron_fires WHERE at < ?"
_OLD_BULKS = "DELETE FROM bulk_operations WHERE ended_at < ?"
_OF_RUN = ("steps", "attempts", "waits", "logs", "notes", "dead_letters")


class Pruner:
    """Goes through what is old, from the oldest on, a bounded slice at a time."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        self._run = b""
        self._event = b""

    def prune(self, now: int, runs_ms: int, dead_letters_ms: int) -> bool:
        """Go through one slice; whether there is more to go through now. The pass after the last begins anew.

        Args:
            now: The time.
            runs_ms: How long a run is kept after its end, and an event after its arrival.
            dead_letters_ms: How long a run is kept that is a dead letter.
        """
        conn = self._conn
        horizon = now - runs_ms
        conn.execute("BEGIN IMMEDIATE")
        try:
            # events after runs: one that a run still needs is kept
            more = self._runs(horizon, now - dead_letters_ms)
            more = more or self._events(horizon)
            more = self._ids(now) or more
            conn.execute(_OLD_FIRES, (horizon,))
            conn.execute(_OLD_BULKS, (horizon,))
            conn.execute("COMMIT")
        except BaseException:
            conn.execute("ROLLBACK")
            raise
        return more

    def _ids(self, now: int) -> bool:
        by_function: dict[int, list[str]] = {}
        found = self._conn.execute(_OLD_IDS, (now, _SLICE)).fetchall()
        for function_id, key in found:
            by_function.setdefault(function_id, []).append(key)
        for function_id, keys in by_function.items():
            marks = ", ".join("?" * len(keys))
            self._conn.execute(f"DELETE FROM dedupe WHERE function_id = ? AND key IN ({marks})", (function_id, *keys))
        return len(found) == _SLICE

    def _runs(self, horizon: int, dead_horizon: int) -> bool:
        found = self._conn.execute(_RUNS, (horizon, dead_horizon, self._run, _floor(horizon), _SLICE)).fetchall()
        ids = [run_id for run_id, old in found if old]
        for table in _OF_RUN if ids else ():
            self._delete(table, "run_id", ids)
        self._delete("runs", "id", ids)
        self._run = found[-1][0] if len(found) == _SLICE else b""
        return len(found) == _SLICE

    def _events(self, horizon: int) -> bool:
        found = self._conn.execute(_EVENTS, (self._event, _floor(horizon), _SLICE)).fetchall()
        ids = [event_id for event_id, unused in found if unused]
        self._delete("skips", "event_id", ids)
        self._delete("events", "id", ids)
        self._event = found[-1][0] if len(found) == _SLICE else b""
        return len(found) == _SLICE

    def _delete(self, table: str, column: str, ids: list[bytes]) -> None:
        if ids:
            self._conn.execute(f"DELETE FROM {table} WHERE {column} IN ({', '.join('?' * len(ids))})", ids)


def _floor(ms: int) -> bytes:
    """The smallest id of a moment."""
    return max(ms, 0).to_bytes(6, "big") + bytes(10)
