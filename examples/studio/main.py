"""The web application, with the durable functions in the same process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from examples.common.refusals import answer_refusals
from holdfast.serve.fastapi import serve

from . import functions, pages
from .client import app
from .routes import health_router, router
from .settings import Settings

__all__ = ["create_api", "functions"]


@asynccontextmanager
async def _lifespan(api: FastAPI) -> AsyncIterator[None]:
    settings: Settings = api.state.settings
    mode = "start" if settings.production else "dev"
    async with app.running(store=settings.holdfast_store, serve=settings.dashboard, mode=mode):
        yield


def create_api(settings: Settings | None = None) -> FastAPI:
    """The studio.

    Args:
        settings: Read from the environment unless given.

    Raises:
        SettingsError: the environment is not usable.
    """
    api = FastAPI(title="Studio", lifespan=_lifespan)
    settings = settings or Settings.from_environment()
    api.state.settings = settings
    api.include_router(health_router)
    api.include_router(router)
    pages.make_pages(settings).install(api, pages.router)
    serve(api, app, dev=not settings.production)  # at /api/inngest
    answer_refusals(api)
    return api
