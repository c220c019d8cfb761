"""Connecting to PostgreSQL: what a store URL says, sessions set up for what they are for, and errors in words."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import msgspec
import psycopg
from psycopg.rows import TupleRow

from holdfast.base.errors import (
    ConfigurationError,
    StoreError,
    StoreFailedError,
    StoreFullError,
    StoreUnreachableError,
)
from holdfast.base.masks import hide_credentials
from holdfast.store.postgres import values
from holdfast.store.urls import DEFAULT_SCHEMA, is_postgres, without_secrets

Connection = psycopg.Connection[TupleRow]
Cursor = psycopg.Cursor[TupleRow]
Query = tuple[bytes, Sequence[Any]]

LEASE_SECONDS = 15.0
IDLE_SECONDS = 5
"""A transaction that does nothing for so long is ended by the server: its node is stopped, and others wait for its rows."""
CONNECT_SECONDS = 10
PREPARE_AFTER = 1
_SCHEMA_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,50}")


class Settings(msgspec.Struct, frozen=True):
    """What a store URL says."""

    conninfo: str
    """For libpq."""
    shown: str
    """The URL without its secrets."""
    schema: str = DEFAULT_SCHEMA
    pooled: bool = False
    """Whether a pooler in transaction mode stands between: nothing of a session lasts, and nobody can LISTEN."""
    lease_seconds: float = LEASE_SECONDS
    """How long after its last sign of life a node is taken for dead."""


def parse_url(url: str) -> Settings:
    """Read `postgresql://user:password@host:port/database?schema=holdfast`.

    Beside libpq's own parameters it takes `schema`, `pooler=transaction` and `lease_seconds`.

    Raises:
        ConfigurationError: the URL isn't one of PostgreSQL's, or a parameter isn't usable.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigurationError(
            f"store {hide_credentials(url)!r} is not understood ({error}); write postgresql://user@host/database"
        ) from None
    if not is_postgres(url):
        raise ConfigurationError(f"store {hide_credentials(url)!r} is not understood; write postgresql://user@host/database")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    schema = query.pop("schema", DEFAULT_SCHEMA)
    pooler = query.pop("pooler", "")
    lease = query.pop("lease_seconds", str(LEASE_SECONDS))
    if not _SCHEMA_NAME.fullmatch(schema):
        raise ConfigurationError(f"schema {schema!r} in the store URL is not a name: letters, digits and _ are")
    if pooler not in {"", "transaction"}:
        raise ConfigurationError(f"pooler={pooler!r} in the store URL is not understood; the one value is transaction")
    try:
        lease_seconds = float(lease)
    except ValueError:
        lease_seconds = 0.0
    if not 1 <= lease_seconds <= 600:
        raise ConfigurationError(f"lease_seconds={lease!r} in the store URL must be between 1 and 600 seconds")
    conninfo = urlunsplit(("postgresql", parts.netloc, parts.path, urlencode(query, quote_via=quote), ""))
    return Settings(conninfo, without_secrets(url), schema, pooler == "transaction", lease_seconds)


def connect(settings: Settings, purpose: str) -> Connection:
    """Open a connection; each statement is a transaction unless one is begun.

    Args:
        settings: Where to.
        purpose: What for, as `pg_stat_activity` shows it.

    Raises:
        StoreUnreachableError: the server can't be reached now.
        StoreError: it refuses us.
    """
    try:
        conn = psycopg.connect(
            settings.conninfo,
            autocommit=True,
            connect_timeout=CONNECT_SECONDS,
            application_name=f"holdfast {purpose}",
            prepare_threshold=None if settings.pooled else PREPARE_AFTER,
        )
    except psycopg.Error as error:
        raise translate(error, settings) from error
    values.register(conn)
    return conn


def settle(conn: Connection, settings: Settings) -> None:
    """Set a session up for writing. Behind a pooler each transaction has to: see `TRANSACTION_SETTINGS`."""
    if not settings.pooled:
        conn.execute("SELECT set_config('idle_in_transaction_session_timeout', %s, false)", [f"{IDLE_SECONDS}s"])
        # statements are prepared once and tables begin empty: a plan made then would scan them for ever after
        conn.execute("SELECT set_config('enable_seqscan', 'off', false), set_config('jit', 'off', false)")


_SET_LOCALLY = (
    b"SELECT set_config('idle_in_transaction_session_timeout', %s, true), set_config('enable_seqscan', 'off', true),"
    b" set_config('jit', 'off', true)"
)
TRANSACTION_SETTINGS: Query = (_SET_LOCALLY, [f"{IDLE_SECONDS}s"])


def pipelined(conn: Connection, queries: Sequence[Query]) -> list[Cursor]:
    """Send these statements in one go; their results, in order."""
    cursors = []
    with conn.pipeline():
        for statement, parameters in queries:
            cursor = conn.cursor(binary=True)
            cursor.execute(statement, parameters)
            cursors.append(cursor)
    return cursors


def discard(conn: Connection | None) -> None:
    """Close a connection that may be broken."""
    if conn is not None:
        with contextlib.suppress(psycopg.Error):
            conn.close()


def lost(error: BaseException, conn: Connection | None) -> bool:
    """Whether an error means that the connection is gone."""
    if isinstance(error, StoreUnreachableError):
        return True
    if not isinstance(error, psycopg.Error):
        return False
    state = error.sqlstate
    if state is not None and (state[:2] in {"08", "57"} or state in _ENDED):
        # 57014 is a cancelled statement, the one of its class after which the session goes on
        return state != "57014"
    return conn is None or conn.broken or conn.closed or isinstance(error, psycopg.InterfaceError)


_ENDED = {"25P03", "25P04", "53300"}
"""Idle transaction ended, transaction took too long, no connection free."""
_FULL = {"53100"}
_FAILED = {"58030", "XX001", "XX002"}
_REFUSALS = ("does not exist", "authentication failed", "pg_hba.conf", "password")
"""Of a connection that is refused there is only text."""
_AGAIN = {"40001", "40P01", "55P03"}


def conflicting(error: BaseException) -> bool:
    """Whether doing the transaction again is the answer: a deadlock, or another node's change in between."""
    return isinstance(error, psycopg.Error) and error.sqlstate in _AGAIN


def translate(error: BaseException, settings: Settings, conn: Connection | None = None) -> BaseException:
    """The store's own error for one of the database's."""
    if isinstance(error, StoreError) or not isinstance(error, psycopg.Error):
        return error
    where, state = settings.shown, error.sqlstate
    said = str(error).strip().partition("\n")[0]
    if state in _FULL:
        return StoreFullError(f"the disk of {where} is full; free some space, writing resumes by itself")
    if state in _FAILED:
        return StoreFailedError(
            f"{where} reported a failed disk ({said}): holdfast stopped accepting work; check the database server and restart"
        )
    if state is None and "FATAL" in said and any(words in said for words in _REFUSALS):
        return StoreUnreachableError(
            f"{where} refuses us ({said}): check the user, password and database in the store URL"
        )
    if lost(error, conn):
        return StoreUnreachableError(f"{where} can't be reached ({said}); writing resumes by itself once it can")
    return StoreError(f"{where}: {said}")
