"""Functions as the store knows them: a small integer each, kept through renames, versioned by configuration."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

import msgspec

from holdfast.core.flow import FunctionState


class Registration(msgspec.Struct, frozen=True):
    """A function as its app's code declares it."""

    app: str
    slug: str
    name: str
    config: bytes
    """The registration document as JSON."""
    aliases: tuple[str, ...] = ()
    """Former slugs."""


class AppRecord(msgspec.Struct, frozen=True):
    """An application that is called over HTTP, as it registered last."""

    name: str
    """Its id."""
    url: str
    sdk: str
    framework: str
    version: str | None
    checksum: str
    """Of what it registered: the same again changes nothing."""
    method: str
    """`ping`, or `connect`."""
    error: str | None
    """Why it can't be reached or synced now."""
    synced_at: int


_APPS = "SELECT name, url, sdk, framework, version, checksum, method, error, synced_at FROM apps ORDER BY name"
_PUT_APP = (
    "INSERT INTO apps (name, url, sdk, framework, version, checksum, method, error, synced_at, created_at) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET url = excluded.url, sdk = excluded.sdk, "
    "framework = excluded.framework, version = excluded.version, checksum = excluded.checksum, "
    "method = excluded.method, error = excluded.error, synced_at = excluded.synced_at"
)
_DELETE_APP = "DELETE FROM apps WHERE name = ?"
_FIND = "SELECT id, version, config, archived FROM functions WHERE slug = ?"
_RENAME = "UPDATE functions SET slug = ? WHERE slug = ?"
_ADD = "INSERT INTO functions (app, slug, name, version, config, archived, paused, created_at) VALUES (?, ?, ?, 1, ?, 0, 0, ?)"
_CHANGE = "UPDATE functions SET app = ?, name = ?, version = ?, config = ?, archived = 0 WHERE id = ?"
_ARCHIVE = "UPDATE functions SET archived = 1 WHERE app = ? AND id NOT IN (SELECT value FROM json_each(?))"
_ALL = "SELECT id, slug, app, name FROM functions"
_STATES = "SELECT id, paused, limits FROM functions WHERE paused <> 0 OR limits <> '{}'"
_SET_STATE = "UPDATE functions SET paused = ?, limits = ? WHERE id = ?"
_PAUSED = (None, "skip", "hold")
_CURRENT = "SELECT id, version, config FROM functions WHERE archived = 0"


def register(conn: sqlite3.Connection, registrations: Sequence[Registration], now: int) -> dict[str, tuple[int, int]]:
    """Record the functions of all apps of this process; those of the same apps that are gone are archived.

    Returns:
        Id and version of each, by slug.
    """
    conn.execute("BEGIN IMMEDIATE")
    try:
        known = _register_all(conn, registrations, {one.app for one in registrations}, now)
        conn.execute("COMMIT")
    except BaseException:
        conn.execute("ROLLBACK")
        raise
    return known


def register_app(
    conn: sqlite3.Connection, record: AppRecord, registrations: Sequence[Registration], now: int
) -> dict[str, tuple[int, int]]:
    """Record an application and its functions; those that are gone are archived. Returns as `register` does."""
    conn.execute("BEGIN IMMEDIATE")
    try:
        known = _register_all(conn, registrations, {record.name}, now)
        put_app(conn, record)
        conn.execute("COMMIT")
    except BaseException:
        conn.execute("ROLLBACK")
        raise
    return known


def _register_all(
    conn: sqlite3.Connection, registrations: Sequence[Registration], apps: set[str], now: int
) -> dict[str, tuple[int, int]]:
    known: dict[str, tuple[int, int]] = {}
    for registration in registrations:
        known[registration.slug] = _register(conn, registration, now)
    for app in apps:
        ids = [known[r.slug][0] for r in registrations if r.app == app]
        conn.execute(_ARCHIVE, (app, msgspec.json.encode(ids).decode()))
    return known


def put_app(conn: sqlite3.Connection, record: AppRecord) -> None:
    """Record what is known of an application."""
    conn.execute(_PUT_APP, (*msgspec.structs.astuple(record), record.synced_at))


def delete_app(conn: sqlite3.Connection, name: str) -> None:
    """Forget an application; its functions and runs stay on record."""
    conn.execute(_DELETE_APP, (name,))


def app_records(conn: sqlite3.Connection) -> list[AppRecord]:
    """All applications that are called over HTTP."""
    return [AppRecord(*row) for row in conn.execute(_APPS)]


def _register(conn: sqlite3.Connection, new: Registration, now: int) -> tuple[int, int]:
    row = conn.execute(_FIND, (new.slug,)).fetchone()
    for alias in new.aliases:
        if row is None and conn.execute(_RENAME, (new.slug, alias)).rowcount:
            row = conn.execute(_FIND, (new.slug,)).fetchone()
    config = new.config.decode()
    if row is None:
        added = conn.execute(_ADD, (new.app, new.slug, new.name, config, now))
        return int(added.lastrowid or 0), 1
    function_id, version, old, archived = row
    if old != config or archived:
        version += old != config
        conn.execute(_CHANGE, (new.app, new.name, version, config, function_id))
    return int(function_id), int(version)


def current(conn: sqlite3.Connection) -> list[tuple[int, int, bytes]]:
    """Id, version and registration document of every function that is not archived."""
    return [(row[0], row[1], str(row[2]).encode()) for row in conn.execute(_CURRENT)]


def slugs(conn: sqlite3.Connection) -> dict[int, str]:
    """The slug of every function there ever was."""
    return {row[0]: row[1] for row in conn.execute(_ALL)}


def states(conn: sqlite3.Connection) -> dict[int, FunctionState]:
    """How functions are paused, and which of their limits were changed, where anything is."""
    return {row[0]: (_PAUSED[row[1]], msgspec.json.decode(row[2])) for row in conn.execute(_STATES)}


def set_state(conn: sqlite3.Connection, function_id: int, paused: str | None, limits: Mapping[str, int]) -> None:
    """Record how a function is paused, and its changed limits."""
    conn.execute(_SET_STATE, (_PAUSED.index(paused), msgspec.json.encode(limits).decode(), function_id))
