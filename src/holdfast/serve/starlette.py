"""The serve route in a Starlette application, or any that has its router: `serve(web, app)`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Unpack

from starlette import requests, responses
from starlette.applications import Starlette
from starlette.routing import Route

from holdfast.sdk.app import App
from holdfast.serve.handler import METHODS, ServeHandler
from holdfast.serve.http import MAX_BODY_BYTES, Request, Response
from holdfast.serve.live import public_status, stream_run
from holdfast.serve.settings import ServeOptions, ServeSettings

__all__ = ["mount", "public_status", "route", "serve", "stream_run"]


def serve(web: Starlette, app: App, **options: Unpack[ServeOptions]) -> ServeHandler:
    """Mount an app's functions at `/api/inngest` of a Starlette application.

    The app's lifespan is entered with the first call and left when the web application stops.

    Args:
        web: The web application.
        app: The app whose functions are served; those declared later are served too.
        **options: What differs from the environment.

    Raises:
        ConfigurationError: a key or an address can't be used.
    """
    return mount(web, app, "starlette", options)


def mount(web: Starlette, app: App, framework: str, options: ServeOptions) -> ServeHandler:
    """Mount for a framework that is built on Starlette."""
    handler = ServeHandler(app, ServeSettings.of(**options), framework)
    web.router.routes.append(route(handler))
    lifespan = web.router.lifespan_context

    @asynccontextmanager
    async def closing(inner: Any) -> AsyncIterator[Any]:
        async with lifespan(inner) as state:
            try:
                yield state
            finally:
                await handler.close()

    web.router.lifespan_context = closing
    return handler


def route(handler: ServeHandler) -> Route:
    """The route alone, for a list of routes. Call `handler.close()` when the application stops."""

    async def endpoint(request: requests.Request) -> responses.Response:
        body = await _body(request)
        if body is None:
            return responses.JSONResponse({"message": f"the body is over {MAX_BODY_BYTES} bytes"}, 413)
        return _written(await handler.handle(_request(request, body)))

    return Route(handler.settings.path, endpoint, methods=list(METHODS), name="holdfast", include_in_schema=False)


def _request(request: requests.Request, body: bytes) -> Request:
    url = str(request.url.replace(query="", fragment=""))
    return Request(request.method, url, dict(request.query_params), dict(request.headers), body)


async def _body(request: requests.Request) -> bytes | None:
    out = bytearray()
    async for chunk in request.stream():
        out += chunk
        if len(out) > MAX_BODY_BYTES:
            return None
    return bytes(out)


def _written(response: Response) -> responses.Response:
    return responses.Response(response.body, response.status, response.headers)
