"""REST for events and functions, and starting one function (protocol sections 1.2, 1.3 and 1.5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from holdfast.base.errors import EventInvalidError
from holdfast.base.ids import name_uuid
from holdfast.base.version import __version__
from holdfast.sdk.events import Event as EventModel
from holdfast.sdk.functions import Function as SdkFunction
from holdfast.sdk.sender import Outgoing
from holdfast.server.errors import ApiError, ErrorBody
from holdfast.server.flow_shapes import MatchedWait, Skip, matched_wait_of, skip_of
from holdfast.server.ingest import parse_payload
from holdfast.server.metrics import metrics_response
from holdfast.server.operation import (
    CURSOR,
    Answer,
    Api,
    Operation,
    Param,
    json_response,
    limit_param,
    read_cursor,
    read_id,
    read_limit,
    read_moment,
)
from holdfast.server.shapes import (
    Alert,
    Event,
    Function,
    Health,
    Invoked,
    Run,
    alert_of,
    event_of,
    function_of,
    run_of,
)
from holdfast.store.reads import EventView, reasons

MAX_EVENTS = 51
"""The protocol's largest page of events."""
_INVOKED = "inngest/function.invoked"


# -- events ----------------------------------------------------------------------------------------------------------


async def list_events(api: Api, request: Request) -> Response:
    name = request.query_params.get("name") or None
    wanted = request.query_params.get("include_internal_events", "false").lower()
    if wanted not in {"true", "false", "1", "0"}:
        raise ApiError(400, f"include_internal_events must be true or false, not {wanted[:40]!r}")
    rows, cursor = await api.reader.events(
        name=name,
        internal=wanted in {"true", "1"} or (name or "").startswith("inngest/"),
        limit=read_limit(request, 20, MAX_EVENTS),
        cursor=read_cursor(request),
        received_after=read_moment(request, "received_after"),
        received_before=read_moment(request, "received_before"),
    )
    # a client that doesn't hear the answer sends again: that is listed as often as it came in, and stored once
    received = [row for row in rows for _ in range(api.receipts.of(row.internal_id))]
    return api.answer([event_of(row) for row in received], next_cursor=cursor)


async def get_event(api: Api, request: Request) -> Response:
    return api.answer(event_of(await _event(api, request)))


async def get_event_runs(api: Api, request: Request) -> Response:
    event = await _event(api, request)
    return api.answer([run_of(row) for row in await api.reader.event_runs(event.internal_id)])


async def get_event_skips(api: Api, request: Request) -> Response:
    event = await _event(api, request)
    runs = await api.reader.event_runs(event.internal_id)
    skips = await api.reader.event_skips(event.internal_id)
    matched = await api.reader.matched_waits(event.internal_id)
    return api.answer([skip_of(skip) for skip in reasons(event, runs, skips, matched)])


async def get_event_matches(api: Api, request: Request) -> Response:
    event = await _event(api, request)
    return api.answer([matched_wait_of(one) for one in await api.reader.matched_waits(event.internal_id)])


async def _event(api: Api, request: Request) -> EventView:
    internal_id = read_id(request, "internal_id", "an event")
    event = await api.reader.event(internal_id)
    if event is None:
        raise ApiError(
            404,
            f"there is no event {internal_id}; it may have been removed when its retention was over",
            "event_not_found",
        )
    return event


# -- functions -------------------------------------------------------------------------------------------------------


async def list_functions(api: Api, _request: Request) -> Response:
    return api.answer([function_of(row) for row in await api.reader.functions()])


async def list_alerts(api: Api, _request: Request) -> Response:
    return api.answer([alert_of(alert) for alert in api.engine.alerting.described()])


async def list_app_functions(api: Api, request: Request) -> Response:
    name = request.path_params["app"]
    rows = await api.reader.functions()
    found = [function_of(row) for row in rows if row.app == name]
    if not found and name not in api.engine.apps:
        known = ", ".join(sorted({row.app for row in rows} | set(api.engine.apps))) or "none yet"
        raise ApiError(404, f"there is no app {name[:60]!r}; known apps: {known}", "app_not_found")
    return api.answer(found)


