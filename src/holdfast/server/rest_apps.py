"""Applications over HTTP: registering, and what SDKs fetch of a run that is too large for a call (protocol sections 1.3 and 1.4)."""

from __future__ import annotations

import uuid

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from holdfast.base.clock import iso
from holdfast.base.errors import AddressRefusedError, ConfigurationError
from holdfast.base.ids import name_uuid, ulid_bytes
from holdfast.core.plan import EventsOfBatch, StepsOf
from holdfast.core.rows import EventRow, RunRow, StepKind, StepState
from holdfast.engine.calling import call_event, memo
from holdfast.server.access import identity_of
from holdfast.server.errors import ApiError, ErrorBody
from holdfast.server.operation import Answer, Api, Operation, Param, json_response, read_id
from holdfast.server.shapes import Application
from holdfast.store.sqlite.registry import AppRecord
from holdfast.wire import headers as h
from holdfast.wire.errors import WireError
from holdfast.wire.registering import RegisterAnswer, decode_register, encode_register_answer, sdk_refused


async def register(api: Api, request: Request) -> Response:
    expected = request.headers.get(h.EXPECTED_SERVER_KIND)
    if expected and expected != api.settings.kind:
        raise ApiError(400, f"Expected server kind {expected}, got {api.settings.kind}")
    try:
        document = decode_register(await request.body())
        refused = sdk_refused(document.sdk)
        if refused is not None:
            raise ApiError(400, refused, "sdk_version_denied")
        answer = await api.engine.applications.register(document)
    except (WireError, ConfigurationError) as error:
        raise ApiError(400, str(error), "registration_invalid") from error
    except AddressRefusedError as error:
        raise ApiError(400, str(error), error.code) from error
    if answer.modified:
        await api.audit(request, "app.register", answer.app_id or "")
    return Response(encode_register_answer(answer), media_type="application/json")


async def remove(api: Api, request: Request) -> Response:
    url = request.query_params.get("url", "")
    if not await api.engine.applications.remove(url):
        raise ApiError(404, f"no application has registered with the address {url[:200]!r}", "app_not_found")
    await api.audit(request, "app.remove", url)
    return json_response({"ok": True})


async def list_apps(api: Api, _request: Request) -> Response:
    apps = api.engine.applications
    counts: dict[str, int] = {}
    for fn in apps.functions.values():
        counts[fn.app] = counts.get(fn.app, 0) + 1
    return api.answer([_application(record, counts.get(record.name, 0)) for record in apps.apps.values()])


def _application(record: AppRecord, functions: int) -> Application:
    synced = iso(record.synced_at) or ""
    identity = name_uuid(record.name)
    return Application(
        identity, record.name, record.url, record.sdk, record.framework, synced, functions, record.error
    )


# -- limits, which test suites set -----------------------------------------------------------------------------------------


async def set_step_limit(api: Api, request: Request) -> Response:
    function_id = _function(api, request)
    api.engine.step_limits[function_id] = limit = _number(request)
    await api.audit(request, "function.step_limit", api.engine.slug_of(function_id), f"{limit}")
    return json_response({"ok": True})


async def reset_step_limit(api: Api, request: Request) -> Response:
    function_id = _function(api, request)
    api.engine.step_limits.pop(function_id, None)
    await api.audit(request, "function.step_limit", api.engine.slug_of(function_id), "as usual")
    return json_response({"ok": True})


async def set_state_limit(api: Api, request: Request) -> Response:
    function_id = _function(api, request)
    api.engine.state_limits[function_id] = limit = _number(request)
    await api.audit(request, "function.state_limit", api.engine.slug_of(function_id), f"{limit}")
    return json_response({"ok": True})


async def reset_state_limit(api: Api, request: Request) -> Response:
    function_id = _function(api, request)
    api.engine.state_limits.pop(function_id, None)
    await api.audit(request, "function.state_limit", api.engine.slug_of(function_id), "as usual")
    return json_response({"ok": True})


def _function(api: Api, request: Request) -> int:
    wanted = request.query_params.get("functionId", "")
    try:
        canonical = str(uuid.UUID(wanted))
    except ValueError:
        raise ApiError(400, f"functionId is a UUID, not {wanted[:60]!r}") from None
    for fn in api.engine.applications.functions.values():
        if fn.uuid == canonical:
            return fn.id
    raise ApiError(404, f"there is no function {canonical}", "function_not_found")


def _number(request: Request) -> int:
    text = request.query_params.get("limit", "")
    if not text.isdecimal():
        raise ApiError(400, f"limit is a whole number, not {text[:20]!r}")
    return int(text)


