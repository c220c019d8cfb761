"""Moving the write-ahead log into the database, off the commit path."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

_CHECK_EVERY = 64
_SOFT_LIMIT = 8 * 1024 * 1024
_HARD_LIMIT = 128 * 1024 * 1024


class Checkpointer:
    """A thread with a connection of its own that checkpoints when the log has grown.

    Args:
        path: The database's file.
        failed: Called in that thread when the disk failed a write or sync. No checkpoint follows.
    """

    def __init__(self, path: Path, failed: Callable[[sqlite3.Error], None]) -> None:
        self._path = path
        self._failed = failed
        self._given_up = False
        self._wal = path.with_name(path.name + "-wal")
        self._groups = 0
        self._wanted = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="holdfast-checkpoint", daemon=True)
        self.problem: str | None = None
        """Why the last checkpoint failed, if it did; the log keeps growing meanwhile and nothing is lost."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Checkpoint once more and end."""
        self._stopping = True
        self._wanted.set()
        if self._thread.is_alive():
            self._thread.join()

    def give_up(self) -> None:
        """The disk has failed: a sync must not be tried again, as it may then succeed without what was lost."""
        self._given_up = True

    def wrote(self) -> None:
        """A group was committed; cheap, called for each."""
        self._groups += 1
        if self._groups >= _CHECK_EVERY:
            self._groups = 0
            if self._size() > _SOFT_LIMIT:
                self._wanted.set()

    def _size(self) -> int:
        try:
            return self._wal.stat().st_size
        except OSError:
            return 0

    def _run(self) -> None:
        conn = sqlite3.connect(self._path, isolation_level=None, timeout=5)
        conn.execute("PRAGMA wal_autocheckpoint = 0")
        try:
            while not self._stopping:
                self._wanted.wait()
                self._wanted.clear()
                self._checkpoint(conn)
        finally:
            conn.close()

    def _checkpoint(self, conn: sqlite3.Connection) -> None:
        if self._given_up:
            return
        # PASSIVE never makes the writer wait; past the hard limit a short wait is the lesser evil
        mode = "TRUNCATE" if self._stopping or self._size() > _HARD_LIMIT else "PASSIVE"
        try:
            conn.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
            self.problem = None
        except sqlite3.Error as error:
            self.problem = f"checkpoint of {self._path} failed: {error}"
            if (error.sqlite_errorname or "").startswith("SQLITE_IOERR"):
                self.give_up()
                self._failed(error)
