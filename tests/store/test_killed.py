"""Processes killed in the middle of a migration or a copy: the next one does it to the end."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_copying import all_rows, fill

from holdfast.store.migrate import migrate_sqlite, migrations, split_statements
from holdfast.store.postgres.connection import connect, parse_url
from holdfast.store.postgres.migrating import migrate_postgres, statements_of

pytestmark = pytest.mark.slow


def killed(*arguments: str) -> Any:
    src = Path(__file__).parents[2] / "src"
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "killed.py"), *arguments],
        capture_output=True, text=True, timeout=110, env={**os.environ, "PYTHONPATH": str(src)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def sqlite_schema(path: Path) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as conn:
        return conn.execute("SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2").fetchall() + conn.execute(
            "SELECT number, checksum FROM migrations ORDER BY 1"
        ).fetchall()


def postgres_schema(url: str) -> list[tuple[Any, ...]]:
    settings = parse_url(url)
    with connect(settings, "test") as conn:
        columns = conn.execute(
            "SELECT table_name, ordinal_position, column_name, data_type, is_nullable, column_default "
            "FROM information_schema.columns WHERE table_schema = %s ORDER BY 1, 2", [settings.schema]
        ).fetchall()
        settled = conn.execute(
            "SELECT c.relname, c.relkind::text, c.reloptions FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = %s ORDER BY 1", [settings.schema]
        ).fetchall()
        meta = conn.execute(f'SELECT * FROM "{settings.schema}".meta ORDER BY 1').fetchall()
    return [row for row in columns if row[5] is None or "nextval" not in row[5]] + settled + meta


EVERY = [pytest.param(13, id="some"), pytest.param(1, id="all", marks=pytest.mark.long)]


@pytest.mark.parametrize("every", EVERY)
def test_migrations_killed_at_a_statement_are_applied_by_the_next_on_sqlite(tmp_path, every):
    with contextlib.closing(sqlite3.connect(tmp_path / "fresh.db", isolation_level=None)) as conn:
        migrate_sqlite(conn, 1, "fresh")
    end = killed("migrations", f"sqlite:///{tmp_path}/{{}}.db", str(every))["end"]
    known = migrations("sqlite")
    statements = sum(len(split_statements(m.sql)) for m in known) + len(known)
    assert statements <= end < statements + every
    fresh = sqlite_schema(tmp_path / "fresh.db")
    assert all(sqlite_schema(tmp_path / f"{point}.db") == fresh for point in range(0, end + 1, every))


@pytest.mark.parametrize("every", EVERY)
def test_migrations_killed_at_a_statement_are_applied_by_the_next_on_postgresql(postgres_url, every):
    settings = parse_url(f"{postgres_url}_fresh")
    with connect(settings, "test") as conn:
        migrate_postgres(conn, settings, 1)
    end = killed("migrations", f"{postgres_url}_{{}}", str(every))["end"]
    known = migrations("postgres")
    statements = sum(len(statements_of(m.sql)) for m in known) + len(known)
    assert statements <= end < statements + every
    fresh = postgres_schema(f"{postgres_url}_fresh")
    for point in range(0, end + 1, every):
        assert postgres_schema(f"{postgres_url}_{point}") == fresh
        with connect(settings, "test") as conn:
            conn.execute(f'DROP SCHEMA "{parse_url(f"{postgres_url}_{point}").schema}" CASCADE')


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_copy_killed_on_the_way_leaves_nothing_and_can_be_done_again(tmp_path, postgres_url, kind):
    fill(tmp_path / "a.db", 5, rows=60)
    source = f"sqlite:///{tmp_path}/a.db"
    target = f"sqlite:///{tmp_path}/b.db" if kind == "sqlite" else postgres_url
    rows = sum(map(len, all_rows(source).values()))
    points = [1, rows // 2, rows, rows + 1, 2 * rows - 1]
    assert killed("copying", source, target, json.dumps(points)) == {"clean": [True] * len(points)}
    assert {table: len(found) for table, found in all_rows(target).items()} == {
        table: len(found) for table, found in all_rows(source).items()
    }
    left = sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("b.db"))
    assert left == ([] if kind == "postgres" else ["b.db", "b.db-lock"])
