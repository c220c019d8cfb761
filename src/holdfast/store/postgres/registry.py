"""Functions, applications and schedules as a schema knows them; what is read and written before a node begins."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import msgspec

from holdfast.base.errors import StoreInUseError
from holdfast.core.flow import FunctionState
from holdfast.store.postgres.connection import Connection, Settings
from holdfast.store.postgres.statements import Statements
from holdfast.store.sqlite.registry import AppRecord, Registration

_FIND = "SELECT id, version, config, archived FROM {s}functions WHERE slug = %s FOR UPDATE"
_RENAME = "UPDATE {s}functions SET slug = %s WHERE slug = %s"
_ADD = (
    "INSERT INTO {s}functions (app, slug, name, version, config, archived, paused, created_at) "
    "VALUES (%s, %s, %s, 1, %s, 0, 0, %s) RETURNING id"
)
_CHANGE = "UPDATE {s}functions SET app = %s, name = %s, version = %s, config = %s, archived = 0 WHERE id = %s"
_ARCHIVE = "UPDATE {s}functions SET archived = 1 WHERE app = %s AND NOT id = ANY(%s::int8[])"
_ALL = "SELECT id, slug FROM {s}functions"
_CURRENT = "SELECT id, version, config FROM {s}functions WHERE archived = 0"
_APPS = "SELECT name, url, sdk, framework, version, checksum, method, error, synced_at FROM {s}apps ORDER BY name"
_PUT_APP = (
    "INSERT INTO {s}apps (name, url, sdk, framework, version, checksum, method, error, synced_at, created_at) "
    "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (name) DO UPDATE SET url = excluded.url, "
    "sdk = excluded.sdk, framework = excluded.framework, version = excluded.version, checksum = excluded.checksum, "
    "method = excluded.method, error = excluded.error, synced_at = excluded.synced_at"
)
_DELETE_APP = "DELETE FROM {s}apps WHERE name = %s"
_STATES = "SELECT id, paused, limits FROM {s}functions WHERE paused <> 0 OR limits <> '{}'"
_SET_STATE = "UPDATE {s}functions SET paused = %s, limits = %s WHERE id = %s"
_PAUSED = (None, "skip", "hold")
_GET_META = "SELECT value FROM {s}meta WHERE key = %s FOR UPDATE"
_SET_META = "INSERT INTO {s}meta (key, value) VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
_ALONE = "LOCK TABLE {s}functions IN SHARE ROW EXCLUSIVE MODE"


def bind(conn: Connection, sql: Statements, settings: Settings, apps: tuple[str, ...]) -> None:
    """Bind the schema to its applications.

    Raises:
        StoreInUseError: it belongs to others.
    """
    with conn.transaction():
        conn.execute(sql.sql(_SET_META.replace("DO UPDATE SET value = excluded.value", "DO NOTHING")), ("apps", "[]"))
        row = conn.execute(sql.sql(_GET_META), ("apps",)).fetchone()
        known = set(json.loads(row[0])) if row else set()
        if known and apps and not known & set(apps):
            raise StoreInUseError(
                f"schema {settings.schema} of {settings.shown} belongs to app {', '.join(sorted(known))}, not to "
                f"{', '.join(apps)}: give each application a schema of its own with ?schema=name in the store URL"
            )
        conn.execute(sql.sql(_SET_META), ("apps", json.dumps(sorted(known | set(apps)))))


def register(
    conn: Connection, sql: Statements, registrations: Sequence[Registration], now: int
) -> dict[str, tuple[int, int]]:
    """Record the functions of all apps of this process; those of the same apps that are gone are archived.

    Returns:
        Id and version of each, by slug.
    """
    with conn.transaction():
        return _register_all(conn, sql, registrations, {one.app for one in registrations}, now)


def register_app(
    conn: Connection, sql: Statements, record: AppRecord, registrations: Sequence[Registration], now: int
) -> dict[str, tuple[int, int]]:
    """Record an application and its functions; those that are gone are archived. Returns as `register` does."""
    with conn.transaction():
        known = _register_all(conn, sql, registrations, {record.name}, now)
        put_app(conn, sql, record)
    return known


def _register_all(
    conn: Connection, sql: Statements, registrations: Sequence[Registration], apps: set[str], now: int
) -> dict[str, tuple[int, int]]:
    conn.execute(sql.sql(_ALONE))
    known = {one.slug: _register(conn, sql, one, now) for one in registrations}
    for app in apps:
        ids = [known[r.slug][0] for r in registrations if r.app == app]
        conn.execute(sql.sql(_ARCHIVE), (app, ids))
    return known


def put_app(conn: Connection, sql: Statements, record: AppRecord) -> None:
    """Record what is known of an application."""
    conn.execute(sql.sql(_PUT_APP), (*msgspec.structs.astuple(record), record.synced_at))


def delete_app(conn: Connection, sql: Statements, name: str) -> None:
    """Forget an application; its functions and runs stay on record."""
    conn.execute(sql.sql(_DELETE_APP), (name,))


def app_records(conn: Connection, sql: Statements) -> list[AppRecord]:
    """All applications that are called over HTTP."""
    return [AppRecord(*row) for row in conn.execute(sql.sql(_APPS))]


def _register(conn: Connection, sql: Statements, new: Registration, now: int) -> tuple[int, int]:
    row = conn.execute(sql.sql(_FIND), (new.slug,)).fetchone()
    for alias in new.aliases:
        if row is None and conn.execute(sql.sql(_RENAME), (new.slug, alias)).rowcount:
            row = conn.execute(sql.sql(_FIND), (new.slug,)).fetchone()
    config = new.config.decode()
    if row is None:
        added = conn.execute(sql.sql(_ADD), (new.app, new.slug, new.name, config, now)).fetchone()
        assert added is not None
        return int(added[0]), 1
    function_id, version, old, archived = row
    if old != config or archived:
        version += old != config
        conn.execute(sql.sql(_CHANGE), (new.app, new.name, version, config, function_id))
    return int(function_id), int(version)


def current(conn: Connection, sql: Statements) -> list[tuple[int, int, bytes]]:
    """Id, version and registration document of every function that is not archived."""
    return [(row[0], row[1], str(row[2]).encode()) for row in conn.execute(sql.sql(_CURRENT))]


def slugs(conn: Connection, sql: Statements) -> dict[int, str]:
    """The slug of every function there ever was."""
    return {row[0]: row[1] for row in conn.execute(sql.sql(_ALL))}


def states(conn: Connection, sql: Statements) -> dict[int, FunctionState]:
    """How functions are paused, and which of their limits were changed, where anything is."""
    return {row[0]: (_PAUSED[row[1]], json.loads(row[2])) for row in conn.execute(sql.sql(_STATES))}


def set_state(
    conn: Connection, sql: Statements, function_id: int, paused: str | None, limits: Mapping[str, int]
) -> None:
    """Record how a function is paused, and its changed limits."""
    conn.execute(sql.sql(_SET_STATE), (_PAUSED.index(paused), json.dumps(dict(limits)), function_id))
