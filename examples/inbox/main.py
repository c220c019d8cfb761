"""The web application, with the durable functions in the same process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from examples.common.refusals import answer_refusals
from holdfast.serve.fastapi import serve

from . import functions, pages
from .canaries import Canaries
from .client import app
from .database import open_database
from .messages import Messages
from .resources import open_redis
from .routes import Web, open_router, router
from .settings import Settings
from .versions import Versions

__all__ = ["create_api", "functions"]


@asynccontextmanager
async def _lifespan(api: FastAPI) -> AsyncIterator[None]:
    settings: Settings = api.state.settings
    mode = "start" if settings.production else "dev"
    async with (
        open_database(settings.database_url) as sessions,
        open_redis(settings) as client,
        # the events that its transactions send are kept in the same database, and brought from there
        app.running(
            store=settings.holdfast_store, serve=settings.dashboard, mode=mode, databases=[settings.database_url]
        ),
    ):
        canaries = Canaries(settings)
        api.state.web = Web(settings, Messages(sessions, app), Versions(client), canaries)
        yield
        await canaries.stop()


def create_api(settings: Settings | None = None) -> FastAPI:
    """The inbox.

    Args:
        settings: Read from the environment unless given.

    Raises:
        SettingsError: the environment is not usable.
    """
    settings = settings or Settings.from_environment()
    api = FastAPI(title="Inbox", lifespan=_lifespan)
    api.state.settings = settings
    api.include_router(open_router)
    api.include_router(router)
    pages.make_pages(settings).install(api, pages.router)
    serve(api, app, dev=not settings.production)  # at /api/inngest
    answer_refusals(api)
    return api
