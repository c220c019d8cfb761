"""The web application, with the durable functions in the same process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from examples.common.refusals import answer_refusals
from holdfast.serve.fastapi import serve

from . import functions
from .client import app
from .database import open_database
from .orders import Orders
from .routes import router
from .settings import Settings

__all__ = ["create_api", "functions"]


@asynccontextmanager
async def _lifespan(api: FastAPI) -> AsyncIterator[None]:
    settings: Settings = api.state.settings
    mode = "start" if settings.environment == "production" else "dev"
    async with (
        open_database(settings.database_url) as sessions,
        app.running(store=settings.holdfast_store, serve=settings.dashboard, mode=mode),
    ):
        api.state.orders = Orders(sessions)
        yield


def create_api(settings: Settings | None = None) -> FastAPI:
    """The shop.

    Args:
        settings: Read from the environment unless given.

    Raises:
        SettingsError: the environment is not usable.
    """
    api = FastAPI(title="Riqle", lifespan=_lifespan)
    settings = settings or Settings.from_environment()
    api.state.settings = settings
    api.include_router(router)
    serve(api, app, dev=settings.environment != "production")  # at /api/inngest
    answer_refusals(api)
    return api
