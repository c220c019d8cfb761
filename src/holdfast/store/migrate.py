"""Numbered migrations: applied in order under a lock, their checksums recorded, never edited once released.

The first line of each says how it goes together with code that doesn't know it. After `-- phase: pre` that code goes on
working: tables, indexes, columns that may be left out and settings are added, and nothing is taken away, renamed or given
another meaning. `-- phase: post` is everything else.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterable
from importlib import resources

import msgspec

from holdfast.base.errors import StoreError, StoreVersionError

_PHASE = re.compile(r"-- phase: (pre|post)$", re.MULTILINE)
_TABLE = re.compile(r"^CREATE TABLE (\w+)", re.MULTILINE)
_FUNCTION = re.compile(r"^CREATE FUNCTION (\w+)", re.MULTILINE)


class Migration(msgspec.Struct, frozen=True):
    """One numbered step of the schema."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()[:16]

    @property
    def additive(self) -> bool:
        """Whether code that doesn't know it goes on working."""
        phase = _PHASE.match(self.sql)
        return phase is not None and phase[1] == "pre"


def migrations(dialect: str) -> list[Migration]:
    """All migrations of a dialect, in order."""
    folder = resources.files(f"holdfast.store.{dialect}") / "migrations"
    found = []
    for entry in folder.iterdir():
        if entry.name.endswith(".sql"):
            number, _, name = entry.name[:-4].partition("_")
            found.append(Migration(int(number), name, entry.read_text(encoding="utf-8")))
    return sorted(found, key=lambda m: m.number)


def tables_made(known: Iterable[Migration]) -> frozenset[str]:
    """The tables that these migrations make."""
    return frozenset(name for migration in known for name in _TABLE.findall(migration.sql))


def functions_made(known: Iterable[Migration]) -> frozenset[str]:
    """The database's functions that these migrations make."""
    return frozenset(name for migration in known for name in _FUNCTION.findall(migration.sql))


def until(known: Iterable[Migration], number: int | None) -> list[Migration]:
    """Those up to a number; all of them for None."""
    return [migration for migration in known if number is None or migration.number <= number]


def too_new(where: str, number: int, known: int) -> StoreVersionError:
    """What to say of a database that newer code has written."""
    return StoreVersionError(
        f"{where} was written by a newer holdfast (schema {number}; this one knows {known}): "
        "upgrade holdfast, or restore the backup made before the upgrade"
    )


def migrate_sqlite(conn: sqlite3.Connection, now: int, where: str, *, up_to: int | None = None) -> None:
    """Bring a database to the current schema, each migration in a transaction of its own.

    Args:
        conn: The database, outside a transaction.
        now: The time, which is recorded.
        where: What it is called in errors.
        up_to: The last migration to apply; the newest unless given.

    Raises:
        StoreVersionError: it was written by a newer holdfast.
        StoreError: a migration differs from what was applied.
    """
    conn.execute(
        "CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL,"
        " applied_at INTEGER NOT NULL) STRICT"
    )
    known = migrations("sqlite")
    for migration in until(known, up_to):
        conn.execute("BEGIN IMMEDIATE")
        try:
            _apply(conn, migration, known, now, where)
            conn.execute("COMMIT")
        except BaseException:
            conn.execute("ROLLBACK")
            raise


def _apply(conn: sqlite3.Connection, migration: Migration, known: list[Migration], now: int, where: str) -> None:
    applied = dict(conn.execute("SELECT number, checksum FROM migrations").fetchall())
    newest = max(applied, default=0)
    if newest > known[-1].number:
        raise too_new(where, newest, known[-1].number)
    checksum = applied.get(migration.number)
    if checksum is None:
        for statement in split_statements(migration.sql):
            conn.execute(statement)
        conn.execute(
            "INSERT INTO migrations (number, name, checksum, applied_at) VALUES (?, ?, ?, ?)",
            (migration.number, migration.name, migration.checksum, now),
        )
    elif checksum != migration.checksum:
        raise StoreError(
            f"{where}: migration {migration.number} was applied in another form; was the package changed by hand?"
        )


def split_statements(sql: str) -> list[str]:
    """The statements of a script; executescript would commit between them."""
    out, buffer = [], ""
    for line in sql.splitlines():
        buffer += line + "\n"
        if sqlite3.complete_statement(buffer):
            out.append(buffer)
            buffer = ""
    return out
