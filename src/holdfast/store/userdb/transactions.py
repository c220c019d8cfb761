"""Transactions of an application's own database, however the application reaches it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from typing import Any

from holdfast.base.errors import ConfigurationError
from holdfast.store.userdb.address import Address
from holdfast.store.userdb.opened import connect

SOURCES = (
    "a holdfast.Database, an SQLAlchemy sessionmaker, async_sessionmaker, Engine or AsyncEngine, a psycopg connection pool, "
    "or the alias of a Django database"
)


def transaction(source: Any, address: Address | None) -> Any:
    """A context manager around one transaction for a plain `def`: it gives the connection, commits at the end, and rolls
    back on an error.

    Args:
        source: What the user gave.
        address: Where the database is, if that is all that was given.

    Raises:
        ConfigurationError: it can't be used so.
    """
    if address is not None:
        return _own(address)
    if isinstance(source, str):
        return _django(source)
    manager = _begun(source)
    if hasattr(manager, "__enter__"):
        return manager
    raise ConfigurationError(f"{source!r:.80} is async, and the step's body is a plain def: make the body `async def`")


def transaction_async(source: Any, address: Address | None) -> Any:
    """The same for an `async def`. An async context manager; a source that blocks, blocks the loop while it does."""
    if address is not None:
        return _own_async(address)
    manager = _django(source) if isinstance(source, str) else _begun(source)
    return manager if hasattr(manager, "__aenter__") else _entered(manager)


def _begun(source: Any) -> Any:
    begin = getattr(source, "begin", None) or getattr(source, "connection", None)
    if begin is None or not callable(begin):
        raise ConfigurationError(f"{source!r:.80} is no database that a step can use; pass {SOURCES}")
    return begin()


@asynccontextmanager
async def _entered(manager: Any) -> AsyncIterator[Any]:
    with manager as conn:
        yield conn


@contextmanager
def _own(address: Address) -> Iterator[Any]:
    conn = connect(address)
    try:
        conn.execute("BEGIN IMMEDIATE" if address.path is not None else "BEGIN")
        yield conn
        conn.execute("COMMIT")
    finally:
        conn.close()  # without a commit, that is a rollback


@asynccontextmanager
async def _own_async(address: Address) -> AsyncIterator[Any]:
    conn = await _connect_async(address)
    try:
        await conn.execute("BEGIN IMMEDIATE" if address.path is not None else "BEGIN")
        yield conn
        await conn.execute("COMMIT")
    finally:
        await conn.close()


async def _connect_async(address: Address) -> Any:
    if address.path is None:
        import psycopg

        return await psycopg.AsyncConnection.connect(address.conninfo, autocommit=True, connect_timeout=10)
    if find_spec("aiosqlite") is None:
        raise ConfigurationError(
            f"a step of an async function gets an aiosqlite connection to {address.shown}, and aiosqlite is not installed: "
            "pip install aiosqlite, or make the step's body a plain def, which gets a sqlite3 connection"
        )
    import aiosqlite

    return await aiosqlite.connect(address.path, isolation_level=None, timeout=10)


@contextmanager
def _django(alias: str) -> Iterator[Any]:
    if "django.db" not in sys.modules:
        raise ConfigurationError(f"{alias!r} is taken for the alias of a Django database, and no Django runs here")
    from django.db import connections, transaction

    conn = connections[alias]
    # a thread of holdfast's has no requests, at whose ends Django looks after its connections
    conn.close_if_unusable_or_obsolete()
    try:
        with transaction.atomic(using=alias):
            yield conn
    finally:
        conn.close_if_unusable_or_obsolete()


