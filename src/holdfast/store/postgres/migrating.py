"""Bringing a schema up to date: numbered migrations under a lock, each in a transaction of its own."""

from __future__ import annotations

from zlib import crc32

from holdfast.base.errors import StoreError, StoreVersionError
from holdfast.store.migrate import Migration, migrations
from holdfast.store.postgres.connection import Connection, Settings

_LOCK_SPACE = 0x486F6C64
"""First half of the lock's key; the second is the schema's."""


def lock_key(schema: str) -> int:
    """The advisory lock that guards a schema's migrations."""
    return (_LOCK_SPACE << 32) | crc32(schema.encode())


def migrate_postgres(conn: Connection, settings: Settings, now: int) -> None:
    """Bring a schema to the current version, making it if it isn't there. Nodes that start together take turns.

    Raises:
        StoreVersionError: it was written by a newer holdfast.
        StoreError: a migration differs from what was applied.
    """
    with conn.transaction():
        _take_turn(conn, settings)
        if conn.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [settings.schema]).fetchone() is None:
            conn.execute(f'CREATE SCHEMA "{settings.schema}"'.encode())
        conn.execute(
            "CREATE TABLE IF NOT EXISTS migrations (number bigint PRIMARY KEY, name text NOT NULL, checksum text NOT NULL,"
            " applied_at bigint NOT NULL)"
        )
    known = migrations("postgres")
    for migration in known:
        with conn.transaction():
            _take_turn(conn, settings)
            _apply(conn, migration, known, now, settings)


def _take_turn(conn: Connection, settings: Settings) -> None:
    conn.execute("SELECT pg_advisory_xact_lock(%s)", [lock_key(settings.schema)])
    conn.execute("SELECT set_config('search_path', %s, true)", [f'"{settings.schema}"'])
    conn.execute("SELECT set_config('client_min_messages', 'warning', true)")


def _apply(conn: Connection, migration: Migration, known: list[Migration], now: int, settings: Settings) -> None:
    where = f"schema {settings.schema} of {settings.shown}"
    applied: dict[int, str] = dict(conn.execute("SELECT number, checksum FROM migrations").fetchall())
    newest = max(applied, default=0)
    if newest > known[-1].number:
        raise StoreVersionError(
            f"{where} was written by a newer holdfast (schema {newest}; this one knows {known[-1].number}): "
            "upgrade holdfast, or restore the backup made before the upgrade"
        )
    checksum = applied.get(migration.number)
    if checksum is None:
        for statement in statements_of(migration.sql):
            conn.execute(statement.encode())
        conn.execute(
            "INSERT INTO migrations (number, name, checksum, applied_at) VALUES (%s, %s, %s, %s)",
            (migration.number, migration.name, migration.checksum, now),
        )
    elif checksum != migration.checksum:
        raise StoreError(
            f"{where}: migration {migration.number} was applied in another form; was the package changed by hand?"
        )


def statements_of(sql: str) -> list[str]:
    """The statements of a script, each of which ends a line with a semicolon."""
    out, buffer = [], ""
    for line in sql.splitlines():
        if line.lstrip().startswith("--"):
            continue
        buffer += line + "\n"
        if line.rstrip().endswith(";"):
            out.append(buffer)
            buffer = ""
    return out
