"""Durable endpoints: runs that SDKs execute within a request, their steps, and their output (protocol section 1.6)."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from holdfast.base.errors import ConfigurationError, RunCancelledError, RunFailedError
from holdfast.base.ids import name_uuid, ulid_bytes, ulid_ms, ulid_text
from holdfast.core.endpoints import PAUSED
from holdfast.core.plan import Refused
from holdfast.core.progress import progress_of
from holdfast.core.rows import RunRow
from holdfast.engine.endpoints import Begun
from holdfast.server.errors import ApiError, ErrorBody
from holdfast.server.operation import RUN_ID, Answer, Api, Operation, Param, json_response, read_id
from holdfast.server.run_tokens import OUTPUT, REALTIME, accepts, issue
from holdfast.wire import headers as h
from holdfast.wire.endpoints import body_bytes, decode_new_run, decode_report
from holdfast.wire.errors import WireError

_OUTPUT_SECONDS = 300.0
_CLOCKS_APART_MS = 86_400_000
"""How far an SDK's clock may be off, by the run id that it makes."""


async def begin(api: Api, request: Request) -> Response:
    engine = api.engine
    try:
        new = decode_new_run(await request.body())
        run_id = ulid_bytes(new.run_id)
    except (WireError, ValueError) as error:
        raise ApiError(400, str(error), "checkpoint_invalid") from error
    now = engine.clock.now()
    if abs(ulid_ms(run_id) - now) > _CLOCKS_APART_MS:
        raise ApiError(400, "the run's id is of another day; set the application's clock", "checkpoint_invalid")
    try:
        begun = await engine.endpoints.begin(new, run_id, _sdk(request))
    except ConfigurationError as error:
        raise ApiError(400, str(error), "too_many_endpoints") from error
    if isinstance(begun, Refused):
        if begun == PAUSED:
            raise ApiError(429, "the endpoint is paused; resume it on the dashboard", "function_paused", retry_after=5)
        raise ApiError(409, "Run already exists", "run_exists")
    return json_response({"data": _begun(begun, ulid_text(run_id), now, stepped=bool(new.steps))})


def _begun(begun: Begun, run_id: str, now: int, *, stepped: bool) -> dict[str, str]:
    fn = begun.fn
    said = {
        "fn_id": name_uuid(fn.app, fn.slug),
        "app_id": name_uuid(fn.app),
        "run_id": run_id,
        "realtime_token": issue(begun.secret, run_id, REALTIME, now),
    }
    return said | {"token": issue(begun.secret, run_id, OUTPUT, now)} if stepped else said


def _sdk(request: Request) -> str:
    language, version = h.sdk_parts(request.headers.get(h.SDK, ""))
    return f"{language}:v{version}" if language else ""


async def report(api: Api, request: Request) -> Response:
    run_id = ulid_bytes(read_id(request, "run_id", "a run"))
    try:
        reported = decode_report(await request.body())
    except WireError as error:
        raise ApiError(400, str(error), "checkpoint_invalid") from error
    # an application can't do anything about a run that isn't its own any more, so it isn't told
    await api.engine.endpoints.report(run_id, reported.steps, goes_on=not _sdk(request).startswith("js"))
    return json_response({"data": None})


async def output(api: Api, request: Request) -> Response:
    run_id = read_id(request, "run_id", "a run")
    raw = ulid_bytes(run_id)
    run = (await api.engine.store.read([(RunRow, raw)])).get(RunRow, raw)
    secret = "" if run is None else progress_of(run).secret
    if not accepts(secret, request.query_params.get("token", ""), run_id, OUTPUT, api.engine.clock.now()):
        raise ApiError(401, "the token is not of this run, or has expired", "token_refused")
    response = await _awaited(api, run_id)
    # the token says who may read; it works from every page, as the redirect that brings it does
    response.headers["access-control-allow-origin"] = "*"
    return response


async def _awaited(api: Api, run_id: str) -> Response:
    try:
        return _stored(await api.engine.control.result(run_id, _OUTPUT_SECONDS))
    except TimeoutError:
        return json_response({"status": "running", "message": "run did not end within 5 minutes"}, 202)
    except RunFailedError as error:
        return json_response({"error": {"name": error.name, "message": error.message, "stack": error.stack}}, 500)
    except RunCancelledError as error:
        return json_response({"error": {"name": "RunCancelledError", "message": str(error)}}, 410)


def _stored(result: bytes) -> Response:
    """The response an endpoint has made: as it was, where the SDK says all of it, else in the protocol's envelope."""
    try:
        found: Any = msgspec.json.decode(result)
    except msgspec.DecodeError:
        found = None
    said = found.get("data") if isinstance(found, dict) else None
    if not isinstance(said, dict) or type(said.get("status_code")) is not int:
        return Response(b'{"data":' + result + b"}", media_type="application/json")
    headers = {str(name): str(value) for name, value in (said.get("headers") or {}).items()}
    status = said["status_code"]
    return Response(_body(said.get("body")), status if 200 <= status <= 599 else 200, headers)


def _body(said: Any) -> bytes:
    if isinstance(said, str):
        return body_bytes(said, encoded=True)
    return b"" if said is None else msgspec.json.encode(said)


_TOKEN = Param("token", "As it was given to the application with the run's first steps.")
_OUTPUT_ANSWERS = {
    200: Answer("What the endpoint answered.", None),
    202: Answer("The run has not ended within five minutes; ask again.", dict, envelope=False),
    401: Answer("The token is not of this run, or has expired.", ErrorBody, envelope=False),
    410: Answer("The run was cancelled.", dict, envelope=False),
    500: Answer("The run has failed.", dict, envelope=False),
}


def _output(path: str, name: str) -> Operation:
    return Operation(
        method="GET",
        path=path,
        id=name,
        group="Applications",
        handler=output,
        summary="Wait for what a durable endpoint answers",
        description="Where clients are redirected whose request couldn't be answered at once. Waits up to five minutes.",
        params=(RUN_ID, _TOKEN),
        answers=_OUTPUT_ANSWERS,
        public=True,
    )


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/checkpoint",
        id="beginEndpointRun",
        group="Applications",
        handler=begin,
        summary="Begin the run of a durable endpoint",
        description="SDKs execute such a run within the request of their client, and report its steps.",
        body={"type": "object"},
        answers={
            200: Answer("It has begun; `token` is for its output.", dict, envelope=False),
            400: Answer("It can't be begun; `error` says why.", ErrorBody, envelope=False),
            409: Answer("A run with this id, or of this event id, exists already.", ErrorBody, envelope=False),
            429: Answer("The endpoint is paused.", ErrorBody, envelope=False),
        },
    ),
    Operation(
        method="POST",
        path="/v1/checkpoint/{run_id}/steps",
        id="reportEndpointSteps",
        group="Applications",
        handler=report,
        summary="Record steps of a durable endpoint",
        description="What can't be done within a request, such as a sleep, moves the run to the queue.",
        params=(RUN_ID,),
        body={"type": "object"},
        answers={
            200: Answer("They are recorded, unless the run has gone on without the request.", dict, envelope=False),
            400: Answer("They can't be understood.", ErrorBody, envelope=False),
        },
    ),
    _output("/v1/checkpoint/{run_id}/output", "getEndpointOutput"),
    _output("/v1/http/runs/{run_id}/output", "getHttpRunOutput"),
)
