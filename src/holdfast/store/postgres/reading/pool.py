"""Read-only connections to PostgreSQL, each in a thread of its own, and the limits of what a read may take."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import psycopg

from holdfast.base.clock import monotonic
from holdfast.base.errors import StoreError
from holdfast.store.postgres.connection import Connection, Cursor, Settings, connect, discard, lost, pipelined
from holdfast.store.postgres.reading.dialect import translate
from holdfast.store.postgres.values import from_text, to_text
from holdfast.store.sqlite.reading.pool import Job, ReadPool

T = TypeVar("T")

_BEGIN = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_LIMITS = b"SELECT set_config('search_path', %s, true), set_config('statement_timeout', %s, true), set_config('jit', 'off', true)"


class Result:
    """What a statement gives."""

    __slots__ = ("_cursor",)

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row."""
        row = self._cursor.fetchone()
        return None if row is None else _row(row)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """The rows that are left."""
        return [_row(row) for row in self._cursor.fetchall()]

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.fetchall())


def _row(row: tuple[Any, ...]) -> tuple[Any, ...]:
    if any(type(value) is str and "\x1a" in value for value in row):
        return tuple(from_text(value) if type(value) is str else value for value in row)
    return row


class Reading:
    """A transaction of one read, as the reading side's functions use a connection."""

    __slots__ = ("_conn",)

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Result:
        """Execute a statement of the reading side."""
        text, order = translate(statement)
        given = [parameters[position] for position in order]
        values = [to_text(value) if type(value) is str else value for value in given]
        return Result(self._conn.cursor(binary=True).execute(text, values))


class PostgresReadPool(ReadPool):
    """Runs reads off the loop. A read is one transaction, so that all of its statements see the same commit.

    Args:
        settings: Where the database is.
        connections: How many reads go on at once.
        time_limit: Seconds a read may take, waiting for a thread included.
    """

    def __init__(self, settings: Settings, *, connections: int, time_limit: float) -> None:
        super().__init__(settings.shown, connections=connections, time_limit=time_limit)
        self._settings = settings

    # -- in the threads ----------------------------------------------------------------------------------------------

    def _run(self, read: Callable[[Any], T], job: Job) -> T:
        if job.over():
            raise self._too_long(job)
        job.started = True
        try:
            return self._read(read, job)
        except psycopg.Error as error:
            if error.sqlstate == "57014":
                raise self._too_long(job) from error
            raise StoreError(f"{self._path} can't be read: {str(error).partition(chr(10))[0]}") from error

    def _read(self, read: Callable[[Any], T], job: Job) -> T:
        conn = self._begin(job)
        try:
            return read(Reading(conn))
        finally:
            with contextlib.suppress(psycopg.Error):
                conn.execute("ROLLBACK")
            if conn.broken:
                self._forget(conn)

    def _begin(self, job: Job) -> Connection:
        """Begin a transaction; on a new connection if the old one has been lost."""
        left = max(1, int((job.deadline - monotonic()) * 1000))
        limits = (_LIMITS, (f'"{self._settings.schema}"', str(left)))
        conn: Connection | None = getattr(self._local, "conn", None)
        if conn is not None:
            try:
                pipelined(conn, [(_BEGIN, ()), limits])
            except psycopg.Error as error:
                if not lost(error, conn):
                    raise
                self._forget(conn)
            else:
                return conn
        conn = self._local.conn = connect(self._settings, "reader")
        self._opened.append(conn)
        pipelined(conn, [(_BEGIN, ()), limits])
        return conn

    def _forget(self, conn: Connection) -> None:
        discard(conn)
        if conn in self._opened:
            self._opened.remove(conn)
        self._local.conn = None
