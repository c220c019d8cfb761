"""Bringing a schema up to date: numbered migrations under a lock, each in a transaction of its own.

Nodes of different versions may be at work on one schema while a new version is rolled out. So a node goes on, and starts,
on a schema that newer nodes have brought forward by additive migrations only (see `store/migrate.py`); and a migration that
older nodes would not survive is applied only once none of them is alive. The number of the last such migration is in
`meta`: code that doesn't know it is refused.
"""

from __future__ import annotations

from zlib import crc32

import psycopg

from holdfast.base.errors import StoreBusyError, StoreError, StoreVersionError
from holdfast.store.migrate import Migration, migrations, too_new, until
from holdfast.store.postgres.connection import Connection, Settings

_LOCK_SPACE = 0x486F6C64
"""First half of the lock's key; the second is the schema's."""
COMPATIBLE_FROM = "compatible_from"
"""Key in `meta`: the number of the newest migration that code has to know to work with the schema."""
_LOCK_TIMEOUT = "800ms"
"""A table is waited for so long at most: everybody who writes to it waits behind whoever waits to change it."""
_TRIES = 30
_PAUSE = b"SELECT pg_sleep(0.2)"
"""Between two tries, for those who waited behind."""

_HAS_META = "SELECT 1 FROM pg_tables WHERE schemaname = %s AND tablename = 'meta'"
_GET_COMPATIBLE = "SELECT value FROM meta WHERE key = %s"
_SET_COMPATIBLE = "INSERT INTO meta (key, value) VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
_HAS_NODES = "SELECT 1 FROM pg_tables WHERE schemaname = %s AND tablename = 'node_leases'"
_ALIVE = """
SELECT n.name FROM {s}.nodes n JOIN {s}.node_leases l ON l.node_id = n.id
WHERE NOT n.dead AND l.expires > clock_timestamp() ORDER BY n.id
"""


def lock_key(schema: str) -> int:
    """The advisory lock that guards a schema's migrations."""
    return (_LOCK_SPACE << 32) | crc32(schema.encode())


def migrate_postgres(conn: Connection, settings: Settings, now: int, *, up_to: int | None = None) -> None:
    """Bring a schema to the current version, making it if it isn't there. Nodes that start together take turns.

    Args:
        conn: The database. In a transaction, that one has it all; else each migration is a transaction of its own.
        settings: Which schema.
        now: The time, which is recorded.
        up_to: The last migration to apply; the newest unless given.

    Raises:
        StoreVersionError: a newer holdfast wrote it, or older nodes are alive that would not survive a migration.
        StoreBusyError: a table that a migration changes is locked by somebody else.
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
    for migration in until(known, up_to):
        _apply_patiently(conn, migration, known, now, settings)


def check_version(conn: Connection, settings: Settings) -> None:
    """Make sure that the schema has not been brought forward, since it was looked at, to where this code can't follow.

    A node asks this once it is enrolled: from then on, whoever wants to do that sees it and is refused.

    Raises:
        StoreVersionError: it has been.
    """
    with conn.transaction():
        conn.execute("SELECT pg_advisory_xact_lock_shared(%s)", [lock_key(settings.schema)])
        conn.execute("SELECT set_config('search_path', %s, true)", [f'"{settings.schema}"'])
        _check_newest(conn, migrations("postgres"), settings)


def alive(conn: Connection, schema: str) -> list[str]:
    """The names of the nodes at work on a schema, which may not be there."""
    if conn.execute(_HAS_NODES, [schema]).fetchone() is None:
        return []
    return [str(row[0]) for row in conn.execute(_ALIVE.replace("{s}", f'"{schema}"').encode())]


def compatible_from(conn: Connection, schema: str) -> int:
    """The number of the newest migration that code has to know to work with a schema."""
    if conn.execute(_HAS_META, [schema]).fetchone() is None:
        return 0
    statement = _GET_COMPATIBLE.replace("FROM meta", f'FROM "{schema}".meta')
    row = conn.execute(statement.encode(), [COMPATIBLE_FROM]).fetchone()
    return 0 if row is None else int(row[0])


def _take_turn(conn: Connection, settings: Settings) -> None:
    conn.execute("SELECT pg_advisory_xact_lock(%s)", [lock_key(settings.schema)])
    conn.execute("SELECT set_config('search_path', %s, true)", [f'"{settings.schema}"'])
    conn.execute("SELECT set_config('client_min_messages', 'warning', true)")


def _apply_patiently(
    conn: Connection, migration: Migration, known: list[Migration], now: int, settings: Settings
) -> None:
    for left in reversed(range(_TRIES)):
        try:
            with conn.transaction():
                _take_turn(conn, settings)
                conn.execute("SELECT set_config('lock_timeout', %s, true)", [_LOCK_TIMEOUT])
                _apply(conn, migration, known, now, settings)
                conn.execute("SELECT set_config('lock_timeout', '0', true)")
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            # nodes that are at work lock tables in the order in which they need them
            if not left:
                raise StoreBusyError(
                    f"{_where(settings)}: migration {migration.number} ({migration.name}) waits for a table that somebody holds "
                    "locked, a long transaction or a dump (see pg_stat_activity): start again once that is over"
                ) from error
            conn.execute(_PAUSE)
        else:
            return


def _where(settings: Settings) -> str:
    return f"schema {settings.schema} of {settings.shown}"


def _apply(conn: Connection, migration: Migration, known: list[Migration], now: int, settings: Settings) -> None:
    applied = _check_newest(conn, known, settings)
    checksum = applied.get(migration.number)
    if checksum is None:
        if not migration.additive:
            _refuse_beside_others(conn, migration, settings)
        for statement in statements_of(migration.sql):
            conn.execute(statement.encode())
        conn.execute(
            "INSERT INTO migrations (number, name, checksum, applied_at) VALUES (%s, %s, %s, %s)",
            (migration.number, migration.name, migration.checksum, now),
        )
        if not migration.additive:
            conn.execute(_SET_COMPATIBLE, (COMPATIBLE_FROM, str(migration.number)))
    elif checksum != migration.checksum:
        raise StoreError(
            f"{_where(settings)}: migration {migration.number} was applied in another form; was the package changed by hand?"
        )


def _check_newest(conn: Connection, known: list[Migration], settings: Settings) -> dict[int, str]:
    """The checksums of what was applied, by number."""
    applied: dict[int, str] = dict(conn.execute("SELECT number, checksum FROM migrations").fetchall())
    newest = max(applied, default=0)
    if newest > known[-1].number and compatible_from(conn, settings.schema) > known[-1].number:
        raise too_new(_where(settings), newest, known[-1].number)
    return applied


def _refuse_beside_others(conn: Connection, migration: Migration, settings: Settings) -> None:
    others = alive(conn, settings.schema)
    if others:
        raise StoreVersionError(
            f"{_where(settings)}: migration {migration.number} ({migration.name}) is not for older nodes, and these are at work: "
            f"{', '.join(others)}. Stop them all, then start this one"
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
