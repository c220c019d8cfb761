"""REST for what waits and what recurs: signals (protocol section 1.5) and schedules."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from holdfast.core.cron import Schedule, next_fires
from holdfast.sdk.signals import signal_problem
from holdfast.server.errors import ApiError, ErrorBody
from holdfast.server.operation import Answer, Api, Operation
from holdfast.server.shapes import Cron, Started, cron_of
from holdfast.store.reads import CronView

NEXT = 5
"""How many of the next occurrences are answered."""


class _Signal(msgspec.Struct):
    signal: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")


class _RunCron(msgspec.Struct):
    function: str
    schedule: str | None = None


async def give_signal(api: Api, request: Request) -> Response:
    try:
        body = msgspec.json.decode(await request.body(), type=_Signal)
    except msgspec.DecodeError as error:
        raise ApiError(400, f'the body must be an object {{"signal": name, "data": ...}}: {error}') from error
    problem = signal_problem(body.signal)
    if problem:
        raise ApiError(400, problem)
    run_id = await api.engine.send_signal(body.signal, bytes(body.data))
    if run_id is None:
        raise ApiError(404, "No signal found", "signal_not_found")
    await api.audit(request, "signal.send", body.signal, run_id)
    return api.answer(Started(run_id))


async def list_crons(api: Api, _request: Request) -> Response:
    functions = {row.slug: row for row in await api.reader.functions()}
    now = api.engine.clock.now()
    crons = [
        cron_of(cron, functions[cron.function], Schedule.parse(cron.schedule).zone.key, _coming(cron, now))
        for cron in await api.reader.crons()
        if cron.function in functions
    ]
    return api.answer(crons)


def _coming(cron: CronView, now: int) -> list[int]:
    # one that is due but not decided yet, for its jitter, is still to come
    return next_fires(cron.schedule, min(cron.next_at - 1, now), NEXT)


async def run_cron(api: Api, request: Request) -> Response:
    try:
        body = msgspec.json.decode(await request.body(), type=_RunCron)
    except msgspec.DecodeError as error:
        raise ApiError(400, f'the body must be an object {{"function": id, "schedule"?: text}}: {error}') from error
    cron = _chosen(await api.reader.crons(), body, list(api.engine.apps))
    run_id = await api.engine.run_cron(cron.function, cron.schedule)
    await api.audit(request, "cron.run", cron.function, f"{cron.schedule} as {run_id}")
    return api.answer(Started(run_id))


def _chosen(crons: Sequence[CronView], body: _RunCron, apps: Sequence[str]) -> CronView:
    names = {body.function, *(f"{app}-{body.function}" for app in apps)}
    mine = [cron for cron in crons if cron.function in names]
    if not mine:
        raise ApiError(
            404, f"there is no function {body.function[:100]!r} with a schedule; GET /v1/crons lists those there are"
        )
    found = [cron for cron in mine if body.schedule in {None, cron.schedule}]
    known = ", ".join(repr(cron.schedule) for cron in mine)
    if not found:
        raise ApiError(404, f"{body.function[:100]!r} has no schedule {body.schedule or '':.100}; it has {known}")
    if len(found) > 1:
        raise ApiError(400, f"{body.function[:100]!r} has several schedules; name one of {known}")
    return found[0]


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/signals",
        id="sendSignal",
        group="Signals",
        handler=give_signal,
        summary="Resume the run that waits for a signal",
        description="The answer comes when that is on disk. A signal that nobody waits for is not kept.",
        body={
            "type": "object",
            "required": ["signal"],
            "properties": {
                "signal": {"type": "string", "maxLength": 255},
                "data": {"description": "What the waiting run receives: any JSON."},
            },
        },
        example={"signal": "approve-o1", "data": {"approved": True}},
        answers={
            200: Answer("The run that was resumed.", Started),
            400: Answer("The body is not acceptable.", ErrorBody, envelope=False),
            404: Answer("Nobody waits for it.", ErrorBody, envelope=False),
        },
    ),
    Operation(
        method="GET",
        path="/v1/crons",
        id="listCrons",
        group="Schedules",
        handler=list_crons,
        summary="List schedules, soonest first",
        answers={200: Answer("Schedules, with their next occurrences.", list[Cron])},
    ),
    Operation(
        method="POST",
        path="/v1/crons/run",
        id="runCron",
        group="Schedules",
        handler=run_cron,
        summary="Fire a schedule now",
        description="Beside its regular occurrences, which are not affected.",
        body={
            "type": "object",
            "required": ["function"],
            "properties": {
                "function": {"type": "string", "description": "`<app>-<function>`, or the function's id alone."},
                "schedule": {"type": "string", "description": "As listed; may be left out where there is only one."},
            },
        },
        example={"function": "shop-report", "schedule": "TZ=Europe/Paris 0 9 * * *"},
        answers={
            200: Answer("The new run.", Started),
            400: Answer(
                "The body is not acceptable, or it is not clear which schedule is meant.", ErrorBody, envelope=False
            ),
            404: Answer("There is no such schedule.", ErrorBody, envelope=False),
        },
    ),
)
