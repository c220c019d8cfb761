"""Numbered migrations: applied in order under a lock, their checksums recorded, never edited once released."""

from __future__ import annotations

import hashlib
import sqlite3
from importlib import resources

import msgspec

from holdfast.base.errors import StoreError, StoreVersionError


class Migration(msgspec.Struct, frozen=True):
    """One numbered step of the schema."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()[:16]


def migrations(dialect: str) -> list[Migration]:
    """All migrations of a dialect, in order."""
    folder = resources.files(f"holdfast.store.{dialect}") / "migrations"
    found = []
    for entry in folder.iterdir():
        if entry.name.endswith(".sql"):
            number, _, name = entry.name[:-4].partition("_")
            found.append(Migration(int(number), name, entry.read_text(encoding="utf-8")))
    return sorted(found, key=lambda m: m.number)


def migrate_sqlite(conn: sqlite3.Connection, now: int, where: str) -> None:
    """Bring a database to the current schema, each migration in a transaction of its own.

    Raises:
        StoreVersionError: it was written by a newer holdfast.
        StoreError: a migration differs from what was applied.
    """
    conn.execute(
        "CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL,"
        " applied_at INTEGER NOT NULL) STRICT"
    )
    known = migrations("sqlite")
    for migration in known:
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
        raise StoreVersionError(
            f"{where} was written by a newer holdfast (schema {newest}; this one knows {known[-1].number}): "
            "upgrade holdfast, or restore the backup made before the upgrade"
        )
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
