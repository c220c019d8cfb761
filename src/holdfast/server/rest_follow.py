"""A run as server-sent events: its state, then each change and each step, until it has ended; and what a run says of itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from holdfast.base.errors import NotRunningError, RunNotFoundError, StepUsageError
from holdfast.base.ids import ulid_bytes, ulid_text
from holdfast.engine.following import RunChange, follow
from holdfast.server.errors import ApiError, ErrorBody
from holdfast.server.operation import RUN_ID, Answer, Api, Operation, Param, json_response, no_run, read_id
from holdfast.server.shapes import FinishedStep, Run, finished_step_of, run_of
from holdfast.wire.errors import WireError
from holdfast.wire.metadata import KEPT, MAX_REPORT_BYTES

PING_SECONDS = 15.0
"""Silence after which a comment keeps proxies from closing the connection."""
_RETRY = b"retry: 2000\n\n"


# -- following -------------------------------------------------------------------------------------------------------


async def follow_run(api: Api, request: Request) -> Response:
    run_id = read_id(request, "run_id", "a run")
    if await api.reader.run_view(run_id) is None:
        raise no_run(run_id)
    return StreamingResponse(
        _messages(api, run_id, _last_seen(request)),
        media_type="text/event-stream",
        headers={"x-accel-buffering": "no"},
    )


def _last_seen(request: Request) -> int | None:
    """The step that a reader who comes back knows of; None for one who is new."""
    text = request.headers.get("last-event-id") or request.query_params.get("after") or ""
    return min(int(text), 1 << 40) if text.isascii() and text.isdecimal() else None


async def _messages(api: Api, run_id: str, after: int | None) -> AsyncIterator[bytes]:
    yield _RETRY
    seen = after
    try:
        async with aclosing(follow(api.engine, run_id, after=after, quiet=PING_SECONDS)) as changes:
            async for change in changes:
                if change is None:
                    yield b": ping\n\n"
                    continue
                seen = change.run.steps if seen is None else seen
                for message in _of_change(change, seen):
                    yield message
                seen = max([seen, *(step.seq for step in change.steps)])
    except (RunNotFoundError, NotRunningError):
        return  # retention was faster, or the server stops: the browser asks again, and is told


def _of_change(change: RunChange, seen: int) -> list[bytes]:
    """Steps before the run that has them, so that the last message of all is the end."""
    steps = [_message(b"step", step.seq, msgspec.json.encode(finished_step_of(step))) for step in change.steps]
    last = change.steps[-1].seq if change.steps else seen
    return [*steps, _message(b"run", last, msgspec.json.encode(run_of(change.run)))]


def _message(name: bytes, number: int, data: bytes) -> bytes:
    return b"event: %s\nid: %d\ndata: %s\n\n" % (name, number, data)


# -- what a run says -------------------------------------------------------------------------------------------------


class Kept(msgspec.Struct, frozen=True):
    """What became of reported metadata."""

    kept: list[str]
    """Kinds that were kept."""
    ignored: list[str]
    """Kinds that this server has no use for."""


async def report_metadata(api: Api, request: Request) -> Response:
    run_id = ulid_bytes(read_id(request, "run_id", "a run"))
    body = await request.body()
    if len(body) > MAX_REPORT_BYTES:
        raise ApiError(413, f"the metadata has {len(body)} bytes; {MAX_REPORT_BYTES} are allowed", "metadata_too_large")
    try:
        kept, kinds = await api.engine.reported.take(run_id, body)
    except (WireError, StepUsageError) as error:
        raise ApiError(400, str(error), "metadata_invalid") from error
    if not kept:
        await _refuse(api, run_id)
    return json_response({"data": Kept(sorted(kinds & KEPT), sorted(kinds - KEPT))})


async def _refuse(api: Api, run_id: bytes) -> None:
    text = ulid_text(run_id)
    if await api.reader.run_view(text) is None:
        raise no_run(text)
    raise ApiError(409, f"run {text} has ended: it is as far as it will be", "run_ended")


# -- the table -------------------------------------------------------------------------------------------------------

_BAD_ID = Answer("That is not an id.", ErrorBody, envelope=False)
_NO_RUN = Answer("There is no such run.", ErrorBody, envelope=False)

OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/runs/{run_id}/stream",
        id="followRun",
        group="Runs",
        handler=follow_run,
        summary="Follow a run until it ends",
        description=(
            "Server-sent events. `run` has the run as its data: one at once, one for each change of status, progress, "
            "steps or error, the last when it has ended. `step` tells of each step that finishes, before the `run` that counts "
            "it. Their ids are the numbers of finished steps: a reader who comes back with `Last-Event-ID`, as browsers do, "
            "is told of the steps it has missed."
        ),
        params=(
            RUN_ID,
            Param("after", "Tell of steps that finished after this one: what `Last-Event-ID` says, for those who can't set it."),
        ),
        answers={
            200: Answer("Messages.", Run | FinishedStep, envelope=False, media_type="text/event-stream"),
            400: _BAD_ID,
            404: _NO_RUN,
        },
    ),
    Operation(
        method="POST",
        path="/v1/runs/{run_id}/metadata",
        id="reportMetadata",
        group="Applications",
        handler=report_metadata,
        summary="Say how far a run is, and what it logs",
        description=(
            "From an application while a call to it goes on. Of all kinds of metadata two are kept: `userland.progress`, with the "
            "values `fraction` (0 to 1, or null) and `text`, and `userland.log`, a line for the run's page, with the values "
            "`at` (milliseconds since 1970), `level` (20 is info, 30 warning, 40 error), `message` and `step` (or null). The "
            "answer names the kinds that were passed over."
        ),
        params=(RUN_ID,),
        body={
            "type": "object",
            "properties": {
                "target": {"type": "object", "description": "What it is about; progress is always the run's."},
                "metadata": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "kind": {"type": "string"},
                            "op": {"type": "string", "enum": ["merge", "set", "delete", "add"]},
                            "values": {"type": "object"},
                        },
                    },
                },
            },
        },
        answers={
            200: Answer("What was kept.", Kept),
            400: Answer("It is not metadata, or no progress or line.", ErrorBody, envelope=False),
            404: _NO_RUN,
            409: Answer("The run has ended.", ErrorBody, envelope=False),
            413: Answer("It is too much.", ErrorBody, envelope=False),
        },
    ),
)
