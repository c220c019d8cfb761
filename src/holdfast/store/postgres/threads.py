"""A thread with a database connection, and the jobs it does one after another."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from holdfast.base.clock import monotonic
from holdfast.store.postgres.connection import Connection, Settings, connect, discard, lost, settle, translate

T = TypeVar("T")

PATIENCE_SECONDS = 10.0
"""How long reads wait for a server that is away."""
_RETRY_SECONDS = 0.1
Job = Callable[[], None]


class DatabaseThread:
    """Runs jobs with one connection, which is opened when it is needed and again when it is lost.

    Args:
        settings: Where the database is.
        purpose: What for, as `pg_stat_activity` shows it.
        conn: A connection to begin with.
    """

    def __init__(self, settings: Settings, purpose: str, conn: Connection | None = None) -> None:
        self.settings = settings
        self._purpose = purpose
        self._conn = conn
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"holdfast-{purpose}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the jobs there are, and close the connection. Blocks until then."""
        self.stopping.set()
        self._jobs.put(None)
        if self._thread.is_alive():
            self._thread.join()
        discard(self._conn)
        self._conn = None

    def put(self, job: Job) -> None:
        """Have a job done; it must not raise."""
        self._jobs.put(job)

    async def run(self, job: Callable[[Connection], T]) -> T:
        """Have a job done with the connection, and return its result. It may be begun again, if the connection is lost over it.

        Raises:
            StoreError: the database can't be reached for `PATIENCE_SECONDS`, or refuses.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            until = monotonic() + PATIENCE_SECONDS
            while True:
                try:
                    result = job(self.connection())
                except Exception as error:
                    found = translate(error, self.settings, self._conn)
                    gone = self.failed(error)
                    if gone and monotonic() < until and not self.stopping.wait(_RETRY_SECONDS):
                        continue
                    tell(loop, _fail, future, found)
                else:
                    tell(loop, _answer, future, result)
                return

        self.put(work)
        return await future

    # -- in the thread -----------------------------------------------------------------------------------------------------

    def connection(self) -> Connection:
        """The connection.

        Raises:
            StoreUnreachableError: there is none to be had now.
        """
        if self._conn is None:
            self._conn = connect(self.settings, self._purpose)
            settle(self._conn, self.settings)
        return self._conn

    def failed(self, error: BaseException) -> bool:
        """After an error: whether the connection is gone with it."""
        if lost(error, self._conn):
            discard(self._conn)
            self._conn = None
            return True
        return False

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


def tell(loop: asyncio.AbstractEventLoop, callback: Callable[..., Any], *values: Any) -> None:
    """Call back on the loop, unless it has been closed meanwhile: then nobody is left to tell."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback, *values)


def _answer(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
