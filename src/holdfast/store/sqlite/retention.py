"""Removing what is past its time, a slice at a time, between groups. Live runs and what they need are never touched."""

from __future__ import annotations

import sqlite3

_SLICE = 500
_THROTTLE_MEMORY_US = 7 * 86_400_000_000
"""After this a throttle with any period and burst in use has nothing left to remember."""

_RUNS = (
    "SELECT id, ended_at IS NOT NULL AND ended_at < ? AND NOT EXISTS "
    "(SELECT 1 FROM dead_letters d WHERE d.run_id = runs.id AND d.at >= ?) FROM runs WHERE id > ? AND id < ? ORDER BY id LIMIT ?"
)
_EVENTS = (
    "SELECT id, NOT EXISTS (SELECT 1 FROM runs WHERE runs.event_id = events.id) "
    "AND NOT EXISTS (SELECT 1 FROM batch_events b WHERE b.event_id = events.id) "
    "AND NOT EXISTS (SELECT 1 FROM gathers g WHERE g.event_id = events.id) FROM events "
    "WHERE id > ? AND id < ? ORDER BY id LIMIT ?"
)
_OLD_IDS = "SELECT function_id, key FROM dedupe WHERE expires < ? LIMIT ?"
_OLD_FIRES = "DELETE FROM cron_fires WHERE at < ?"
_OLD_BULKS = "DELETE FROM bulk_operations WHERE ended_at < ?"
_OLD_WINDOWS = "DELETE FROM windows WHERE expires < ?"
_OLD_THROTTLES = "DELETE FROM throttles WHERE tat < ?"
_SINGLETONS = (
    "SELECT function_id, key, EXISTS (SELECT 1 FROM runs WHERE runs.id = singletons.run_id AND runs.ended_at IS NULL) "
    "FROM singletons WHERE (function_id, key) > (?, ?) ORDER BY function_id, key LIMIT ?"
)
_OF_RUN = ("steps", "attempts", "waits", "logs", "notes", "progress", "dead_letters", "batch_events")


class Pruner:
    """Goes through what is old, from the oldest on, a bounded slice at a time."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        self._run = b""
        self._event = b""
        self._singleton: tuple[int, str] = (0, "")

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
            conn.execute(_OLD_WINDOWS, (now,))
            conn.execute(_OLD_THROTTLES, (now * 1000 - _THROTTLE_MEMORY_US,))
            more = self._singletons() or more
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

    def _singletons(self) -> bool:
        found = self._conn.execute(_SINGLETONS, (*self._singleton, _SLICE)).fetchall()
        for function_id, key, live in found:
            if not live:
                self._conn.execute("DELETE FROM singletons WHERE function_id = ? AND key = ?", (function_id, key))
        self._singleton = found[-1][:2] if len(found) == _SLICE else (0, "")
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
        self._delete("matched_waits", "event_id", ids)
        self._delete("events", "id", ids)
        self._event = found[-1][0] if len(found) == _SLICE else b""
        return len(found) == _SLICE

    def _delete(self, table: str, column: str, ids: list[bytes]) -> None:
        if ids:
            self._conn.execute(f"DELETE FROM {table} WHERE {column} IN ({', '.join('?' * len(ids))})", ids)


def _floor(ms: int) -> bytes:
    """The smallest id of a moment; of times out of range, the least or the last there can be."""
    return max(0, min(ms, (1 << 48) - 1)).to_bytes(6, "big") + bytes(10)
