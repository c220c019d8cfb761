"""Migrations: an interrupted one is run again, and fresh equals migrated."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from holdfast import StoreError
from holdfast.store.migrate import migrate_sqlite, migrations, split_statements


def schema(conn: sqlite3.Connection) -> list[tuple[str, ...]]:
    return conn.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name").fetchall()


def connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)


def test_a_migration_interrupted_at_any_statement_is_run_again(tmp_path, monkeypatch):
    fresh = connect(tmp_path / "fresh.db")
    migrate_sqlite(fresh, 1, "fresh")
    statements = sum(len(split_statements(m.sql)) for m in migrations("sqlite"))
    assert statements > 15
    for stop in range(statements):
        left = [stop]

        class Interrupted(sqlite3.Connection):
            def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:
                if sql.lstrip().startswith(("CREATE ", "ALTER ", "-- phase")) and "IF NOT EXISTS" not in sql:
                    if left[0] == 0:
                        raise KeyboardInterrupt
                    left[0] -= 1
                return super().execute(sql, *parameters)

        conn = sqlite3.connect(tmp_path / f"{stop}.db", isolation_level=None, factory=Interrupted)
        with pytest.raises(KeyboardInterrupt):
            migrate_sqlite(conn, 1, "interrupted")
        conn.close()
        again = connect(tmp_path / f"{stop}.db")
        migrate_sqlite(again, 2, "again")
        assert schema(again) == schema(fresh)
        again.close()


def test_a_migration_that_was_changed_after_it_was_applied_is_refused(tmp_path):
    conn = connect(tmp_path / "a.db")
    migrate_sqlite(conn, 1, "a.db")
    conn.execute("UPDATE migrations SET checksum = 'other' WHERE number = 1")
    with pytest.raises(StoreError, match="migration 1 was applied in another form"):
        migrate_sqlite(conn, 1, "a.db")