async def invoke(api: Api, request: Request) -> Response:
    slug = request.path_params["slug"]
    rows = [row for row in await api.reader.functions() if not row.archived]
    if slug not in {row.slug for row in rows}:
        raise ApiError(
            404, f"there is no function {slug[:100]!r}; GET /v1/functions lists those there are", "function_not_found"
        )
    function = _in_process(api, slug)
    try:
        event = parse_payload(await request.body(), _INVOKED, lambda name: _model(function, name))
    except EventInvalidError as error:
        raise ApiError(error.status, str(error), error.code) from error
    if function is not None and event.name == _INVOKED:
        event = _as_triggered(function, event)
    event_id, run_id = await api.engine.control.start_event(slug, event)
    await api.audit(request, "function.invoke", slug, run_id)
    return json_response(Invoked(event_id, run_id))


def _in_process(api: Api, slug: str) -> SdkFunction[Any, Any] | None:
    for app in api.engine.apps.values():
        for function in app.functions.values():
            if function.slug == slug:
                return function
    return None


def _model(function: SdkFunction[Any, Any] | None, name: str) -> type[EventModel] | None:
    """The class that the data of an invocation must fit: that of the named trigger, or of the first there is."""
    triggers = () if function is None else function.triggers
    for trigger in triggers:
        if trigger.model is not None and name in {_INVOKED, trigger.event}:
            return trigger.model
    return None


def _as_triggered(function: SdkFunction[Any, Any], event: Outgoing) -> Outgoing:
    """A function with a typed trigger receives its own event, not the protocol's general one."""
    name = next(
        (trigger.event for trigger in function.triggers if trigger.model is not None and trigger.event), _INVOKED
    )
    return msgspec.structs.replace(event, name=name)


# -- the server itself -----------------------------------------------------------------------------------------------


async def health(api: Api, _request: Request) -> Response:
    state = api.engine.status()
    if state["accepting"]:
        return json_response(Health(200, "OK"))
    return json_response(Health(503, state["problem"] or "the engine does not accept work"), 503)


async def metrics(api: Api, _request: Request) -> Response:
    return await metrics_response(api.engine, api.metrics)


async def dev(api: Api, _request: Request) -> Response:
    if api.settings.mode != "dev":
        raise ApiError(404, "this is a production server; /dev is part of the development server")
    rows = await api.reader.functions()
    return json_response(
        {
            "version": __version__,
            "authed": True,
            "startOpts": {"autodiscover": False, "urls": None, "sdkURLs": [], "tick": 0},
            "functions": [
                {
                    "id": name_uuid(row.app, row.slug),
                    "name": row.name,
                    "slug": row.slug,
                    "appName": row.app,
                    "config": row.config,
                    "triggers": _triggers(row.config),
                    "steps": _steps(row.config),
                }
                for row in rows
                if not row.archived
            ],
            "handlers": [],
            "isSingleNodeService": True,
            "isMissingSigningKey": api.settings.signing_key is None,
            "isMissingEventKeys": not api.settings.event_keys,
            "features": {},
        }
    )


def _triggers(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{name: value for name, value in one.items() if value is not None} for one in config.get("triggers") or ()]


