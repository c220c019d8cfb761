"""REST for flow control: how limits stand, pausing, changing limits, flushing what gathers."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from holdfast.base.errors import ConfigurationError
from holdfast.server.errors import ApiError, ErrorBody
from holdfast.server.flow_shapes import Flow, Flushed, flow_of
from holdfast.server.operation import Answer, Api, Operation, Param
from holdfast.store.flow_reads import FlowView

T = TypeVar("T")


class _Pause(msgspec.Struct, frozen=True):
    mode: str = "hold"


class _Limit(msgspec.Struct, frozen=True):
    limit: int


class _Flush(msgspec.Struct, frozen=True):
    key: str | None = None


async def list_flow(api: Api, _request: Request) -> Response:
    return api.answer([flow_of(view) for view in await api.reader.flow()])


async def get_flow(api: Api, request: Request) -> Response:
    return api.answer(flow_of(await _view(api, request)))


async def pause(api: Api, request: Request) -> Response:
    slug = (await _view(api, request)).function
    mode = (await _body(request, _Pause)).mode
    try:
        await api.engine.flow_control.pause(slug, mode)
    except ConfigurationError as error:
        raise ApiError(400, str(error)) from error
    await api.audit(request, "function.pause", slug, mode)
    return await _answer(api, slug)


async def resume(api: Api, request: Request) -> Response:
    slug = (await _view(api, request)).function
    await api.engine.flow_control.resume(slug)
    await api.audit(request, "function.resume", slug)
    return await _answer(api, slug)


async def set_limit(api: Api, request: Request) -> Response:
    return await _change(api, request, (await _body(request, _Limit)).limit)


async def reset_limit(api: Api, request: Request) -> Response:
    return await _change(api, request, None)


async def _change(api: Api, request: Request, limit: int | None) -> Response:
    slug, rule = (await _view(api, request)).function, request.path_params["rule"]
    try:
        await api.engine.flow_control.set_limit(slug, rule, limit)
    except ConfigurationError as error:
        raise ApiError(400, str(error)) from error
    await api.audit(request, "function.limit", slug, f"{rule} {limit or 'as in the code'}")
    return await _answer(api, slug)


async def flush(api: Api, request: Request) -> Response:
    slug = (await _view(api, request)).function
    key = (await _body(request, _Flush)).key
    started = await api.engine.flow_control.flush(slug, key)
    await api.audit(request, "function.flush", slug, f"{started} runs" + ("" if key is None else f" of key {key!r}"))
    return api.answer(Flushed(started))


async def _view(api: Api, request: Request) -> FlowView:
    slug = request.path_params["slug"]
    found = await api.reader.flow(slug)
    if not found:
        raise ApiError(
            404, f"there is no function {slug[:100]!r}; GET /v1/functions lists those there are", "function_not_found"
        )
    return found[0]


async def _answer(api: Api, slug: str) -> Response:
    return api.answer(flow_of((await api.reader.flow(slug))[0]))


async def _body(request: Request, kind: type[T]) -> T:
    """The request's JSON; no body reads as an empty object."""
    raw = await request.body()
    try:
        return msgspec.json.decode(raw or b"{}", type=kind)
    except msgspec.DecodeError as error:
        raise ApiError(400, f"the body is not what this expects: {error}") from error


# -- the table -------------------------------------------------------------------------------------------------------

_SLUG = Param("slug", "`<app>-<function>`.", "path")
_RULE = Param("rule", "concurrency, concurrency-2, run-concurrency, throttle or rate-limit.", "path")
_NO_FUNCTION = Answer("There is no such function.", ErrorBody, envelope=False)
_NOW = Answer("How it stands now.", Flow)

OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/flow",
        id="listFlow",
        group="Flow control",
        handler=list_flow,
        summary="How the limits of all functions stand",
        description="Counts are exact up to a bound; past it, `more` is true.",
        answers={200: Answer("The functions of the apps' code.", list[Flow])},
    ),
    Operation(
        method="GET",
        path="/v1/functions/{slug}/flow",
        id="getFlow",
        group="Flow control",
        handler=get_flow,
        summary="How the limits of a function stand",
        description="Its rules in words, limits with places taken, who waits for what, what gathers.",
        params=(_SLUG,),
        answers={200: Answer("The function.", Flow), 404: _NO_FUNCTION},
    ),
    Operation(
        method="POST",
        path="/v1/functions/{slug}/pause",
        id="pauseFunction",
        group="Flow control",
        handler=pause,
        summary="Pause a function",
        description=(
            "It stays so after a restart. With `hold`, its runs wait in their queue, those that come and those that go on from a "
            "wait. With `skip`, live runs go on, and events that come start nothing and say so."
        ),
        params=(_SLUG,),
        body={"type": "object", "properties": {"mode": {"type": "string", "enum": ["hold", "skip"], "default": "hold"}}},
        example={"mode": "hold"},
        answers={200: _NOW, 400: Answer("There is no such mode.", ErrorBody, envelope=False), 404: _NO_FUNCTION},
    ),
    Operation(
        method="POST",
        path="/v1/functions/{slug}/resume",
        id="resumeFunction",
        group="Flow control",
        handler=resume,
        summary="End a pause",
        params=(_SLUG,),
        answers={200: _NOW, 404: _NO_FUNCTION},
    ),
    Operation(
        method="PUT",
        path="/v1/functions/{slug}/limits/{rule}",
        id="setLimit",
        group="Flow control",
        handler=set_limit,
        summary="Change a limit",
        description="At once, and until it is changed again, also after a restart.",
        params=(_SLUG, _RULE),
        body={"type": "object", "required": ["limit"], "properties": {"limit": {"type": "integer", "minimum": 1}}},
        example={"limit": 5},
        answers={
            200: _NOW,
            400: Answer("It has no such limit, or the number is out of range.", ErrorBody, envelope=False),
            404: _NO_FUNCTION,
        },
    ),
    Operation(
        method="DELETE",
        path="/v1/functions/{slug}/limits/{rule}",
        id="resetLimit",
        group="Flow control",
        handler=reset_limit,
        summary="Go back to the limit in the code",
        params=(_SLUG, _RULE),
        answers={200: _NOW, 400: Answer("It has no such limit.", ErrorBody, envelope=False), 404: _NO_FUNCTION},
    ),
    Operation(
        method="POST",
        path="/v1/functions/{slug}/flush",
        id="flushFunction",
        group="Flow control",
        handler=flush,
        summary="Start debounces and batches now",
        description="Those of one key, or all, without waiting for what they wait for.",
        params=(_SLUG,),
        body={"type": "object", "properties": {"key": {"type": "string"}}},
        example={"key": "customer-7"},
        answers={200: Answer("How many runs were started.", Flushed), 404: _NO_FUNCTION},
    ),
)
