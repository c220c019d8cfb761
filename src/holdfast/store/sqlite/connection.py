"""Opening an SQLite database: its settings, its one owner, its schema."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

from holdfast.base.errors import ConfigurationError, StoreError, StoreInUseError
from holdfast.base.forks import close_after_fork
from holdfast.base.masks import hide_credentials
from holdfast.store.migrate import migrate_sqlite

_MEMORY = {"sqlite://", "sqlite:///:memory:", "sqlite://:memory:"}


def database_path(url: str) -> Path | None:
    """The file of a store URL; None for a database in memory.

    Raises:
        ConfigurationError: the URL isn't one of SQLite's.
    """
    if url in _MEMORY:
        return None
    if not url.startswith("sqlite:///"):
        raise ConfigurationError(
            f"store {hide_credentials(url)!r} is not understood; write sqlite:///path/to/file.db, or sqlite:// for memory"
        )
    return Path(url.removeprefix("sqlite:///")).expanduser()


class StoreHeldError(StoreInUseError):
    """Another process has the database open. `shared` says whether it lets processes of its application work through it."""

    def __init__(self, message: str, *, shared: bool) -> None:
        super().__init__(message)
        self.shared = shared


class Ownership:
    """The sidecar file that says which process owns a database: an flock, and who holds it in words."""

    def __init__(self, path: Path, apps: tuple[str, ...], *, shared: bool = False) -> None:
        self.path = path.with_name(path.name + "-lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self._holder()
            held_by = holder.get("apps")
            named = ", ".join(str(app) for app in held_by) if isinstance(held_by, list) else ""
            os.close(self._fd)
            raise StoreHeldError(
                f"{path} is in use by process {holder.get('pid', 'unknown')} (app {named or 'unknown'}): "
                "stop that process, or give this one a store of its own with --store or store=",
                shared=not holder or holder.get("shared") is True,  # who has just got it hasn't said anything yet
            ) from None
        said = json.dumps({"pid": os.getpid(), "apps": list(apps), "shared": shared}).encode()
        os.pwrite(self._fd, said, 0)
        os.ftruncate(self._fd, len(said))  # afterwards, so that there is always something to read
        close_after_fork(self)

    def descriptors(self) -> list[int]:
        """See `forks.Holder`: a lock lasts until the last copy of its descriptor is closed."""
        return [self._fd] if self._fd >= 0 else []

    def _holder(self) -> dict[str, object]:
        try:
            found = json.loads(os.pread(self._fd, 4096, 0) or b"{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def release(self) -> None:
        """Give the database up."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def open_writer(path: Path | None, *, synchronous: str = "FULL") -> sqlite3.Connection:
    """The one connection that writes.

    Raises:
        StoreError: the file can't be opened or isn't a database.
    """
    try:
        conn = sqlite3.connect(
            ":memory:" if path is None else path,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=4096,
            timeout=10,
        )
        if path is not None:
            conn.execute("PRAGMA journal_mode = WAL")
        conn.execute(f"PRAGMA synchronous = {synchronous}")
        conn.execute("PRAGMA wal_autocheckpoint = 0")
        conn.execute("PRAGMA cache_size = -65536")
        conn.execute("PRAGMA temp_store = MEMORY")
        conn.execute("PRAGMA secure_delete = OFF")
    except sqlite3.Error as error:
        raise StoreError(
            f"can't open {path}: {error}; is it an SQLite file, and may this process write there?"
        ) from error
    return conn


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that sees what is committed, and nothing of the group being written."""
    conn = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=512, timeout=10)
    conn.execute("PRAGMA query_only = ON")
    return conn


def close_without_checkpoint(path: Path, *connections: sqlite3.Connection) -> None:
    """Close a database whose disk has failed, without the syncs that closing it usually means."""
    # the last connection to be closed checkpoints; one that can't write doesn't
    last = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, isolation_level=None)
    try:
        with contextlib.suppress(sqlite3.Error):
            last.execute("SELECT count(*) FROM sqlite_master").fetchone()
        for conn in connections:
            conn.close()
    finally:
        last.close()


def prepare(conn: sqlite3.Connection, path: Path | None, apps: tuple[str, ...], now: int) -> int:
    """Bring the schema up to date, bind the file to its application, and count this boot.

    Returns:
        The boot generation: the owner under which this process leases.

    Raises:
        StoreInUseError: the file belongs to another application.
    """
    where = str(path or "memory")
    migrate_sqlite(conn, now, where)
    conn.execute("BEGIN IMMEDIATE")
    try:
        bound = _meta(conn, "apps")
        known = set(json.loads(bound)) if bound else set()
        if known and apps and not known & set(apps):
            raise StoreInUseError(
                f"{where} belongs to app {', '.join(sorted(known))}, not to {', '.join(apps)}: "
                "give each application a store of its own with --store or store="
            )
        boot = int(_meta(conn, "boot") or 0) + 1
        _set_meta(conn, "apps", json.dumps(sorted(known | set(apps))))
        _set_meta(conn, "boot", str(boot))
        conn.execute("COMMIT")
    except BaseException:
        conn.execute("ROLLBACK")
        raise
    return boot


def _meta(conn: sqlite3.Connection, key: str) -> str | None:
    row = conn.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


def _set_meta(conn: sqlite3.Connection, key: str, value: str) -> None:
    conn.execute(
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, value),
    )
