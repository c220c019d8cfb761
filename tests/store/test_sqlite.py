"""What is SQLite's own: one owner of one file, its errors, and statements that search."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from holdfast import StoreError, StoreFailedError, StoreFullError, StoreInUseError, StoreVersionError
from holdfast.base.clock import SystemClock
from holdfast.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio

clock = SystemClock()
Open = Callable[..., Any]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """Opens the store of this test."""

    @asynccontextmanager
    async def open_store() -> AsyncIterator[SqliteStore]:
        store = SqliteStore(f"sqlite:///{tmp_path / 'store.db'}", clock, ("app",))
        store.start(lambda: 100, frozenset({1}))
        try:
            yield store
        finally:
            await store.close()

    return open_store


async def test_a_store_has_one_owner(opened, tmp_path):
    async with opened():
        with pytest.raises(StoreInUseError, match=r"in use by process \d+ \(app app\)"):
            SqliteStore(f"sqlite:///{tmp_path / 'store.db'}", clock, ("app",))


async def test_a_store_from_a_newer_version_is_refused(opened, tmp_path):
    async with opened():
        pass
    conn = sqlite3.connect(tmp_path / "store.db")
    conn.execute("INSERT INTO migrations VALUES (999, 'future', 'x', 0)")
    conn.commit()
    conn.close()
    with pytest.raises(StoreVersionError, match="newer holdfast"):
        SqliteStore(f"sqlite:///{tmp_path / 'store.db'}", clock, ("app",))


async def test_a_file_that_is_no_database_is_a_sentence(tmp_path):
    path = tmp_path / "text.db"
    path.write_bytes(b"this is not a database, it is a text file" * 100)
    with pytest.raises(StoreError, match="is it an SQLite file"):
        SqliteStore(f"sqlite:///{path}", clock, ())
    path.unlink()
    SqliteStore(f"sqlite:///{path}", clock, ())._ownership.release()


async def test_after_a_failed_sync_nothing_more_is_accepted(opened):
    async with opened() as store:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
        assert isinstance(store.translate(error), StoreFailedError)
        full = sqlite3.OperationalError("database or disk is full")
        full.sqlite_errorname = "SQLITE_FULL"
        assert isinstance(store.translate(full), StoreFullError)


async def test_the_work_of_every_statement_by_key_does_not_grow_with_the_table(opened, tmp_path):
    """A compound key that is not searched for would make each send with an id look at all ids of the day."""
    from holdfast.core.rows import KEYS
    from holdfast.store.sqlite import statements

    async with opened():
        pass
    conn = sqlite3.connect(tmp_path / "store.db")
    for cls, keys in statements.PRIMARY_KEYS.items():
        assert cls in KEYS
        for statement, count in ((statements.select(cls, 3), 3 * len(keys)), (statements.delete(cls, 3), None)):
            values = [b"k"] * (
                count or len(statements.delete_values(cls, [(b"k",) * len(keys) if len(keys) > 1 else b"k"] * 3))
            )
            plan = [row[3] for row in conn.execute("EXPLAIN QUERY PLAN " + statement, values)]
            assert not any(line.startswith(f"SCAN {name}") for line in plan for name in (cls.TABLE, "t")), (
                statement,
                plan,
            )
    conn.close()
