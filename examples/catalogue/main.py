"""The web application, with the durable functions in the same process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exception_handlers import http_exception_handler
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.sessions import SessionMiddleware

from examples.common.hardening import Hardening
from holdfast.serve.fastapi import serve

from . import functions, pages, routes, sessions
from .client import app
from .database import open_database
from .merchants import DEMO, Merchants
from .products import Products
from .settings import Settings
from .web import Web
from .webhooks import Webhooks

__all__ = ["create_api", "functions"]

_POLICY = "default-src 'self'; img-src * data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"


@asynccontextmanager
async def _lifespan(api: FastAPI) -> AsyncIterator[None]:
    settings: Settings = api.state.settings
    mode = "start" if settings.production else "dev"
    async with (
        open_database(settings.database_url) as database,
        # the events that its transactions send are kept in the same database, and brought from there
        app.running(
            store=settings.holdfast_store, serve=settings.dashboard, mode=mode, databases=[settings.database_url]
        ),
    ):
        api.state.web = Web(settings, Merchants(database), Products(database, app), Webhooks(database, app))
        if not settings.production:
            for salla_id, name, email, password in DEMO:
                await api.state.web.merchants.add(salla_id, name, email, password)
        yield


def create_api(settings: Settings | None = None) -> FastAPI:
    """The catalogue.

    Args:
        settings: Read from the environment unless given.

    Raises:
        SettingsError: the environment is not usable.
    """
    settings = settings or Settings.from_environment()
    api = FastAPI(title="Catalogue", lifespan=_lifespan)
    api.state.settings = settings
    api.include_router(routes.router)
    api.include_router(pages.router)
    serve(api, app, dev=not settings.production)  # at /api/inngest
    api.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))
    api.add_exception_handler(sessions.LoginRequiredError, pages.to_login)
    api.add_exception_handler(HTTPException, _refusal)
    api.add_middleware(Hardening, policy=_POLICY)
    api.add_middleware(
        SessionMiddleware,
        secret_key=settings.session_secret,
        session_cookie=sessions.COOKIE,
        max_age=sessions.LIFETIME,
        same_site="lax",
        https_only=settings.production,
    )
    return api


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if request.url.path.startswith(("/api/", "/static/")):
        return await http_exception_handler(request, error)
    text = error.detail if error.status_code != 404 or error.detail != "Not Found" else "There is no such page."
    return pages.error_page(request, error.status_code, text)
