"""Removing what is past its time, a slice at a time, between groups. Live runs and what they need are never touched."""

from __future__ import annotations

import sqlite3

DAY_MS = 86_400_000
_SLICE = 500

_ENDED_RUNS = (
    "SELECT id FROM runs WHERE id < ? AND ended_at IS NOT NULL AND ended_at < ? AND NOT EXISTS "
    "(SELECT 1 FROM dead_letters d WHERE d.run_id = runs.id AND d.at >= ?) ORDER BY id LIMIT ?"
)
_OLD_EVENTS = "SELECT id FROM events WHERE id < ? AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.event_id = events.id) ORDER BY id LIMIT ?"
_OLD_IDS = "SELECT function_id, key FROM dedupe WHERE expires < ? LIMIT ?"
_OF_RUN = ("steps", "attempts", "waits", "logs", "notes", "dead_letters")


class Pruner:
    """What may be removed, and how long things are kept."""

    def __init__(self, conn: sqlite3.Connection, runs_ms: int = 7 * DAY_MS, dead_letters_ms: int = 90 * DAY_MS) -> None:
        self._conn = conn
        self.runs_ms = runs_ms
        """How long a run is kept after its end, and an event after its arrival."""
        self.dead_letters_ms = dead_letters_ms

    def prune(self, now: int) -> int:
        """Remove one slice; returns how many rows of runs, events and ids went. Zero when there is nothing left to do."""
        conn = self._conn
        conn.execute("BEGIN IMMEDIATE")
        try:
            removed = self._runs(now) + self._events(now)
            removed += self._ids(now)
            conn.execute("COMMIT")
        except BaseException:
            conn.execute("ROLLBACK")
            raise
        return removed

    def _ids(self, now: int) -> int:
        by_function: dict[int, list[str]] = {}
        for function_id, key in self._conn.execute(_OLD_IDS, (now, _SLICE)):
            by_function.setdefault(function_id, []).append(key)
        for function_id, keys in by_function.items():
            marks = ", ".join("?" * len(keys))
            self._conn.execute(f"DELETE FROM dedupe WHERE function_id = ? AND key IN ({marks})", (function_id, *keys))
        return sum(map(len, by_function.values()))

    def _runs(self, now: int) -> int:
        horizon = now - self.runs_ms
        ids = [
            row[0]
            for row in self._conn.execute(
                _ENDED_RUNS, (horizon.to_bytes(6, "big") + bytes(10), horizon, now - self.dead_letters_ms, _SLICE)
            )
        ]
        if ids:
            marks = ", ".join("?" * len(ids))
            for table in _OF_RUN:
                self._conn.execute(f"DELETE FROM {table} WHERE run_id IN ({marks})", ids)
            self._conn.execute(f"DELETE FROM runs WHERE id IN ({marks})", ids)
        return len(ids)

    def _events(self, now: int) -> int:
        horizon = now - self.runs_ms
        ids = [row[0] for row in self._conn.execute(_OLD_EVENTS, (horizon.to_bytes(6, "big") + bytes(10), _SLICE))]
        if ids:
            marks = ", ".join("?" * len(ids))
            self._conn.execute(f"DELETE FROM skips WHERE event_id IN ({marks})", ids)
            self._conn.execute(f"DELETE FROM events WHERE id IN ({marks})", ids)
        return len(ids)
