"""Messages, and what is worked out from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import case, func, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncSession

from holdfast import App

from .database import Sessions
from .events import CountsDirty
from .models import Aggregates, AlertEntry, Counts, JobFailure, Message


@dataclass(frozen=True)
class Counted:
    """A client's counts at one moment."""

    unread: int
    read: int
    archived: int


class Messages:
    """The inbox's tables."""

    def __init__(self, sessions: Sessions, app: App) -> None:
        self._sessions = sessions
        self._app = app

    # -- what users do -----------------------------------------------------------------------------------------------

    async def receive(self, client_id: str, sender: str, subject: str) -> int:
        """Write a message down, and the event that its counts are dirty, in one transaction; gives the message's id."""
        async with self._sessions.begin() as session:
            message = Message(
                client_id=client_id, sender=sender, subject=subject, status="unread", created_at=datetime.now(UTC)
            )
            session.add(message)
            await session.flush()
            await self._dirty(session, client_id, "message-received")
            return message.id

    async def move(self, message_id: int, client_id: str, status: str) -> bool:
        """Mark a message as read, unread or archived; False when the client has no such message."""
        wanted = update(Message).where(Message.id == message_id, Message.client_id == client_id)
        async with self._sessions.begin() as session:
            found = (await session.execute(wanted.values(status=status).returning(Message.id))).first()
            if found is None:
                return False
            await self._dirty(session, client_id, "message-moved")
        return True

    async def _dirty(self, session: AsyncSession, client_id: str, source: str) -> None:
        request_id = uuid4().hex
        event = CountsDirty(client_id=client_id, request_id=request_id, source=source)
        await self._app.send(event, id=f"dirty:{request_id}", connection=session)

    async def counts(self, client_id: str) -> Counts | None:
        """A client's counts as they were worked out last."""
        async with self._sessions() as session:
            return await session.get(Counts, client_id)

    async def all_counts(self, limit: int = 100) -> Sequence[Counts]:
        """The counts that were worked out last, newest first."""
        async with self._sessions() as session:
            return (await session.scalars(select(Counts).order_by(Counts.computed_at.desc()).limit(limit))).all()

    async def overview(self, limit: int) -> Sequence[tuple[Counts, datetime | None]]:
        """The counts that were worked out last, newest first, and when each client's aggregates were."""
        query = select(Counts, Aggregates.refreshed_at).outerjoin(Aggregates, Aggregates.client_id == Counts.client_id)
        async with self._sessions() as session:
            rows = await session.execute(query.order_by(Counts.computed_at.desc()).limit(limit))
            return [(counts, refreshed) for counts, refreshed in rows]

    # -- what jobs do ------------------------------------------------------------------------------------------------

    async def recompute_counts(self, client_id: str) -> Counted:
        """Count a client's messages, and keep the result. Done twice, it is as if done once."""
        per_status = [func.coalesce(func.sum(case((Message.status == s, 1), else_=0)), 0) for s in _STATUSES]
        async with self._sessions.begin() as session:
            row = (await session.execute(select(*per_status).where(Message.client_id == client_id))).one()
            counted = Counted(*(int(value) for value in row))
            await _upsert(
                session, Counts, "client_id",
                client_id=client_id, unread=counted.unread, read=counted.read, archived=counted.archived,
                computed_at=datetime.now(UTC),
            )  # fmt: skip
        return counted

    async def refresh_aggregates(self, client_id: str) -> int:
        """Work a client's figures out anew; how many messages they are about."""
        figures = select(func.count(), func.count(Message.sender.distinct())).where(Message.client_id == client_id)
        async with self._sessions.begin() as session:
            messages, senders = (await session.execute(figures)).one()
            await _upsert(
                session, Aggregates, "client_id",
                client_id=client_id, messages=messages, senders=senders, refreshed_at=datetime.now(UTC),
            )  # fmt: skip
        return int(messages)

    async def stale_aggregates(self, now: datetime, max_age: float) -> list[str]:
        """The clients whose aggregates are older than they may be, or missing where there are counts."""
        stale = Aggregates.refreshed_at < now - timedelta(seconds=max_age)
        query = select(Counts.client_id).outerjoin(Aggregates, Aggregates.client_id == Counts.client_id)
        async with self._sessions() as session:
            found = await session.scalars(
                query.where(stale | Aggregates.client_id.is_(None)).order_by(Counts.client_id)
            )
            return list(found.all())

    async def note_failure(self, run_id: str, job: str, client_id: str | None, error: str) -> None:
        """Log a job that has failed for good."""
        async with self._sessions.begin() as session:
            await _upsert(
                session, JobFailure, "run_id",
                run_id=run_id, job=job, client_id=client_id, error=error, at=datetime.now(UTC),
            )  # fmt: skip

    async def note_alert(self, happening: str, job: str, alert: str, value: float, threshold: float) -> None:
        """Log an alert."""
        entry = AlertEntry(
            happening=happening, job=job, alert=alert, value=value, threshold=threshold, at=datetime.now(UTC)
        )
        async with self._sessions.begin() as session:
            session.add(entry)


_STATUSES = ("unread", "read", "archived")


async def _upsert(session: AsyncSession, table: type[Any], key: str, **values: Any) -> None:
    insert = sqlite_insert if session.get_bind().dialect.name == "sqlite" else postgresql_insert
    changes = {name: value for name, value in values.items() if name != key}
    await session.execute(insert(table).values(**values).on_conflict_do_update(index_elements=[key], set_=changes))
