"""Whole database files: opened to be read as they are, checked, and put in place at once."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast.base.errors import StoreError, StoreInUseError
from holdfast.store.migrate import Migration, migrations, too_new
from holdfast.store.sqlite.connection import Ownership
from holdfast.store.sqlite.inspection import holder_of


@contextmanager
def reading_errors(path: Path) -> Iterator[None]:
    """Errors of SQLite as the store's, with the file named."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"can't read {path}: {error}; is it an SQLite file, and may this user read it?") from error


def open_as_it_is(path: Path) -> sqlite3.Connection:
    """A connection that can't write, in a transaction that sees one moment of the database.

    Raises:
        StoreError: the file isn't there, or isn't a database.
    """
    if not path.exists():
        raise StoreError(f"there is no {path}")
    with reading_errors(path):
        conn = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=10)
        try:
            conn.execute("BEGIN")
            conn.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except BaseException:
            conn.close()
            raise
        return conn


def tables_of(conn: sqlite3.Connection) -> dict[str, tuple[str, ...]]:
    """The tables of a database, with the names of their columns."""
    names = conn.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'").fetchall()
    return {name: tuple(row[1] for row in conn.execute(f'PRAGMA table_info("{name}")')) for (name,) in sorted(names)}


def schema_of(conn: sqlite3.Connection, path: Path) -> int:
    """The number of the newest migration of a database.

    Raises:
        StoreVersionError: a newer holdfast wrote it.
        StoreError: it isn't one of holdfast's, or its schema was changed by hand.
    """
    if "migrations" not in tables_of(conn):
        raise StoreError(f"{path} holds no holdfast: name the database of a server, or a backup of one")
    applied: dict[int, str] = dict(conn.execute("SELECT number, checksum FROM migrations").fetchall())
    return checked(applied, migrations("sqlite"), str(path))


def checked(applied: dict[int, str], known: list[Migration], where: str) -> int:
    """The number of the newest of the migrations that were applied, if they are those that are known.

    Raises:
        StoreVersionError: there are newer ones.
        StoreError: there are others, or some are missing.
    """
    newest = max(applied, default=0)
    if newest > known[-1].number:
        raise too_new(where, newest, known[-1].number)
    expected = {migration.number: migration.checksum for migration in known if migration.number <= newest}
    if not newest or applied != expected:
        raise StoreError(f"{where}: its migrations are not those of this holdfast; was it changed by hand?")
    return newest


@contextmanager
def owned(path: Path, purpose: str, why: str) -> Iterator[None]:
    """Hold a database, so that no engine opens it meanwhile.

    Raises:
        StoreInUseError: a process has it open.
    """
    try:
        ownership = Ownership(path, (purpose,))
    except StoreInUseError as error:
        raise StoreInUseError(
            f"{path} is being used by process {holder_of(path) or 'unknown'}: stop it first, {why}"
        ) from error
    except OSError as error:
        raise StoreError(f"can't lock {path}: {error}; may this user write beside it?") from error
    try:
        yield
    finally:
        ownership.release()


def check_whole(conn: sqlite3.Connection, path: Path) -> None:
    """Let SQLite look at every page and every index entry.

    Raises:
        StoreError: something is wrong with it.
    """
    with reading_errors(path):
        found = [str(row[0]) for row in conn.execute("PRAGMA integrity_check(3)")]
    if found != ["ok"]:
        raise StoreError(f"{path} is damaged: {'; '.join(found)}")


def beside(path: Path) -> Path:
    """Where a file is made that is to take the place of another. What an interrupted attempt left there is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    incoming = path.with_name(path.name + ".incoming")
    for leftover in (incoming, *_companions(incoming)):
        leftover.unlink(missing_ok=True)
    return incoming


def put_in_place(incoming: Path, path: Path) -> None:
    """Let a finished file take the place of another, on disk, at once. The other is not in use.

    Raises:
        StoreError: the disk refuses.
    """
    try:
        _sync(incoming)
        if path.exists():
            _fold(path)
        # a log of the former file would be applied to the new one
        for companion in _companions(path):
            companion.unlink(missing_ok=True)
        os.replace(incoming, path)  # noqa: PTH105 - what it is called in every text on the subject
        _sync(path.parent)
    except OSError as error:
        raise StoreError(f"can't write {path}: {error}") from error


def _companions(path: Path) -> list[Path]:
    return [path.with_name(path.name + ending) for ending in ("-wal", "-shm", "-journal")]


def _fold(path: Path) -> None:
    """Bring a database's log into its file, so that it is whole without the log until it is replaced."""
    with contextlib.suppress(sqlite3.Error):  # one that is damaged is replaced all the same
        conn = sqlite3.connect(path, isolation_level=None)
        try:
            conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            conn.close()


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
