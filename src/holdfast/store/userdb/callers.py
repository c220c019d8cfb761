"""The connections that callers hand over: which kind each is, and how a statement is executed in its transaction.

What is asked of a database is written once, as a generator that yields statements and is given their rows; `ask` drives
it over a connection that blocks, `ask_async` over one that is awaited.
"""

from __future__ import annotations

import re
import sqlite3
import sys
from collections.abc import Callable, Generator, Mapping
from typing import Any, TypeAlias, TypeVar

from holdfast.base.errors import ConfigurationError
from holdfast.store.userdb.tables import Dialect

R = TypeVar("R")
Values: TypeAlias = Mapping[str, Any]
Rows: TypeAlias = list[Any]
Asking: TypeAlias = Generator[tuple[str, Values], Rows, R]
"""A conversation with a database: statements out, rows or the statement's error in, a result at the end."""

_NAMED = re.compile(r"(?<![:\w]):(\w+)")
KINDS = (
    "a psycopg, sqlite3 or aiosqlite connection, an SQLAlchemy Session, AsyncSession, Connection or AsyncConnection, or a "
    "Django connection or its alias"
)


class Caller:
    """A connection of a caller's, whatever its library.

    Args:
        dialect: What its database speaks.
        execute: Executes one statement and gives its rows; to be awaited where `is_async`.
        is_async: Whether it is.
    """

    __slots__ = ("dialect", "execute", "is_async")

    def __init__(self, dialect: Dialect, execute: Callable[[str, Values], Any], *, is_async: bool = False) -> None:
        self.dialect: Dialect = dialect
        self.execute = execute
        self.is_async = is_async


def recognise(connection: Any) -> Caller:
    """The caller's connection.

    Raises:
        ConfigurationError: it is of no kind that is known, or its database is neither SQLite nor PostgreSQL.
    """
    if isinstance(connection, sqlite3.Connection):
        return Caller("sqlite", lambda statement, values: connection.execute(statement, values).fetchall())
    for find in (_of_sqlalchemy, _of_psycopg, _of_aiosqlite, _of_django):
        caller = find(connection)
        if caller is not None:
            return caller
    raise ConfigurationError(f"connection={connection!r:.80} is not understood; pass {KINDS}")


def ask(caller: Caller, asking: Asking[R]) -> R:
    """Have a conversation over a connection that blocks."""
    try:
        statement, values = next(asking)
        while True:
            try:
                rows = caller.execute(statement, values)
            except Exception as error:  # whose meaning the conversation may know
                statement, values = asking.throw(error)
            else:
                statement, values = asking.send(rows)
    except StopIteration as end:
        result: R = end.value
        return result


async def ask_async(caller: Caller, asking: Asking[R]) -> R:
    """The same over one that may have to be awaited."""
    try:
        statement, values = next(asking)
        while True:
            try:
                answer = caller.execute(statement, values)
                rows = await answer if caller.is_async else answer
            except Exception as error:
                statement, values = asking.throw(error)
            else:
                statement, values = asking.send(rows)
    except StopIteration as end:
        result: R = end.value
        return result


def pyformat(statement: str) -> str:
    """A statement with `%(name)s` for its values."""
    return _NAMED.sub(r"%(\1)s", statement)


# -- the kinds: a library that nobody has imported made none of its connections --------------------------------------------


def _of_psycopg(connection: Any) -> Caller | None:
    psycopg: Any = sys.modules.get("psycopg")
    if psycopg is None:
        return None
    if isinstance(connection, psycopg.Connection):

        def execute(statement: str, values: Values) -> Rows:
            return _fetched(connection.cursor(row_factory=psycopg.rows.tuple_row).execute(pyformat(statement), values))

        return Caller("postgresql", execute)
    if isinstance(connection, psycopg.AsyncConnection):

        async def execute_async(statement: str, values: Values) -> Rows:
            cursor = connection.cursor(row_factory=psycopg.rows.tuple_row)
            await cursor.execute(pyformat(statement), values)
            return [] if cursor.description is None else await cursor.fetchall()

        return Caller("postgresql", execute_async, is_async=True)
    return None


def _fetched(cursor: Any) -> Rows:
    return [] if cursor.description is None else list(cursor.fetchall())


def _of_aiosqlite(connection: Any) -> Caller | None:
    aiosqlite: Any = sys.modules.get("aiosqlite")
    if aiosqlite is None or not isinstance(connection, aiosqlite.Connection):
        return None

    async def execute(statement: str, values: Values) -> Rows:
        return list(await connection.execute_fetchall(statement, values))

    return Caller("sqlite", execute, is_async=True)


def _of_sqlalchemy(connection: Any) -> Caller | None:
    if "sqlalchemy" not in sys.modules:
        return None
    from sqlalchemy import Connection, text
    from sqlalchemy.orm import Session, scoped_session

    if isinstance(connection, Connection | Session | scoped_session):

        def execute(statement: str, values: Values) -> Rows:
            result: Any = connection.execute(text(statement), values)
            return list(result.fetchall()) if result.returns_rows else []

        return Caller(_dialect_of(connection), execute)
    if "sqlalchemy.ext.asyncio" not in sys.modules:
        return None
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session

    if isinstance(connection, AsyncConnection | AsyncSession | async_scoped_session):

        async def execute_async(statement: str, values: Values) -> Rows:
            result: Any = await connection.execute(text(statement), values)
            return list(result.fetchall()) if result.returns_rows else []

        return Caller(_dialect_of(connection), execute_async, is_async=True)
    return None


def _dialect_of(connection: Any) -> Dialect:
    bind = connection.get_bind() if hasattr(connection, "get_bind") else connection
    return _known(bind.dialect.name)


def _of_django(connection: Any) -> Caller | None:
    django: Any = sys.modules.get("django.db")
    if django is None:
        return None
    if isinstance(connection, str):
        if connection not in django.connections:
            known = ", ".join(sorted(django.connections))
            raise ConfigurationError(f"connection={connection!r} is no alias of Django's DATABASES, which has {known}")
        connection = django.connections[connection]
    if not hasattr(connection, "vendor") or not hasattr(connection, "cursor"):
        return None

    def execute(statement: str, values: Values) -> Rows:
        with connection.cursor() as cursor:
            cursor.execute(pyformat(statement), values)
            return _fetched(cursor)

    return Caller(_known(connection.vendor), execute)


def _known(dialect: str) -> Dialect:
    if dialect == "sqlite":
        return "sqlite"
    if dialect == "postgresql":
        return "postgresql"
    raise ConfigurationError(
        f"connection= is to a {dialect} database; events can be sent in transactions of SQLite and PostgreSQL"
    )
