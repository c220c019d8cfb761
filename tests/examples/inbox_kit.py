"""The inbox as the tests run it: its durable functions on the real engine, a real database, a real Redis."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import event, text

from examples.inbox import functions
from examples.inbox.client import app
from examples.inbox.database import Sessions, open_database
from examples.inbox.messages import Messages
from holdfast.testing import Harness

assert functions.functions
KEYS = {"recompute": "job:v1:{}:inbox-counts-recompute", "analytics": "job:v1:{}:analytics-recompute"}


@dataclass
class InboxUnderTest:
    h: Any
    sessions: Sessions
    messages: Messages
    store: Any
    """Redis."""

    async def receive(self, client: str = "c1", count: int = 1) -> None:
        for n in range(count):
            await self.messages.receive(client, f"sender-{n}@example.test", "Hello")
        await self.deliver()

    async def deliver(self) -> None:
        """Let what transactions have sent be accepted."""
        await self.h.engine.relays.flush()

    async def dirty(self, client: str = "c1", request: str = "r1", **more: Any) -> None:
        data = {"clientId": client, "requestId": request, "source": "test", **more}
        await self.h.send({"name": "inbox.counts.dirty", "data": data})

    def version(self, client: str = "c1") -> int:
        return int(self.store.get(f"inbox:v1:ver:{client}") or 0)

    def mark(self, client: str = "c1") -> str | None:
        return self.store.get(f"inbox:v1:dirty:{client}")

    def status(self, client: str = "c1", job: str = "recompute") -> dict[str, Any]:
        found = self.store.get(KEYS[job].format(client))
        return json.loads(found) if found else {}

    async def unread(self, client: str = "c1") -> int | None:
        counts = await self.messages.counts(client)
        return None if counts is None else counts.unread

    async def execute(self, statement: str) -> None:
        async with self.sessions.begin() as session:
            await session.execute(text(statement))

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        async with self.sessions() as session:
            return [tuple(row) for row in await session.execute(text(query))]


@asynccontextmanager
async def inbox_under_test(folder: Any, monkeypatch: Any, redis_url: str, store: Any, **environ: str) -> AsyncIterator[InboxUnderTest]:
    settings = {"DATABASE_URL": f"sqlite+aiosqlite:///{folder}/inbox.db", "REDIS_URL": redis_url, **environ}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    url = settings["DATABASE_URL"]
    where = {"start": datetime.now(UTC), "schedules": False, "patience": 60, "databases": [url]}
    async with open_database(url) as sessions, Harness(app, **where) as h:
        yield InboxUnderTest(h, sessions, Messages(sessions, app), store)


def statements_of(engine: Any) -> list[str]:
    """Every statement that is executed from now on."""
    seen: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda _c, _cursor, statement, *_: seen.append(statement))
    return seen
