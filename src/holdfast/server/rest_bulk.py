"""REST for acting on many runs: bulk operations, and the protocol's cancellations on top of them (section 1.5)."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from holdfast.base.clock import iso
from holdfast.base.errors import ConfigurationError, RunNotFoundError
from holdfast.base.ids import name_uuid, ulid_text
from holdfast.core.rows import BulkRow
from holdfast.server.access import identity_of
from holdfast.server.errors import ApiError, ErrorBody
from holdfast.server.operation import (
    MAX_LIMIT,
    Answer,
    Api,
    Operation,
    Param,
    limit_param,
    read_id,
    read_limit,
    read_object,
)
from holdfast.server.shapes import ENVIRONMENT_ID
from holdfast.store.reads import BulkView

# -- what it answers -------------------------------------------------------------------------------------------------


class BulkStarted(Struct, frozen=True):
    """A bulk operation that was asked for."""

    id: Annotated[str | None, Meta(description="Null when it was only asked how many there are.")]
    total: Annotated[int, Meta(description="How many runs match.")]


class Bulk(Struct, frozen=True):
    """A bulk operation and how far it is."""

    id: str
    action: Annotated[str, Meta(description="cancel, rerun, redrive or discard.")]
    filter: dict[str, Any]
    actor: Annotated[str, Meta(description="Who asked for it.")]
    state: Annotated[str, Meta(description="running, done or cancelled.")]
    rate: str | None
    total: Annotated[int, Meta(description="How many runs matched when it began.")]
    done: int
    skipped: Annotated[int, Meta(description="There was nothing to do any more: the run had ended, or was redriven.")]
    failed: int
    error: Annotated[str | None, Meta(description="Why the last of those that failed did.")]
    created_at: str
    ended_at: str | None


class Cancellation(Struct, frozen=True, rename={"expression": "if"}):
    """A cancellation of many runs, as the protocol has it."""

    id: str
    app_id: str
    function_id: str
    started_after: str | None
    started_before: str | None
    expression: str | None
    state: Annotated[str, Meta(description="running, done or cancelled.")]
    cancelled: Annotated[int, Meta(description="How many runs it has cancelled so far.")]
    created_at: str
    environment_id: str = ENVIRONMENT_ID


def bulk_of(view: BulkView) -> Bulk:
    """A bulk operation for the API."""
    return Bulk(
        view.id,
        view.action,
        view.filter,
        view.actor,
        view.state,
        view.rate,
        view.total,
        view.done,
        view.skipped,
        view.failed,
        view.error,
        iso(view.created_at) or "",
        iso(view.ended_at),
    )


def cancellation_of(view: BulkView) -> Cancellation:
    """A cancellation for the API."""
    where = view.filter
    return Cancellation(
        view.id,
        str(where.get("app", "")),
        str(where.get("function", "")),
        _moment(where.get("since")),
        _moment(where.get("until")),
        None if where.get("if") is None else str(where["if"]),
        view.state,
        view.done,
        iso(view.created_at) or "",
    )


def _moment(value: object) -> str | None:
    return iso(value) if isinstance(value, int) else None


# -- bulk operations -------------------------------------------------------------------------------------------------


class BulkBody(Struct, frozen=True, forbid_unknown_fields=True):
    """What a bulk operation is asked for with."""

    action: str
    filter: dict[str, Any]
    rate: str | None = None
    dry_run: bool = False


async def start_bulk(api: Api, request: Request) -> Response:
    body = await read_object(request, BulkBody)
    if body.dry_run:
        try:
            total = await api.engine.bulks.count(body.action, body.filter, rate=body.rate)
        except ConfigurationError as error:
            raise ApiError(400, str(error)) from error
        return api.answer(BulkStarted(None, total))
    row = await _start(api, request, body.action, body.filter, body.rate)
    return api.answer(BulkStarted(ulid_text(row.id), row.total))


async def _start(api: Api, request: Request, action: str, where: dict[str, Any], rate: str | None) -> BulkRow:
    actor = identity_of(request.scope).actor
    try:
        row = await api.engine.bulks.start(action, where, rate=rate, actor=actor)
    except ConfigurationError as error:
        raise ApiError(400, str(error)) from error
    said = f"{action} {row.total}: {row.filter.decode()}"
    await api.audit(request, "bulk.start", ulid_text(row.id), said)
    return row


async def list_bulks(api: Api, request: Request) -> Response:
    rows = await api.reader.bulks(
        limit=read_limit(request, 50, MAX_LIMIT), running=request.query_params.get("state") == "running"
    )
    return api.answer([bulk_of(row) for row in rows])


async def get_bulk(api: Api, request: Request) -> Response:
    return api.answer(bulk_of(await _bulk(api, request)))


async def cancel_bulk(api: Api, request: Request) -> Response:
    await _stop(api, await _bulk(api, request), request)
    return Response(status_code=204)


async def _bulk(api: Api, request: Request) -> BulkView:
    bulk_id = read_id(request, "bulk_id", "a bulk operation")
    row = await api.reader.bulk(bulk_id)
    if row is None:
        raise ApiError(
            404, f"there is no bulk operation {bulk_id}; it may have been removed by retention", "bulk_not_found"
        )
    return row


async def _stop(api: Api, row: BulkView, request: Request) -> None:
    try:
        stopped = await api.engine.bulks.cancel(row.id)
    except RunNotFoundError as error:
        raise ApiError(404, str(error), "bulk_not_found") from error
    if not stopped:
        raise ApiError(409, f"bulk operation {row.id} has ended already", "bulk_ended")
    await api.audit(request, "bulk.cancel", row.id)


# -- the protocol's cancellations ------------------------------------------------------------------------------------


class CancellationBody(Struct, frozen=True, rename={"expression": "if"}):
    """What a cancellation is asked for with."""

    app_id: str
    function_id: str
    started_before: str
    started_after: str | None = None
    expression: str | None = None


async def start_cancellation(api: Api, request: Request) -> Response:
    body = await read_object(request, CancellationBody)
    where = {
        "app": body.app_id,
        "function": await _slug(api, body.app_id, body.function_id),
        "since": body.started_after,
        "until": body.started_before,
        "if": body.expression,
    }
    row = await _start(api, request, "cancel", where, None)
    view = await api.reader.bulk(ulid_text(row.id))
    assert view is not None
    response = api.answer(cancellation_of(view))
    response.status_code = 201
    return response


async def _slug(api: Api, app: str, function: str) -> str:
    """The slug of a function by its id, its slug, or its UUID in the protocol."""
    for known in await api.reader.functions():
        if known.app == app and function in {
            known.slug,
            known.slug.removeprefix(f"{app}-"),
            name_uuid(app, known.slug),
        }:
            return known.slug
    raise ApiError(
        404,
        f"app {app[:60]!r} has no function {function[:100]!r}; GET /v1/functions lists those there are",
        "function_not_found",
    )


def _is_cancellation(view: BulkView) -> bool:
    return view.action == "cancel" and bool(view.filter.get("app")) and bool(view.filter.get("function"))


async def list_cancellations(api: Api, request: Request) -> Response:
    rows = await api.reader.bulks(limit=read_limit(request, 50, MAX_LIMIT))
    return api.answer([cancellation_of(row) for row in rows if _is_cancellation(row)])


async def get_cancellation(api: Api, request: Request) -> Response:
    return api.answer(cancellation_of(await _cancellation(api, request)))


async def stop_cancellation(api: Api, request: Request) -> Response:
    await _stop(api, await _cancellation(api, request), request)
    return Response(status_code=204)


async def _cancellation(api: Api, request: Request) -> BulkView:
    row = await _bulk(api, request)
    if not _is_cancellation(row):
        raise ApiError(
            404, f"{row.id} is a bulk operation but no cancellation; read it at /v1/bulk/{row.id}", "bulk_not_found"
        )
    return row


# -- the table -------------------------------------------------------------------------------------------------------

_BULK_ID = Param("bulk_id", "The operation, a ULID.", "path")
_NO_BULK = Answer("There is no such operation.", ErrorBody, envelope=False)
_BAD = Answer("It can't be understood; `error` says why.", ErrorBody, envelope=False)
_OVER = Answer("It has ended already.", ErrorBody, envelope=False)
_TEXT = {"type": "string"}
_MOMENT = {"type": ["string", "integer"], "description": "RFC 3339, milliseconds since 1970, or so long ago: `1h`."}
_FILTER = {
    "type": "object",
    "description": "Every field narrows. A filter that narrows nothing needs `all`.",
    "properties": {
        "ids": {"type": "array", "items": _TEXT, "maxItems": 1000},
        "status": {"type": ["string", "array"], "items": _TEXT},
        "function": _TEXT,
        "app": _TEXT,
        "event": _TEXT,
        "event_id": _TEXT,
        "since": _MOMENT,
        "until": _MOMENT,
        "error": {"type": "string", "description": "Text contained in the error."},
        "parent": _TEXT,
        "fingerprint": {"type": "string", "description": "Dead letters of one error."},
        "if": {"type": "string", "description": "CEL over `event`, the event of each run."},
        "all": {"type": "boolean"},
    },
}

OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/bulk",
        id="startBulk",
        group="Many at once",
        handler=start_bulk,
        summary="Act on all runs that match",
        description=(
            "Cancels, reruns, redrives or discards in the background, and goes on after a restart. "
            "With `dry_run` it only answers how many there are."
        ),
        body={
            "type": "object",
            "required": ["action", "filter"],
            "properties": {
                "action": {"type": "string", "enum": ["cancel", "rerun", "redrive", "discard"]},
                "filter": _FILTER,
                "rate": {"type": "string", "description": "At most so many in so much time: `10/s`, `100/m`."},
                "dry_run": {"type": "boolean", "default": False},
            },
        },
        example={"action": "redrive", "filter": {"function": "fulfil", "since": "1h"}, "rate": "10/s"},
        answers={200: Answer("It is on disk and begins.", BulkStarted), 400: _BAD},
    ),
    Operation(
        method="GET",
        path="/v1/bulk",
        id="listBulks",
        group="Many at once",
        handler=list_bulks,
        summary="List bulk operations, newest first",
        params=(
            Param("state", "`running`: only those that go on.", "query", {"type": "string", "enum": ["running"]}),
            limit_param(50, MAX_LIMIT),
        ),
        answers={200: Answer("Bulk operations.", list[Bulk])},
    ),
    Operation(
        method="GET",
        path="/v1/bulk/{bulk_id}",
        id="getBulk",
        group="Many at once",
        handler=get_bulk,
        summary="Read a bulk operation and its progress",
        params=(_BULK_ID,),
        answers={200: Answer("The operation.", Bulk), 400: _BAD, 404: _NO_BULK},
    ),
    Operation(
        method="DELETE",
        path="/v1/bulk/{bulk_id}",
        id="cancelBulk",
        group="Many at once",
        handler=cancel_bulk,
        summary="Stop a bulk operation where it is",
        description="What it has done stays done.",
        params=(_BULK_ID,),
        answers={204: Answer("It is stopped."), 400: _BAD, 404: _NO_BULK, 409: _OVER},
    ),
    Operation(
        method="POST",
        path="/v1/cancellations",
        id="startCancellation",
        group="Many at once",
        handler=start_cancellation,
        summary="Cancel the runs of a function that were queued before a moment",
        description="The Inngest protocol's form of a bulk operation.",
        body={
            "type": "object",
            "required": ["app_id", "function_id", "started_before"],
            "properties": {
                "app_id": _TEXT,
                "function_id": {"type": "string", "description": "Its id, slug or UUID."},
                "started_after": {"type": "string", "format": "date-time"},
                "started_before": {"type": "string", "format": "date-time"},
                "if": {"type": "string", "description": "CEL over `event`, the event of each run."},
            },
        },
        example={"app_id": "shop", "function_id": "fulfil", "started_before": "2026-01-31T09:00:00Z"},
        answers={
            201: Answer("It is on disk and begins.", Cancellation),
            400: _BAD,
            404: Answer("There is no such function.", ErrorBody, envelope=False),
        },
    ),
    Operation(
        method="GET",
        path="/v1/cancellations",
        id="listCancellations",
        group="Many at once",
        handler=list_cancellations,
        summary="List cancellations, newest first",
        params=(limit_param(50, MAX_LIMIT),),
        answers={200: Answer("Cancellations.", list[Cancellation])},
    ),
    Operation(
        method="GET",
        path="/v1/cancellations/{bulk_id}",
        id="getCancellation",
        group="Many at once",
        handler=get_cancellation,
        summary="Read a cancellation",
        params=(_BULK_ID,),
        answers={200: Answer("The cancellation.", Cancellation), 400: _BAD, 404: _NO_BULK},
    ),
    Operation(
        method="DELETE",
        path="/v1/cancellations/{bulk_id}",
        id="stopCancellation",
        group="Many at once",
        handler=stop_cancellation,
        summary="Stop a cancellation where it is",
        description="Runs it has cancelled stay cancelled.",
        params=(_BULK_ID,),
        answers={204: Answer("It is stopped."), 400: _BAD, 404: _NO_BULK, 409: _OVER},
    ),
)
