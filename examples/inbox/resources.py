"""What all runs share, opened once for as long as the app runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from redis.asyncio import Redis

from holdfast import App

from .database import open_database
from .messages import Messages
from .settings import Settings
from .versions import Versions


@dataclass(frozen=True)
class Inbox:
    """The inbox's parts; durable functions find them in `ctx.resources`."""

    settings: Settings
    messages: Messages
    versions: Versions


@asynccontextmanager
async def open_redis(settings: Settings) -> AsyncIterator[Redis]:
    """A client of Redis, closed at the end of the block."""
    client = Redis.from_url(settings.redis_url, decode_responses=True, socket_timeout=5, socket_connect_timeout=5)
    try:
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def open_inbox(settings: Settings, app: App) -> AsyncIterator[Inbox]:
    """Database and Redis, closed at the end of the block."""
    async with open_database(settings.database_url) as sessions, open_redis(settings) as client:
        yield Inbox(settings, Messages(sessions, app), Versions(client))


@asynccontextmanager
async def inbox_lifespan(app: App) -> AsyncIterator[Inbox]:
    """The inbox as the environment describes it."""
    async with open_inbox(Settings.from_environment(), app) as inbox:
        yield inbox