# -- what is fetched with `use_api` ----------------------------------------------------------------------------------------


async def run_actions(api: Api, request: Request) -> Response:
    run = await _live_run(api, request)
    steps = (await api.engine.store.read([StepsOf(run.id)])).find(StepsOf(run.id))
    memos = {
        step.key: memo(step)
        for step in sorted(steps, key=lambda one: one.seq)
        if step.state != StepState.PENDING and step.kind != StepKind.END
    }
    return json_response(memos)


async def run_batch(api: Api, request: Request) -> Response:
    run = await _live_run(api, request)
    ids = [run.event_id]
    if run.batch:
        places = (await api.engine.store.read([EventsOfBatch(run.id)])).find(EventsOfBatch(run.id))
        ids = [place.event_id for place in places]
    rows = await api.engine.store.read([(EventRow, event_id) for event_id in ids])
    events = [call_event(row) for event_id in ids if (row := rows.get(EventRow, event_id)) is not None]
    return Response(msgspec.json.encode(events), media_type="application/json")


async def _live_run(api: Api, request: Request) -> RunRow:
    if identity_of(request.scope).via == "session":
        # marked fields are in the clear here: what functions are given is not for people
        raise ApiError(403, "this is for applications, with the signing key; a run's page has it for people")
    raw = ulid_bytes(read_id(request, "run_id", "a run"))
    run = (await api.engine.store.read([(RunRow, raw)])).get(RunRow, raw)
    if run is None or run.ended_at is not None:
        raise ApiError(410, "the run has ended, or is not known", "run_gone")
    return run


_OK = {200: Answer("Done.", dict, envelope=False)}
_RUN = Param("run_id", "The run, a ULID.", "path")
_NO_FUNCTION = Answer("There is no such function.", ErrorBody, envelope=False)


def _limit(method: str, path: str, name: str, handler: object, summary: str) -> Operation:
    return Operation(
        method=method,
        path=path,
        id=name,
        group="Applications",
        handler=handler,  # type: ignore[arg-type]
        summary=summary,
        params=(Param("functionId", "The function's UUID."), Param("limit", "The new limit.")),
        answers={**_OK, 404: _NO_FUNCTION},
    )


OPERATIONS = (
    Operation(
        method="POST",
        path="/fn/register",
        id="registerApp",
        group="Applications",
        handler=register,
        summary="Register an application",
        description="SDKs do this when their serve route receives a PUT. Functions that are no longer in it are archived.",
        body={"type": "object"},
        answers={
            200: Answer("It is registered.", RegisterAnswer, envelope=False),
            400: Answer("It can't be registered; `error` says why.", ErrorBody, envelope=False),
        },
    ),
    Operation(
        method="DELETE",
        path="/fn/remove",
        id="removeApp",
        group="Applications",
        handler=remove,
        summary="Forget an application",
        params=(Param("url", "The address it registered with."),),
        answers={**_OK, 404: Answer("No application has this address.", ErrorBody, envelope=False)},
    ),
    Operation(
        method="GET",
        path="/v1/apps",
        id="listApps",
        group="Applications",
        handler=list_apps,
        summary="List applications that are called over HTTP",
        answers={200: Answer("Applications.", list[Application])},
    ),
    _limit("POST", "/fn/step-limit", "setStepLimit", set_step_limit, "Limit how many steps runs may have"),
    _limit("DELETE", "/fn/step-limit", "resetStepLimit", reset_step_limit, "Take that limit back"),
    _limit("POST", "/fn/state-size-limit", "setStateLimit", set_state_limit, "Limit the bytes that a run keeps"),
    _limit("DELETE", "/fn/state-size-limit", "resetStateLimit", reset_state_limit, "Take that limit back"),
    Operation(
        method="GET",
        path="/v0/runs/{run_id}/actions",
        id="getRunActions",
        group="Applications",
        handler=run_actions,
        summary="The memos of the steps of a run",
        description="For SDKs, where they are too large for a call.",
        params=(_RUN,),
        answers={200: Answer("By step hash.", dict, envelope=False), 410: Answer("The run has ended.", ErrorBody, envelope=False)},
    ),
    Operation(
        method="GET",
        path="/v0/runs/{run_id}/batch",
        id="getRunBatch",
        group="Applications",
        handler=run_batch,
        summary="The events of a run",
        description="For SDKs, where they are too large for a call.",
        params=(_RUN,),
        answers={200: Answer("Events.", list, envelope=False), 410: Answer("The run has ended.", ErrorBody, envelope=False)},
    ),
)
