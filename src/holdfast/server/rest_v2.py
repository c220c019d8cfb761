"""Version 2 of the API (protocol section 1.8): invoking functions with an idempotency key, runs, traces, events, apps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import wraps
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from holdfast.base.clock import iso
from holdfast.base.errors import EventInvalidError, HoldfastError
from holdfast.sdk.events import Event
from holdfast.sdk.sender import Outgoing
from holdfast.server.errors import ApiError, api_error
from holdfast.server.ingest import parse_payload
from holdfast.server.operation import (
    CURSOR,
    Answer,
    Api,
    Handler,
    Operation,
    Param,
    limit_param,
    no_run,
    read_cursor,
    read_id,
    read_limit,
)
from holdfast.server.traces import legacy_tree, run_output
from holdfast.server.v2_shapes import (
    AnswerV2,
    AppV2,
    ErrorsV2,
    InvokedV2,
    MetadataV2,
    PageV2,
    ProblemV2,
    encode,
    event_v2,
    function_v2,
    run_v2,
    short_id,
    span_v2,
)
from holdfast.store.reads import FunctionView, RunDetail, RunFilter

_ROOT = "/api/v2"
_INVOKED = "inngest/function.invoked"
_MAX_LIMIT = 100


def _answer(api: Api, data: Any, *, status: int = 200, page: PageV2 | None = None) -> Response:
    metadata = MetadataV2(iso(api.engine.clock.now()) or "")
    return Response(encode(AnswerV2(data, metadata, page)), status, media_type="application/json")


def _problem(error: ApiError) -> Response:
    body = encode(ErrorsV2([ProblemV2(error.code, error.message)]))
    return Response(body, error.status, error.headers, media_type="application/json")


def _in_envelope(handler: Handler) -> Handler:
    """Errors as this version writes them."""

    @wraps(handler)
    async def answering(api: Api, request: Request) -> Response:
        try:
            return await handler(api, request)
        except ApiError as error:
            return _problem(error)
        except HoldfastError as error:
            return _problem(api_error(error))

    return answering


# -- functions and apps ----------------------------------------------------------------------------------------------


class _Invocation(msgspec.Struct, frozen=True):
    data: dict[str, Any]
    idempotency_key: str | None = None


async def invoke(api: Api, request: Request) -> Response:
    function = await _function(api, request)
    try:
        given = msgspec.json.decode(await request.body(), type=_Invocation)
    except msgspec.MsgspecError as error:
        raise ApiError(400, f"the body must be JSON with `data`, an object: {error}", "invalid_request") from error
    event = Outgoing(_INVOKED, msgspec.json.encode(given.data))
    if given.idempotency_key:
        event.id = f"{function.slug}:{given.idempotency_key}"
    _, run_id, duplicate = await api.engine.control.start_once(function.slug, event)
    if duplicate:
        return _answer(api, InvokedV2(run_id), status=409)
    await api.audit(request, "function.invoke", function.slug, run_id)
    if await api.reader.run_view(run_id) is None:
        raise ApiError(422, f"function {function.slug!r} was not started yet: it is debounced or batched, as run {run_id}", "run_delayed")
    return _answer(api, InvokedV2(run_id))


async def list_functions(api: Api, request: Request) -> Response:
    return _answer(api, [function_v2(one) for one in await _functions(api, request.path_params["app"])])


async def get_function(api: Api, request: Request) -> Response:
    return _answer(api, function_v2(await _function(api, request)))


async def _functions(api: Api, app: str) -> Sequence[FunctionView]:
    found = [one for one in await api.reader.functions() if one.app == app and not one.archived]
    if not found and app not in api.engine.apps and app not in api.engine.applications.apps:
        raise ApiError(404, f"there is no app {app[:100]!r}", "app_not_found")
    return found


async def _function(api: Api, request: Request) -> FunctionView:
    app, wanted = request.path_params["app"], request.path_params["function"]
    for one in await _functions(api, app):
        if wanted in {short_id(one), one.slug}:
            return one
    raise ApiError(404, f"app {app[:100]!r} has no function {wanted[:100]!r}", "function_not_found")


async def list_apps(api: Api, _request: Request) -> Response:
    return _answer(api, await _apps(api))


async def get_app(api: Api, request: Request) -> Response:
    wanted = request.path_params["app"]
    for app in await _apps(api):
        if app.id == wanted:
            return _answer(api, app)
    raise ApiError(404, f"there is no app {wanted[:100]!r}", "app_not_found")


async def _apps(api: Api) -> list[AppV2]:
    functions = [one for one in await api.reader.functions() if not one.archived]
    records = api.engine.applications.apps
    out = []
    for name in sorted({one.app for one in functions} | set(records) | set(api.engine.apps)):
        record = records.get(name)
        count = sum(one.app == name for one in functions)
        if record is None:
            out.append(AppV2(name, name, None, None, None, None, count, None, None))
        else:
            synced = iso(record.synced_at)
            out.append(
                AppV2(name, name, record.url, record.sdk, record.framework, record.version, count, synced, record.error)
            )
    return out


# -- runs ------------------------------------------------------------------------------------------------------------


async def list_runs(api: Api, request: Request) -> Response:
    return await _list(api, request, RunFilter(status=_statuses(request)))


async def list_function_runs(api: Api, request: Request) -> Response:
    function = await _function(api, request)
    return await _list(api, request, RunFilter(function=function.slug, status=_statuses(request)))


def _statuses(request: Request) -> tuple[str, ...]:
    wanted = [text.upper() for text in request.query_params.getlist("status") if text]
    return (*wanted, "WAITING") if "RUNNING" in wanted else tuple(wanted)


async def _list(api: Api, request: Request, where: RunFilter) -> Response:
    limit = read_limit(request, 20, _MAX_LIMIT)
    rows, cursor = await api.reader.runs(where, limit=limit, cursor=read_cursor(request))
    return _answer(api, [run_v2(row) for row in rows], page=PageV2(cursor, cursor is not None, limit))


async def get_run(api: Api, request: Request) -> Response:
    detail = await _detail(api, request)
    return _answer(api, run_v2(detail.run, run_output(detail)))


async def get_trace(api: Api, request: Request) -> Response:
    return _answer(api, {"runId": request.path_params["run_id"], "rootSpan": span_v2(legacy_tree(await _detail(api, request)))})


async def _detail(api: Api, request: Request) -> RunDetail:
    run_id = read_id(request, "run_id", "a run")
    detail = await api.reader.run(run_id)
    if detail is None:
        raise no_run(run_id)
    return detail


async def rerun(api: Api, request: Request) -> Response:
    run_id = read_id(request, "run_id", "a run")
    made = await api.engine.rerun(run_id)
    await api.audit(request, "run.rerun", run_id, made)
    return _answer(api, InvokedV2(made))


async def cancel(api: Api, request: Request) -> Response:
    run_id = read_id(request, "run_id", "a run")
    if not await api.engine.cancel(run_id):
        raise ApiError(409, f"run {run_id} has ended already", "run_ended")
    await api.audit(request, "run.cancel", run_id)
    return _answer(api, InvokedV2(run_id))


# -- events ----------------------------------------------------------------------------------------------------------


async def send_event(api: Api, request: Request) -> Response:
    try:
        event = parse_payload(await request.body(), "", lambda name: _model(api, name))
        sent = (await api.engine.send([event]))[0]
    except EventInvalidError as error:
        raise ApiError(error.status, str(error), error.code) from error
    view = await api.reader.event(sent.id)
    return _answer(api, {"id": sent.id} if view is None else event_v2(view))


def _model(api: Api, name: str) -> type[Event] | None:
    """The class that an app of this process declares for an event name."""
    return next((app.events[name] for app in api.engine.apps.values() if name in app.events), None)


async def get_event_runs(api: Api, request: Request) -> Response:
    event_id = read_id(request, "event_id", "an event")
    if await api.reader.event(event_id) is None:
        raise ApiError(404, f"there is no event {event_id}", "event_not_found")
    return _answer(api, [run_v2(row) for row in await api.reader.event_runs(event_id)])


# -- the server ------------------------------------------------------------------------------------------------------


async def health(api: Api, _request: Request) -> Response:
    state = api.engine.status()
    if not state["accepting"]:
        raise ApiError(503, state["problem"] or "the engine does not accept work", "unavailable")
    return _answer(api, {"status": "ok"})


async def event_keys(api: Api, _request: Request) -> Response:
    keys = api.settings.event_keys
    return _answer(api, [{"name": f"key {number}", "key": _masked(key)} for number, key in enumerate(keys, 1)])


async def signing_keys(api: Api, _request: Request) -> Response:
    keys = [key for key in (api.settings.signing_key, api.settings.signing_key_fallback) if key]
    return _answer(api, [{"name": ("current", "fallback")[number], "key": _masked(key)} for number, key in enumerate(keys)])


def _masked(key: str) -> str:
    """Enough to tell keys apart; nobody learns one here."""
    return key[:4] + "..." if len(key) > 16 else "..."


async def not_implemented(_api: Api, request: Request) -> Response:
    what = request.url.path.rpartition(_ROOT)[2]
    raise ApiError(501, f"a self-hosted server has no {what}", "not_implemented")


# -- the table -------------------------------------------------------------------------------------------------------

_OK = Answer("Done.", AnswerV2, envelope=False)
_APP, _FUNCTION = Param("app", "The app's id.", "path"), Param("function", "The function's id, without the app's.", "path")
_RUN, _EVENT = Param("run_id", "The run, a ULID.", "path"), Param("event_id", "The event's internal id, a ULID.", "path")
_STATUS = Param("status", "QUEUED, RUNNING, COMPLETED, FAILED, CANCELLED or SKIPPED; may be repeated.")
_PAGE = (limit_param(20, _MAX_LIMIT), CURSOR)


def _error(text: str) -> Answer:
    return Answer(text, ErrorsV2, envelope=False)


def _operation(
    method: str,
    path: str,
    name: str,
    handler: Handler,
    summary: str,
    *params: Param,
    errors: dict[int, str] | None = None,
    **more: Any,
) -> Operation:
    return Operation(
        method=method,
        path=_ROOT + path,
        id=f"{name}V2",
        group="API version 2",
        handler=_in_envelope(handler),
        summary=summary,
        params=params,
        answers={200: _OK, **{status: _error(text) for status, text in (errors or {}).items()}},
        **more,
    )


_NONE = {404: "There is none."}
_INVOKE_BODY = {
    "type": "object",
    "required": ["data"],
    "properties": {"data": {"type": "object"}, "idempotency_key": {"type": "string"}},
}
_UNIMPLEMENTED = ("account", "partner", "envs", "webhooks", "syncs", "insights", "experiments", "sessions", "sandboxes")
_INVOKE_ERRORS = {
    400: "The body has no `data`.",
    404: "There is no such function.",
    409: "This idempotency key was used within 24 hours: `data.runId` is the run that it started.",
    422: "Its flow control lets no run start now.",
}

OPERATIONS = (
    _operation("POST", "/apps/{app}/functions/{function}/invoke", "invokeFunction", invoke, "Start a function", _APP, _FUNCTION,
               errors=_INVOKE_ERRORS, body=_INVOKE_BODY, example={"data": {"order_id": "o1"}, "idempotency_key": "o1"}),
    _operation("GET", "/apps", "listApps", list_apps, "List apps"),
    _operation("GET", "/apps/{app}", "getApp", get_app, "Read an app", _APP, errors=_NONE),
    _operation("GET", "/apps/{app}/functions", "listFunctions", list_functions, "List the functions of an app", _APP, errors=_NONE),
    _operation("GET", "/apps/{app}/functions/{function}", "getFunction", get_function, "Read a function", _APP, _FUNCTION, errors=_NONE),
    _operation("GET", "/apps/{app}/functions/{function}/runs", "listFunctionRuns", list_function_runs, "List the runs of a function",
               _APP, _FUNCTION, _STATUS, *_PAGE, errors=_NONE),
    _operation("GET", "/runs", "listRuns", list_runs, "List runs, newest first", _STATUS, *_PAGE),
    _operation("GET", "/runs/{run_id}", "getRun", get_run, "Read a run", _RUN, errors=_NONE),
    _operation("GET", "/runs/{run_id}/trace", "getRunTrace", get_trace, "Read a run as a tree of steps", _RUN, errors=_NONE),
    _operation("POST", "/runs/{run_id}/rerun", "rerunRun", rerun, "Run the same event again", _RUN, errors=_NONE),
    _operation("POST", "/runs/{run_id}/cancel", "cancelRun", cancel, "Cancel a run", _RUN, errors={**_NONE, 409: "It has ended."}),
    _operation("POST", "/events", "sendEvent", send_event, "Send an event", errors={400: "It is not acceptable."},
               body={"type": "object", "required": ["name"]}, example={"name": "shop/order.paid", "data": {"order_id": "o1"}}),
    _operation("GET", "/events/{event_id}/runs", "getEventRuns", get_event_runs, "List the runs an event started", _EVENT, errors=_NONE),
    _operation("GET", "/health", "getHealth", health, "Whether the server accepts work", errors={503: "It does not."}),
    _operation("GET", "/keys/events", "listEventKeys", event_keys, "List event keys, masked"),
    _operation("GET", "/keys/signing", "listSigningKeys", signing_keys, "List signing keys, masked"),
    *(
        _operation("GET", f"/{what}", f"{what}NotImplemented", not_implemented, f"Not here: {what}", errors={501: "Always."})
        for what in _UNIMPLEMENTED
    ),
)  # fmt: skip
