"""A database file as the source or the target of a copy, and backups of one."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from holdfast.base.errors import StoreError, StoreNotEmptyError
from holdfast.store.copying import MAY_BE_FILLED, Values
from holdfast.store.migrate import migrate_sqlite
from holdfast.store.sqlite.files import (
    beside,
    check_whole,
    open_as_it_is,
    owned,
    put_in_place,
    reading_errors,
    schema_of,
    tables_of,
)

PAGES_AT_ONCE = 2000


class SqliteRows:
    """The rows of a database."""

    def __init__(self, conn: sqlite3.Connection, path: Path, schema: int) -> None:
        self._conn = conn
        self._path = path
        self.shown = str(path)
        self.schema = schema
        """Number of its newest migration."""

    def tables(self) -> dict[str, tuple[str, ...]]:
        """Its tables, with the names of their columns."""
        return tables_of(self._conn)

    def count(self, table: str) -> int:
        """How many rows a table has."""
        with reading_errors(self._path):
            return int(self._conn.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0])

    def rows(self, table: str, columns: tuple[str, ...]) -> Iterator[Values]:
        """All rows of a table, one at a time."""
        names = ", ".join(f'"{column}"' for column in columns)
        with reading_errors(self._path):
            yield from self._conn.execute(f'SELECT {names} FROM "{table}"')


class SqliteTarget(SqliteRows):
    """A database that is being made."""

    def write(self, table: str, columns: tuple[str, ...], rows: Iterable[Values]) -> None:
        """Add rows."""
        names = ", ".join(f'"{column}"' for column in columns)
        marks = ", ".join("?" * len(columns))
        try:
            self._conn.executemany(f'INSERT INTO "{table}" ({names}) VALUES ({marks})', rows)
        except sqlite3.Error as error:
            raise StoreError(f"can't write {table} to {self.shown}: {error}; is there space on the disk?") from error

    def derive(self) -> None:
        """Nothing follows here: paths and counts of leases are in memory."""


@contextmanager
def source(path: Path, *, alone: bool) -> Iterator[SqliteRows]:
    """Read a database. Nothing of it is changed.

    Args:
        path: The file.
        alone: Refuse while a process has it open, and keep others out. Without, it is read as of one moment.

    Raises:
        StoreInUseError: a process has it open.
        StoreError: it can't be read, or isn't one of holdfast's.
    """
    with contextlib.closing(open_as_it_is(path)) as conn:
        schema_of(conn, path)  # before anything is put beside a file that isn't a store
    with ExitStack() as stack:
        if alone:
            stack.enter_context(owned(path, "being copied", "as what it did meanwhile would be missing in the copy"))
        conn = stack.enter_context(contextlib.closing(open_as_it_is(path)))
        yield SqliteRows(conn, path, schema_of(conn, path))


@contextmanager
def target(path: Path, schema: int, now: int, *, overwrite: bool = False) -> Iterator[SqliteTarget]:
    """Make a database beside its place, and put it there, checked and on disk, once all is in it.

    Args:
        path: The file.
        schema: The number of the last migration to apply.
        now: The time.
        overwrite: Whether a database with something in it is replaced.

    Raises:
        StoreInUseError: a process has it open.
        StoreNotEmptyError: there is something in it.
        StoreError: it can't be written.
    """
    with owned(path, "being written", "as it would go on with a file that is gone"):
        if not overwrite:
            refuse_unless_empty(path)
        with _made(path) as (conn, _):
            yield from _filled(conn, path, schema, now)
            remedy = "start a node on the source for a moment, stop it, and run this again"
            _refuse_untaken(conn, path, remedy)


@contextmanager
def backup_target(file: Path, schema: int, now: int) -> Iterator[SqliteTarget]:
    """Make a database that is a backup of another kind of store. One that is there is replaced, in the end.

    Raises:
        StoreNotEmptyError: what is there is no backup.
        StoreError: it can't be written.
    """
    _refuse_servers(file)
    with _made(file) as (conn, _):
        yield from _filled(conn, file, schema, now)


def _refuse_untaken(conn: sqlite3.Connection, path: Path, remedy: str) -> None:
    """Events that transactions on PostgreSQL have sent are taken by its nodes: no engine would look for them here."""
    if "outbox" in tables_of(conn) and (left := conn.execute("SELECT count(*) FROM outbox").fetchone()[0]):
        raise StoreError(
            f"{left} events that transactions have sent are not taken yet, and would be stranded in {path}: {remedy}"
        )


def _filled(conn: sqlite3.Connection, path: Path, schema: int, now: int) -> Iterator[SqliteTarget]:
    migrate_sqlite(conn, now, str(path), up_to=schema)
    conn.execute("BEGIN")
    yield SqliteTarget(conn, path, schema)
    conn.execute("COMMIT")


@contextmanager
def _made(path: Path) -> Iterator[tuple[sqlite3.Connection, Path]]:
    """A new file that takes the place of another once the block is through and SQLite has checked it."""
    incoming = beside(path)
    try:
        with contextlib.closing(_new(incoming)) as conn:
            yield conn, incoming
            # one file with nothing beside it, that can be read where nothing may be written
            conn.execute("PRAGMA journal_mode = DELETE")
            check_whole(conn, incoming)
        put_in_place(incoming, path)
    except BaseException:
        beside(path)
        raise


def _refuse_servers(file: Path) -> None:
    if file.with_name(file.name + "-lock").exists():
        raise StoreNotEmptyError(
            f"{file} has been a server's database, not a backup (there is a lock beside it): name another file for the backup"
        )


def _new(incoming: Path) -> sqlite3.Connection:
    try:
        conn = sqlite3.connect(incoming, isolation_level=None)
    except sqlite3.Error as error:
        raise StoreError(f"can't write {incoming}: {error}; may this user write there?") from error
    # it is thrown away when anything fails, and synced once, at the end
    conn.execute("PRAGMA journal_mode = OFF")
    conn.execute("PRAGMA synchronous = OFF")
    conn.execute("PRAGMA cache_size = -65536")
    return conn


def refuse_unless_empty(path: Path) -> None:
    """Make sure that there is nothing at a place, or a database in which nothing happened yet.

    Raises:
        StoreNotEmptyError: there is something.
    """
    if not path.exists() or path.stat().st_size == 0:
        return
    with contextlib.closing(open_as_it_is(path)) as conn:
        for table in tables_of(conn):
            if table not in MAY_BE_FILLED and conn.execute(f'SELECT 1 FROM "{table}" LIMIT 1').fetchone():
                raise StoreNotEmptyError(
                    f"{path} is not empty: there is something in {table}. Name a file that isn't there yet, or move this one away"
                )


def back_up(path: Path, file: Path, told: Callable[[int, int], None]) -> int:
    """Copy a database, also while a server works on it, page by page as of one moment.

    Args:
        path: The database.
        file: The backup; what is there is replaced, once the new one is checked and on disk.
        told: Called with how many pages of how many are copied.

    Returns:
        The number of its newest migration.

    Raises:
        StoreNotEmptyError: what is in the backup's place is no backup.
        StoreError: it can't be read or written, isn't one of holdfast's, or is damaged.
    """
    _refuse_servers(file)
    return _copied(path, file, told)


def _copied(path: Path, file: Path, told: Callable[[int, int], None]) -> int:
    with contextlib.closing(open_as_it_is(path)) as conn:
        schema = schema_of(conn, path)
        with _made(file) as (copy, incoming):
            _copy_pages(conn, copy, path, told)
            schema_of(copy, incoming)
    return schema


def _copy_pages(
    conn: sqlite3.Connection, copy: sqlite3.Connection, path: Path, told: Callable[[int, int], None]
) -> None:
    # the connection is in a transaction: what others write meanwhile doesn't make the copying begin anew
    try:
        conn.backup(copy, pages=PAGES_AT_ONCE, progress=lambda _, left, total: told(total - left, total))
    except sqlite3.Error as error:
        raise StoreError(f"can't copy {path}: {error}; is there space on the disk?") from error


def restore_file(file: Path, path: Path, told: Callable[[int, int], None], *, overwrite: bool) -> int:
    """Put a backup in the place of a database.

    Args:
        file: The backup.
        path: The database.
        told: As for `back_up`.
        overwrite: Whether a database with something in it is replaced.

    Returns:
        The number of its newest migration.

    Raises:
        StoreInUseError: a process has the database open.
        StoreNotEmptyError: there is something in it.
        StoreError: the backup isn't one, is damaged, or has events that only a node on PostgreSQL would take.
    """
    with contextlib.closing(open_as_it_is(file)) as backup:
        _refuse_untaken(backup, path, "restore it to PostgreSQL, start a node there for a moment, and migrate from there")
    with owned(path, "being restored", "as it would go on with a file that is gone"):
        if not overwrite:
            refuse_unless_empty(path)
        return _copied(file, path, told)
