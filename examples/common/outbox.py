"""Events that belong to a change in the database: both happen, or neither.

The event is written beside the change, in its transaction. A relay sends what is there and then deletes it. If the
process dies between the two, the event is sent again under the same id, which starts nothing twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, delete, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Mapped, mapped_column

from holdfast import App, Event, EventInvalidError, HoldfastError

logger = logging.getLogger(__name__)

_AT_ONCE = 100
_RETRY_SECONDS = 2.0
"""After a send that was refused, and between looks for what another process may have left."""


class OutboxEvent:
    """The table's columns: `class Outbox(OutboxEvent, Base): __tablename__ = "outbox"`."""

    id: Mapped[str] = mapped_column(primary_key=True)
    """The event's id, under which it starts each function once."""
    name: Mapped[str]
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


def put(session: AsyncSession, table: type[Any], event: Event, event_id: str) -> None:
    """Send an event if, and only if, the session's transaction commits.

    Args:
        session: The transaction.
        table: The application's outbox.
        event: What to send.
        event_id: The same one within 24 hours starts each function once.
    """
    session.add(
        table(
            id=event_id,
            name=event.__holdfast_event__,
            data=event.model_dump(by_alias=True, mode="json"),
            created_at=datetime.now(UTC),
        )
    )


class Relay:
    """Sends what transactions have put."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession], table: type[Any], app: App) -> None:
        self._sessions = sessions
        self._table = table
        self._app = app
        self._wake = asyncio.Event()

    def ring(self) -> None:
        """Tell the relay that a transaction has committed. It would find out by itself, later."""
        self._wake.set()

    @asynccontextmanager
    async def relaying(self) -> AsyncIterator[None]:
        """Relay for as long as the block lasts. What is left then is sent at the next start."""
        relay = asyncio.create_task(self._relay())
        try:
            yield
        finally:
            relay.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await relay

    async def flush(self) -> int:
        """Send everything that is waiting; how many were sent."""
        async with self._sessions() as session:
            oldest = select(self._table).order_by(self._table.created_at).limit(_AT_ONCE)
            waiting = (await session.scalars(oldest)).all()
        sent = [row.id for row in waiting if await self._send(row)]
        if sent:
            async with self._sessions.begin() as session:
                await session.execute(delete(self._table).where(self._table.id.in_(sent)))
        return len(sent)

    async def _send(self, row: OutboxEvent) -> bool:
        try:
            await self._app.send({"name": row.name, "data": row.data}, id=row.id)
        except EventInvalidError:
            logger.exception("event %s (%s) in the outbox can't be sent as it is; it stays there", row.id, row.name)
            return False
        except HoldfastError as error:
            logger.warning("event %s (%s) stays in the outbox for now: %s", row.id, row.name, error)
            return False
        return True

    async def _relay(self) -> None:
        while True:
            self._wake.clear()
            if await self._flush_safely() == _AT_ONCE:
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _RETRY_SECONDS)

    async def _flush_safely(self) -> int:
        try:
            return await self.flush()
        except Exception:
            logger.exception("the outbox could not be read; the next look is in %g s", _RETRY_SECONDS)
            return 0