def _steps(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    steps = (config.get("steps") or {}).values()
    return [{"id": one.get("id"), "name": one.get("name"), "uri": (one.get("runtime") or {}).get("url")} for one in steps]


# -- the table -------------------------------------------------------------------------------------------------------

_INTERNAL_ID = Param("internal_id", "The event's internal id, a ULID.", "path")
_NO_EVENT = Answer("There is no such event.", ErrorBody, envelope=False)
_BAD_ID = Answer("Not the id of an event.", ErrorBody, envelope=False)

OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/events",
        id="listEvents",
        group="Events",
        handler=list_events,
        summary="List events, newest first",
        params=(
            Param("name", "Only events of this name."),
            Param(
                "include_internal_events",
                "Whether to list holdfast's own (`inngest/...`) too. One asked for by name is listed anyway.",
                "query",
                {"type": "boolean", "default": False},
            ),
            Param("received_after", "Received after this moment: RFC 3339 or milliseconds since 1970."),
            Param("received_before", "Received before this moment."),
            limit_param(20, MAX_EVENTS),
            CURSOR,
        ),
        answers={200: Answer("Events.", list[Event])},
    ),
    Operation(
        method="GET",
        path="/v1/events/{internal_id}",
        id="getEvent",
        group="Events",
        handler=get_event,
        summary="Read an event",
        params=(_INTERNAL_ID,),
        answers={200: Answer("The event.", Event), 400: _BAD_ID, 404: _NO_EVENT},
    ),
    Operation(
        method="GET",
        path="/v1/events/{internal_id}/runs",
        id="getEventRuns",
        group="Events",
        handler=get_event_runs,
        summary="List the runs an event started",
        params=(_INTERNAL_ID,),
        answers={200: Answer("Runs.", list[Run]), 400: _BAD_ID, 404: _NO_EVENT},
    ),
    Operation(
        method="GET",
        path="/v1/events/{internal_id}/skips",
        id="getEventSkips",
        group="Events",
        handler=get_event_skips,
        summary="List the functions an event did not start, and why",
        description="Those it will start later, debounced or in a batch, included. Never empty for an event that nothing came of.",
        params=(_INTERNAL_ID,),
        answers={200: Answer("Reasons.", list[Skip]), 400: _BAD_ID, 404: _NO_EVENT},
    ),
    Operation(
        method="GET",
        path="/v1/events/{internal_id}/matches",
        id="getEventMatches",
        group="Events",
        handler=get_event_matches,
        summary="List the runs that waited for an event",
        description="Those that went on with it, and those that it cancelled; up to 100.",
        params=(_INTERNAL_ID,),
        answers={200: Answer("Runs.", list[MatchedWait]), 400: _BAD_ID, 404: _NO_EVENT},
    ),
    Operation(
        method="GET",
        path="/v1/functions",
        id="listFunctions",
        group="Functions",
        handler=list_functions,
        summary="List functions",
        answers={200: Answer("Functions, those that are gone from their app's code included.", list[Function])},
    ),
    Operation(
        method="GET",
        path="/v1/apps/{app}/functions",
        id="listAppFunctions",
        group="Functions",
        handler=list_app_functions,
        summary="List the functions of an app",
        params=(Param("app", "The app's id.", "path"),),
        answers={
            200: Answer("Functions.", list[Function]),
            404: Answer("There is no such app.", ErrorBody, envelope=False),
        },
    ),
    Operation(
        method="POST",
        path="/invoke/{slug}",
        id="invokeFunction",
        group="Functions",
        handler=invoke,
        summary="Start one function",
        description="Whatever its triggers are. The data must fit the schema of its event, where it has one.",
        params=(Param("slug", "`<app>-<function>`.", "path"),),
        body={
            "type": "object",
            "properties": {"data": {"type": "object"}, "id": {"type": "string"}, "name": {"type": "string"}},
        },
        example={"data": {"order_id": "o1"}},
        answers={
            200: Answer("It is on disk and will run.", Invoked, envelope=False),
            400: Answer("The event is not acceptable.", ErrorBody, envelope=False),
            404: Answer("There is no such function.", ErrorBody, envelope=False),
            422: Answer("A rule of its flow control doesn't let a run start now.", ErrorBody, envelope=False),
        },
    ),
    Operation(
        method="GET",
        path="/v1/alerts",
        id="listAlerts",
        group="Functions",
        handler=list_alerts,
        summary="List the alerts that are on",
        answers={200: Answer("Alerts, those that were raised first before others.", list[Alert])},
    ),
    Operation(
        method="GET",
        path="/health",
        id="getHealth",
        group="Server",
        handler=health,
        summary="Whether the server accepts work",
        public=True,
        answers={
            200: Answer("It does.", Health, envelope=False),
            503: Answer("It does not; the message says why.", Health, envelope=False),
        },
    ),
    Operation(
        method="GET",
        path="/metrics",
        id="getMetrics",
        group="Server",
        handler=metrics,
        summary="Metrics for Prometheus",
        answers={200: Answer("The text format.", None, media_type="text/plain")},
    ),
    Operation(
        method="GET",
        path="/dev",
        id="getDevServer",
        group="Server",
        handler=dev,
        summary="What the development server knows",
        description="SDKs look here to find a development server.",
        answers={
            200: Answer("Version and functions.", dict, envelope=False),
            404: Answer("This is a production server.", ErrorBody, envelope=False),
        },
    ),
)
