"""What all runs share, opened once for as long as the app runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

from examples.common.text_model import TextModel
from holdfast import App

from .database import open_database
from .products import Products
from .scraping import Fetcher
from .settings import Settings
from .tokens import Tokens
from .webhooks import Webhooks


@dataclass(frozen=True)
class Catalogue:
    """The catalogue's parts; durable functions find them in `ctx.resources`."""

    products: Products
    webhooks: Webhooks
    tokens: Tokens
    fetcher: Fetcher
    model: TextModel


@asynccontextmanager
async def open_catalogue(settings: Settings, app: App) -> AsyncIterator[Catalogue]:
    """Database and HTTP client, closed at the end of the block."""
    async with (
        open_database(settings.database_url) as sessions,
        httpx.AsyncClient(follow_redirects=False, trust_env=False) as client,
    ):
        yield Catalogue(
            Products(sessions, app),
            Webhooks(sessions, app),
            Tokens(sessions, client, settings),
            Fetcher(client, settings.platforms, settings.scrape_timeout, settings.scrape_max_bytes),
            TextModel(client, settings.text_model_url, settings.text_model_name, settings.text_model_key),
        )


@asynccontextmanager
async def catalogue_lifespan(app: App) -> AsyncIterator[Catalogue]:
    """The catalogue as the environment describes it."""
    async with open_catalogue(Settings.from_environment(), app) as catalogue:
        yield catalogue
