"""An application's own database, apart from holdfast's store: SQLite by default, PostgreSQL by its URL."""

from __future__ import annotations

from asyncio import AbstractEventLoop, get_running_loop
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import URL, DateTime, Dialect, MetaData, event
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC. SQLite forgets time zones; this puts UTC back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class Sessions:
    """Sessions of a database: `sessions()` to read, `sessions.begin()` for a transaction that writes.

    Args:
        reading: Makes the former.
        writing: Makes the latter.
    """

    def __init__(self, reading: async_sessionmaker[AsyncSession], writing: async_sessionmaker[AsyncSession]) -> None:
        self._reading = reading
        self._writing = writing

    def __call__(self) -> AsyncSession:
        """A session that reads; nothing it changes is kept."""
        return self._reading()

    def begin(self) -> AbstractAsyncContextManager[AsyncSession]:
        """A session that commits at the end of its block, and rolls back on an error."""
        return self._writing.begin()


@dataclass
class _Opened:
    """The connections of one event loop to one database."""

    reading: AsyncEngine
    writing: AsyncEngine
    users: int = 0


_opened: dict[tuple[AbstractEventLoop, str], _Opened] = {}


@asynccontextmanager
async def open_database(url: str, tables: MetaData) -> AsyncIterator[Sessions]:
    """Connect, create the tables that are missing, and disconnect at the end of the block.

    Whoever opens the same database meanwhile, as pages and durable functions of one process do, shares its connections.
    """
    key = get_running_loop(), url
    if key not in _opened:
        _opened[key] = _connect(make_url(url))
    opened = _opened[key]
    opened.users += 1
    try:
        async with opened.writing.begin() as connection:
            await connection.run_sync(tables.create_all)
        yield Sessions(
            async_sessionmaker(opened.reading, expire_on_commit=False),
            async_sessionmaker(opened.writing, expire_on_commit=False),
        )
    finally:
        opened.users -= 1
        if opened.users == 0:
            del _opened[key]
            await opened.writing.dispose()
            await opened.reading.dispose()


def _connect(address: URL) -> _Opened:
    if address.get_backend_name() != "sqlite":
        engine = create_async_engine(address)
        return _Opened(engine, engine)
    if not address.database:
        raise ValueError(f"{address!r} names no file: sqlite+aiosqlite:///app.db")
    Path(address.database).parent.mkdir(parents=True, exist_ok=True)
    # SQLite writes one at a time: waiting for the one connection is fair, waiting for its lock is not. Reads don't wait
    writing = create_async_engine(address, pool_size=1, max_overflow=0)
    reading = create_async_engine(
        address, pool_size=4, max_overflow=0, isolation_level="AUTOCOMMIT", skip_autocommit_rollback=True
    )
    for engine in (writing, reading):
        event.listen(engine.sync_engine, "connect", _configure_sqlite)
    return _Opened(reading, writing)


def _configure_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode = WAL", "busy_timeout = 10000", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
