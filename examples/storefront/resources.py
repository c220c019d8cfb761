"""What all runs share, opened once for as long as the app runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from holdfast import App

from .database import open_database
from .delivery import Postbox
from .mail import open_mailer, sender_domain
from .orders import Orders
from .settings import Settings


@dataclass(frozen=True)
class Shop:
    """The shop's parts; durable functions find them in `ctx.resources`."""

    orders: Orders
    postbox: Postbox
    mail_domain: str


@asynccontextmanager
async def open_shop(settings: Settings) -> AsyncIterator[Shop]:
    """Database and mailer, closed at the end of the block."""
    async with open_database(settings.database_url) as sessions, open_mailer(settings) as mailer:
        yield Shop(
            Orders(sessions), Postbox(sessions, mailer, settings.mail_timeout), sender_domain(settings.mail_from)
        )


@asynccontextmanager
async def shop_lifespan(_app: App) -> AsyncIterator[Shop]:
    """The shop as the environment describes it."""
    async with open_shop(Settings.from_environment()) as shop:
        yield shop
