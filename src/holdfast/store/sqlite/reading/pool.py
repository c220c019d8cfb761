"""Read-only connections, each in a thread of its own, and the limits of what a read may take."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from holdfast.base.clock import monotonic
from holdfast.base.errors import StoreError

T = TypeVar("T")

MAX_WAITING = 256
"""Reads that may wait for a thread; more are refused at once."""
_OPERATIONS_PER_CHECK = 100_000
"""Steps of SQLite's machine between two looks at the time: a few milliseconds' worth."""
_BUSY_SECONDS = 5.0
_GRACE_SECONDS = 0.5
"""After the limit, the caller is let go even if the thread hasn't noticed it, as in one long sort or on a slow disk."""


class Job:
    """One read: until when it may go on, and whether anybody still wants it."""

    __slots__ = ("abandoned", "deadline", "started")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.started = False
        self.abandoned = False

    def over(self) -> bool:
        return self.abandoned or monotonic() > self.deadline


class ReadPool:
    """Runs reads off the loop. A read is one transaction, so that all of its statements see the same commit.

    Args:
        path: The database file; it must exist by the first read.
        connections: How many reads go on at once.
        time_limit: Seconds a read may take, waiting for a thread included.
    """

    def __init__(self, path: Path | str, *, connections: int, time_limit: float) -> None:
        self._path = path
        self._time_limit = time_limit
        self._threads = ThreadPoolExecutor(connections, thread_name_prefix="holdfast-reader")
        self._local = threading.local()
        self._opened: list[Any] = []
        self._waiting = 0
        self._closed = False

    async def run(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """The result of `read`, called in one of the threads within a transaction of its own.

        Raises:
            StoreError: it took too long, too many wait already, the pool is closed, or the file can't be read.
        """
        if self._closed:
            raise StoreError(f"{self._path} is closed: nothing can be read of it any more")
        if self._waiting >= MAX_WAITING:
            raise StoreError(f"{self._waiting} reads of {self._path} wait already; try again in a moment")
        job = Job(monotonic() + self._time_limit)
        self._waiting += 1
        try:
            async with asyncio.timeout(self._time_limit + _GRACE_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, read, job)
        except TimeoutError:
            raise self._too_long(job) from None
        finally:
            # whatever ended the wait, a read still going on is of no use to anybody
            job.abandoned = True
            self._waiting -= 1

    def close(self) -> None:
        """Let running reads end, refuse those that wait, and close the connections. Blocks until then."""
        self._closed = True
        self._threads.shutdown(wait=True, cancel_futures=True)
        for conn in self._opened:
            conn.close()
        self._opened.clear()

    # -- in the threads ----------------------------------------------------------------------------------------------

    def _run(self, read: Callable[[sqlite3.Connection], T], job: Job) -> T:
        if job.over():
            raise self._too_long(job)
        job.started = True
        try:
            conn = self._connection()
            conn.set_progress_handler(job.over, _OPERATIONS_PER_CHECK)
            try:
                conn.execute("BEGIN")
                return read(conn)
            finally:
                conn.set_progress_handler(None, 0)
                if conn.in_transaction:
                    conn.execute("ROLLBACK")
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorname", None) == "SQLITE_INTERRUPT":
                raise self._too_long(job) from error
            raise StoreError(f"{self._path} can't be read: {error}") from error

    def _connection(self) -> sqlite3.Connection:
        conn: sqlite3.Connection | None = getattr(self._local, "conn", None)
        if conn is None:
            # mode=rw: a reader must not make the file, and one that is read-only could not open a log left by a crash
            conn = sqlite3.connect(
                f"file:{quote(str(Path(self._path).absolute()))}?mode=rw",
                uri=True,
                isolation_level=None,
                timeout=_BUSY_SECONDS,
                check_same_thread=False,
                cached_statements=256,
            )
            self._opened.append(conn)
            conn.execute("PRAGMA query_only = ON")
            conn.execute("PRAGMA cache_size = -16384")
            self._local.conn = conn
        return conn

    def _too_long(self, job: Job) -> StoreError:
        if not job.started:
            return StoreError(
                f"no thread was free to read {self._path} within {self._time_limit:g} s; try again in a moment"
            )
        return StoreError(
            f"reading {self._path} took longer than {self._time_limit:g} s and was given up; "
            "ask for less: one function, one status, or a shorter time"
        )
