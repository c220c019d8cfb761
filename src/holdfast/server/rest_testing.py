"""What test suites of SDKs do to a server: only with `TEST_MODE=true` in its environment (protocol section 1.9)."""

from __future__ import annotations

import uuid

from starlette.requests import Request
from starlette.responses import Response

from holdfast.base.ids import name_uuid
from holdfast.server.errors import ApiError, ErrorBody
from holdfast.server.operation import Answer, Api, Handler, Operation, Param, json_response
from holdfast.store.reads import FunctionView, RunFilter

_LIVE = ("QUEUED", "RUNNING", "WAITING")
_PAGE = 500


async def show(api: Api, _request: Request) -> Response:
    _check(api)
    return json_response({"ok": True})


async def reset(api: Api, request: Request) -> Response:
    """Cancel every run that lives and resume every paused function: what a suite left behind disturbs no other."""
    _check(api)
    cancelled = await _cancel_all(api, RunFilter(status=_LIVE))
    for function in await api.reader.functions():
        if function.paused and not function.archived:
            await api.engine.flow_control.resume(function.slug)
    api.engine.step_limits.clear()
    api.engine.state_limits.clear()
    await api.audit(request, "test.reset", "", f"{cancelled} runs cancelled")
    return json_response({"ok": True, "cancelled": cancelled})


async def pause(api: Api, request: Request) -> Response:
    _check(api)
    function = await _function(api, request)
    await api.engine.flow_control.pause(function.slug, "skip")
    await api.audit(request, "function.pause", function.slug, "skip")
    return json_response({"ok": True})


async def cancel(api: Api, request: Request) -> Response:
    _check(api)
    function = await _function(api, request)
    run_id = request.query_params.get("runId", "")
    view = await api.reader.run_view(run_id)
    if view is None or view.function != function.slug:
        raise ApiError(404, f"function {function.slug!r} has no run {run_id[:40]!r}", "run_not_found")
    if await api.engine.cancel(run_id):
        await api.audit(request, "run.cancel", run_id)
    return json_response({"ok": True})


async def queue_size(api: Api, request: Request) -> Response:
    _check(api)
    function = await _function(api, request)
    return json_response({"count": await api.reader.count_runs(RunFilter(function=function.slug, status=_LIVE))})


def _check(api: Api) -> None:
    if not api.settings.test_mode:
        raise ApiError(404, "this server is not in test mode; TEST_MODE=true in its environment turns it on")


async def _function(api: Api, request: Request) -> FunctionView:
    wanted = request.query_params.get("fnId", "")
    try:
        canonical = str(uuid.UUID(wanted))
    except ValueError:
        raise ApiError(400, f"fnId is a function's UUID, not {wanted[:60]!r}") from None
    for function in await api.reader.functions():
        if name_uuid(function.app, function.slug) == canonical:
            return function
    raise ApiError(404, f"there is no function {canonical}", "function_not_found")


async def _cancel_all(api: Api, where: RunFilter) -> int:
    total = 0
    while True:
        rows, _ = await api.reader.runs(where, limit=_PAGE)
        done = sum([await api.engine.cancel(row.id) for row in rows])
        total += done
        if not done or len(rows) < _PAGE:
            return total


_FN = Param("fnId", "The function's UUID.")
_ACCOUNT = Param("accountId", "Ignored: there is one account.")


def _operation(method: str, path: str, name: str, handler: Handler, summary: str, *params: Param) -> Operation:
    return Operation(
        method=method,
        path=path,
        id=name,
        group="Test mode",
        handler=handler,
        summary=summary,
        params=params,
        answers={
            200: Answer("Done.", dict, envelope=False),
            404: Answer("There is none, or the server is not in test mode.", ErrorBody, envelope=False),
        },
    )


OPERATIONS = (
    _operation("GET", "/test", "getTestMode", show, "Whether the server is in test mode"),
    _operation("POST", "/test/reset", "resetServer", reset, "Cancel all runs and resume all functions"),
    _operation("POST", "/test/function/pause", "pauseForTest", pause, "Pause a function: events start nothing", _ACCOUNT, _FN),
    _operation(
        "POST", "/test/function/runs/cancel", "cancelForTest", cancel, "Cancel a run of a function",
        _ACCOUNT, _FN, Param("runId", "The run, a ULID."),
    ),
    _operation(
        "GET", "/test/queue/function-queue-size", "getQueueSize", queue_size, "How many runs of a function live", _ACCOUNT, _FN
    ),
)  # fmt: skip
