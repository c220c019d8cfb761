"""Looking at a database file from outside, without becoming its owner and without writing to it."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from pathlib import Path

import msgspec

from holdfast.base.errors import StoreError
from holdfast.store.migrate import migrations

SQLITE_VERSION = sqlite3.sqlite_version
"""The SQLite library in this process."""


class DatabaseReport(msgspec.Struct, frozen=True):
    """What a database file says about itself."""

    path: Path
    bytes: int
    """Size of the file."""
    wal_bytes: int
    """Size of the write-ahead log beside it; it shrinks at checkpoints."""
    schema: int | None
    """Number of the newest migration applied; None when it holds no holdfast schema."""
    known_schema: int
    """Number of the newest migration this holdfast has."""
    apps: tuple[str, ...]
    """The applications it belongs to."""
    holder: int | None
    """The process that owns it now."""
    damage: str | None
    """What SQLite's own check found; None when nothing, or when it wasn't asked."""


def inspect_database(path: Path, *, check: bool = False) -> DatabaseReport:
    """Read a database file's condition.

    Args:
        path: The file; it must be there.
        check: Also run SQLite's quick check, which reads the whole file.

    Raises:
        StoreError: it can't be read, or isn't an SQLite database.
    """
    wal = path.with_name(path.name + "-wal")
    try:
        conn = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5)
        try:
            tables = {str(row[0]) for row in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            schema = (
                conn.execute("SELECT max(number) FROM migrations").fetchone()[0] if "migrations" in tables else None
            )
            bound = conn.execute("SELECT value FROM meta WHERE key = 'apps'").fetchone() if "meta" in tables else None
            found = str(conn.execute("PRAGMA quick_check(1)").fetchone()[0]) if check else "ok"
        finally:
            conn.close()
        return DatabaseReport(
            path=path,
            bytes=path.stat().st_size,
            wal_bytes=wal.stat().st_size if wal.exists() else 0,
            schema=schema,
            known_schema=migrations("sqlite")[-1].number,
            apps=tuple(json.loads(bound[0])) if bound else (),
            holder=holder_of(path),
            damage=None if found == "ok" else found,
        )
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"can't read {path}: {error}; is it an SQLite file, and may this user read it?") from error


def holder_of(path: Path) -> int | None:
    """The process that owns a database file now, by the lock on the file beside it; 0 when it doesn't say who it is."""
    lock = path.with_name(path.name + "-lock")
    try:
        fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid(fd)
    else:
        return None
    finally:
        os.close(fd)


def _pid(fd: int) -> int:
    try:
        return int(json.loads(os.pread(fd, 4096, 0))["pid"])
    except (ValueError, KeyError, TypeError):
        return 0
