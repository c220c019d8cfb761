"""The HTTP server as one ASGI application: event API, REST, health, metrics, reference and dashboard."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from holdfast.base.errors import HoldfastError
from holdfast.dashboard.guard import Guard
from holdfast.dashboard.routes import routes as dashboard_routes
from holdfast.engine.engine import Engine
from holdfast.engine.shown import shown
from holdfast.server import (
    rest_apps,
    rest_audit,
    rest_bulk,
    rest_checkpoint,
    rest_endpoints,
    rest_events,
    rest_flow,
    rest_follow,
    rest_nodes,
    rest_runs,
    rest_telemetry,
    rest_testing,
    rest_time,
    rest_v2,
)
from holdfast.server.access import Access, identity_of
from holdfast.server.bodies import Budget
from holdfast.server.errors import ApiError, api_error, error_response
from holdfast.server.events_api import EventsApi
from holdfast.server.gate import Closing, Gate
from holdfast.server.gql import endpoint as gql
from holdfast.server.guard import SessionGuard
from holdfast.server.metrics import HttpMetrics
from holdfast.server.openapi import openapi_document
from holdfast.server.operation import Answer, Api, Handler, Operation, Param, json_response
from holdfast.server.pages import Login, docs_page, render, style_sheet
from holdfast.server.settings import ServerSettings
from holdfast.server.shapes import Accepted, KeyRefused
from holdfast.server.syncing import Asker

_EVENT_SCHEMA = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "maxLength": 255},
        "data": {"type": "object"},
        "id": {"type": "string", "description": "The same id within 24 hours starts each function once."},
        "ts": {
            "type": "integer",
            "description": "Milliseconds since 1970; in the future, when its functions are to start.",
        },
        "v": {"type": "string"},
        "user": {"type": "object"},
    },
}


def build_app(engine: Engine, settings: ServerSettings) -> Starlette:
    """The server of an engine.

    Args:
        engine: It must be running while requests are served.
        settings: Keys, hosts and limits.

    Returns:
        An application to serve with `holdfast.server.serve`, or to mount into another. `app.state.closing.begin()` ends
        its streams.
    """
    access = Access(engine, settings)
    budget = Budget(settings.max_bytes_in_flight)
    metrics = HttpMetrics(budget)
    closing = Closing()
    reader = shown(engine, settings.mask)
    api = Api(engine, settings, access, metrics, Asker(engine, settings), reader)
    guard = SessionGuard(access)
    app = Starlette(
        routes=[
            *_server_routes(api, guard, EventsApi(engine, settings, access, budget, api.receipts)),
            *dashboard_routes(engine, guard, reader=reader, asker=api.asker),
        ],
        middleware=[
            Middleware(Gate, settings=settings, access=access, budget=budget, metrics=metrics, closing=closing)
        ],
        exception_handlers={
            ApiError: _on_api_error,
            HoldfastError: _on_holdfast_error,
            HTTPException: _on_http_exception,
        },
    )
    app.router.redirect_slashes = False
    app.state.closing = closing
    app.state.prefix = settings.prefix
    return app


def _server_routes(api: Api, guard: Guard, events_api: EventsApi) -> list[BaseRoute]:
    login = Login(api, guard)
    return [
        # first, because it is what most requests are for
        Route("/e/{key}", events_api, methods=["POST", "OPTIONS", "GET"]),
        *[
            Route(op.path, _endpoint(op, op.handler, api, guard), methods=[op.method], name=op.id)
            for op in OPERATIONS
            if op.handler
        ],
        *_reference_routes(api),
        Route("/login", login.show, methods=["GET"]),
        Route("/login", login.enter, methods=["POST"]),
        Route("/login.css", style_sheet, methods=["GET"]),
        Route("/logout", login.ask_leave, methods=["GET"]),
        Route("/logout", login.leave, methods=["POST"]),
    ]


def _endpoint(
    operation: Operation, handler: Handler, api: Api, guard: Guard
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        if operation.method != "GET" and identity_of(request.scope).via == "session":
            # a browser sends its cookie whoever asks; a key is only sent on purpose
            await guard.check_csrf(request)
        return await handler(api, request)

    return endpoint


# -- the reference --------------------------------------------------------------------------------------------------

_SEND = Operation(
    method="POST",
    path="/e/{key}",
    id="sendEvents",
    group="Events",
    public=True,
    summary="Send events",
    description=(
        "One event, or a list of up to 5,000, of up to 3 MiB each. The answer comes when they are on disk. "
        "If one is not acceptable, those before it are accepted all the same and their ids are in the answer."
    ),
    params=(
        Param("key", "An event key; any text in development.", "path"),
        Param(
            "x-inngest-event-id-seed",
            "`<milliseconds>,<base64 of 10 bytes>`: makes the internal ids repeatable.",
            "header",
        ),
    ),
    body={"oneOf": [_EVENT_SCHEMA, {"type": "array", "items": _EVENT_SCHEMA, "maxItems": 5000}]},
    example={"name": "shop/order.paid", "data": {"order_id": "o1", "amount": 5}, "id": "payment-123"},
    answers={
        200: Answer("They are on disk.", Accepted, envelope=False),
        400: Answer("One is not acceptable; `error` says why.", Accepted, envelope=False),
        401: Answer("The event key is not known.", KeyRefused, envelope=False),
        413: Answer("The body is too large.", Accepted, envelope=False),
        503: Answer("Too much is in memory; try again after the time in `Retry-After`.", Accepted, envelope=False),
        507: Answer("The disk is full.", Accepted, envelope=False),
    },
)
_REFERENCE = (
    Operation(
        method="GET",
        path="/openapi.json",
        id="getOpenApi",
        group="Server",
        summary="This reference, for programs",
        answers={200: Answer("An OpenAPI 3.1 document.", dict, envelope=False)},
    ),
    Operation(
        method="GET",
        path="/docs",
        id="getDocs",
        group="Server",
        summary="This reference, for people",
        answers={200: Answer("A page.", None, media_type="text/html")},
    ),
)
_GROUPS = (
    "Events", "Signals", "Runs", "Dead letters", "Many at once", "Functions", "Flow control", "Schedules", "Applications",
    "API version 2", "Server", "Test mode",
)  # fmt: skip
OPERATIONS = tuple(
    sorted(
        (
            _SEND,
            *rest_events.OPERATIONS,
            *rest_runs.OPERATIONS,
            *rest_follow.OPERATIONS,
            *rest_bulk.OPERATIONS,
            *rest_flow.OPERATIONS,
            *rest_time.OPERATIONS,
            *rest_apps.OPERATIONS,
            *rest_nodes.OPERATIONS,
            *rest_audit.OPERATIONS,
            *rest_checkpoint.OPERATIONS,
            *rest_endpoints.OPERATIONS,
            *rest_telemetry.OPERATIONS,
            *gql.OPERATIONS,
            *rest_v2.OPERATIONS,
            *rest_testing.OPERATIONS,
            *_REFERENCE,
        ),
        key=lambda operation: _GROUPS.index(operation.group),
    )
)
"""All of the API, in the order of its reference."""


def _reference_routes(api: Api) -> list[BaseRoute]:
    keys = not api.settings.open

    async def document(request: Request) -> Response:
        root = request.scope.get("root_path", "")
        return json_response(openapi_document(OPERATIONS, server_url=root, keys=keys))

    async def page(request: Request) -> Response:
        root = request.scope.get("root_path", "")
        return docs_page(request, openapi_document(OPERATIONS, server_url=root, keys=keys), OPERATIONS, keys=keys)

    return [Route("/openapi.json", document, methods=["GET"]), Route("/docs", page, methods=["GET"])]


# -- errors ---------------------------------------------------------------------------------------------------------


def _respond(request: Request, error: ApiError) -> Response:
    """An error as its reader expects it: JSON for programs, a page for browsers."""
    if "text/html" not in request.headers.get("accept", ""):
        return error_response(error)
    response = render(request, "error.html", error.status, title=error.status, message=error.message)
    response.headers.update(error.headers)
    return response


async def _on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _respond(request, error)


async def _on_holdfast_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HoldfastError)
    return _respond(request, api_error(error))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = ApiError(error.status_code, _sentence(request, error))
    answer.headers.update(error.headers or {})
    return _respond(request, answer)


def _sentence(request: Request, error: HTTPException) -> str:
    # the path is not repeated: there may be a key in it
    if error.status_code == 404 and error.detail == "Not Found":
        return "there is nothing at this address; GET /docs lists what there is"
    if error.status_code == 405 and error.detail == "Method Not Allowed":
        return f"{request.method[:20]} is not possible here; GET /docs lists what is"
    return str(error.detail)
