"""REST for runs and dead letters: reading, following, cancelling, running again (protocol section 1.5, and our own)."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from holdfast.core.rows import RunStatus
from holdfast.sdk.sender import Edit
from holdfast.server.errors import ApiError, ErrorBody
from holdfast.server.operation import (
    CURSOR,
    MAX_LIMIT,
    RUN_ID,
    Answer,
    Api,
    Operation,
    Param,
    limit_param,
    no_run,
    read_cursor,
    read_id,
    read_limit,
    read_moment,
    read_object,
)
from holdfast.server.shapes import (
    DeadLetter,
    History,
    Job,
    LetterGroup,
    Run,
    Started,
    dead_letter_of,
    full_run_of,
    history_of,
    jobs_of,
    letter_group_of,
    run_of,
)
from holdfast.store.reads import RunFilter

PING_SECONDS = 15.0
_ENDED = frozenset(status.name for status in RunStatus if status.ended)
_STATUSES = (*(status.name for status in RunStatus), "WAITING")
_LETTER_STATES = ("dead", "redriven", "discarded")
_NO_RUN = Answer("There is no such run.", ErrorBody, envelope=False)
_BAD_ID = Answer("Not the id of a run.", ErrorBody, envelope=False)


# -- reading ---------------------------------------------------------------------------------------------------------


async def list_runs(api: Api, request: Request) -> Response:
    query = request.query_params
    where = RunFilter(
        status=_statuses(query.getlist("status")),
        function=query.get("function") or None,
        app=query.get("app") or None,
        event=query.get("event") or None,
        event_id=query.get("event_id") or None,
        since=read_moment(request, "since"),
        until=read_moment(request, "until"),
        error=query.get("error") or None,
        parent=query.get("parent") or None,
        dead=query.get("dead") == "true",
        fingerprint=query.get("fingerprint") or None,
    )
    rows, cursor = await api.reader.runs(
        where, limit=read_limit(request, 50, MAX_LIMIT), cursor=read_cursor(request)
    )
    return api.answer([run_of(row) for row in rows], next_cursor=cursor)


def _statuses(given: list[str]) -> tuple[str, ...]:
    wanted = tuple(part.strip().upper() for text in given for part in text.split(",") if part.strip())
    for status in wanted:
        if status not in _STATUSES:
            names = ", ".join(name.capitalize() for name in _STATUSES)
            raise ApiError(400, f"status {status[:40]!r} is not known; it is one of {names}")
    return wanted


async def get_run(api: Api, request: Request) -> Response:
    run_id = read_id(request, "run_id", "a run")
    detail = await api.reader.run(run_id)
    if detail is None:
        raise no_run(run_id)
    return api.answer(full_run_of(detail, api.engine.clock.now()))


async def get_history(api: Api, request: Request) -> Response:
    run_id = read_id(request, "run_id", "a run")
    detail = await api.reader.run(run_id)
    if detail is None:
        raise no_run(run_id)
    return api.answer(history_of(detail, api.engine.clock.now()))


async def list_jobs(api: Api, request: Request) -> Response:
    run_id = read_id(request, "run_id", "a run")
    detail = await api.reader.run(run_id)
    if detail is None:
        raise no_run(run_id)
    return api.answer(jobs_of(detail))


# -- changing --------------------------------------------------------------------------------------------------------


async def cancel_run(api: Api, request: Request) -> Response:
    await _cancel(api, request)
    return Response(status_code=200)


async def cancel_run_v0(api: Api, request: Request) -> Response:
    await _cancel(api, request)
    return Response(status_code=204)


async def _cancel(api: Api, request: Request) -> None:
    run_id = read_id(request, "run_id", "a run")
    if not await api.engine.cancel(run_id):
        raise ApiError(409, f"run {run_id} has ended already", "run_ended")
    await api.audit(request, "run.cancel", run_id)


class RerunBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be different in the new run."""

    from_step: str | None = None
    input: list[Any] | dict[str, Any] | None = None
    event_data: dict[str, Any] | None = None

    @property
    def edit(self) -> Edit | None:
        edit = Edit(self.from_step, self.input, self.event_data)
        return None if edit == Edit() else edit

    @property
    def words(self) -> str:
        """What it changes, for the audit log."""
        said = [] if self.from_step is None else [f"from step {self.from_step}"]
        said += ["with edited input"] if self.input is not None else []
        said += ["with edited event"] if self.event_data is not None else []
        return "".join(f", {part}" for part in said)


async def rerun(api: Api, request: Request) -> Response:
    run_id = read_id(request, "run_id", "a run")
    body = await read_object(request, RerunBody)
    made = await api.engine.rerun(run_id, body.edit)
    await api.audit(request, "run.rerun", run_id, made + body.words)
    return api.answer(Started(made))


async def redrive(api: Api, request: Request) -> Response:
    run_id = read_id(request, "run_id", "a run")
    body = await read_object(request, RerunBody)
    if body.from_step is not None:
        raise ApiError(400, "a redrive goes on at the step that failed; to begin at another, rerun it from that step")
    await _letter(api, run_id)
    made = await api.engine.redrive(run_id, body.edit)
    await api.audit(request, "run.redrive", run_id, made + body.words)
    return api.answer(Started(made))


async def discard(api: Api, request: Request) -> Response:
    run_id = read_id(request, "run_id", "a run")
    await _letter(api, run_id)
    if not await api.engine.discard(run_id):
        raise ApiError(409, f"the dead letter of run {run_id} is resolved already", "dead_letter_resolved")
    await api.audit(request, "dead_letter.discard", run_id)
    return Response(status_code=204)


async def _letter(api: Api, run_id: str) -> None:
    """Tell a run that never failed for good from one that is not there."""
    if await api.reader.dead_letter(run_id) is None:
        if await api.reader.run_view(run_id) is None:
            raise no_run(run_id)
        raise ApiError(
            409,
            f"run {run_id} is no dead letter: only runs that failed for good are; rerun it instead",
            "not_a_dead_letter",
        )


async def list_dead_letters(api: Api, request: Request) -> Response:
    query = request.query_params
    state = query.get("state", "dead")
    if state not in (*_LETTER_STATES, "all"):
        raise ApiError(400, f"state {state[:40]!r} is not known; it is one of {', '.join(_LETTER_STATES)}, all")
    rows, cursor = await api.reader.dead_letters(
        state=None if state == "all" else state,
        function=query.get("function") or None,
        fingerprint=query.get("fingerprint") or None,
        limit=read_limit(request, 50, MAX_LIMIT),
        cursor=read_cursor(request),
    )
    return api.answer([dead_letter_of(row) for row in rows], next_cursor=cursor)


async def list_groups(api: Api, request: Request) -> Response:
    query = request.query_params
    state = query.get("state", "dead")
    if state not in _LETTER_STATES:
        raise ApiError(400, f"state {state[:40]!r} is not known; it is one of {', '.join(_LETTER_STATES)}")
    groups = await api.reader.letter_groups(
        state=state, function=query.get("function") or None, limit=read_limit(request, 100, MAX_LIMIT)
    )
    return api.answer([letter_group_of(group) for group in groups])


# -- the table -------------------------------------------------------------------------------------------------------

_INPUT = {
    "description": "The arguments of the step's body: a list, or {args, kwargs}.",
    "anyOf": [{"type": "array"}, {"type": "object"}],
}
_EVENT_DATA = {"type": "object", "description": "Other data for the event, which is stored as an event of its own."}
_REFUSED = Answer("It can't be done; `error` says why.", ErrorBody, envelope=False)
_ENDED_ALREADY = Answer("It has ended already.", ErrorBody, envelope=False)

OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/runs",
        id="listRuns",
        group="Runs",
        handler=list_runs,
        summary="List runs, newest first",
        description="Every parameter narrows. `status` may be repeated or separated by commas.",
        params=(
            Param("status", "Queued, Running, Waiting, Completed, Failed, Cancelled or Skipped."),
            Param("function", "`<app>-<function>`, or the function's id alone."),
            Param("app", "The app's id."),
            Param("event", "Name of the event that started it."),
            Param("event_id", "Id of the event that started it, the sender's or the internal one."),
            Param("since", "Queued at this moment or later: RFC 3339 or milliseconds since 1970."),
            Param("until", "Queued before this moment."),
            Param("error", "Text contained in the last error."),
            Param("parent", "The run that invoked it, or that it repeats."),
            Param("dead", "`true`: only dead letters that were neither redriven nor discarded."),
            Param("fingerprint", "Only dead letters of one error."),
            limit_param(50, MAX_LIMIT),
            CURSOR,
        ),
        answers={200: Answer("Runs.", list[Run])},
    ),
    Operation(
        method="GET",
        path="/v1/runs/{run_id}",
        id="getRun",
        group="Runs",
        handler=get_run,
        summary="Read a run",
        params=(RUN_ID,),
        answers={200: Answer("The run, with its output, and why it waits.", Run), 400: _BAD_ID, 404: _NO_RUN},
    ),
    Operation(
        method="GET",
        path="/v1/runs/{run_id}/steps",
        id="getRunHistory",
        group="Runs",
        handler=get_history,
        summary="Read a run with its steps",
        description="With attempts, errors, log lines and the event that started it.",
        params=(RUN_ID,),
        answers={200: Answer("Everything recorded.", History), 400: _BAD_ID, 404: _NO_RUN},
    ),
    Operation(
        method="GET",
        path="/v1/runs/{run_id}/jobs",
        id="getRunJobs",
        group="Runs",
        handler=list_jobs,
        summary="List what is to be done for a run",
        description="Its own place in the queue, and its steps under way. Empty once it has ended.",
        params=(RUN_ID,),
        answers={200: Answer("Jobs.", list[Job]), 400: _BAD_ID, 404: _NO_RUN},
    ),
    Operation(
        method="DELETE",
        path="/v1/runs/{run_id}",
        id="cancelRun",
        group="Runs",
        handler=cancel_run,
        summary="Cancel a run",
        description="A step in flight finishes; its result is dropped.",
        params=(RUN_ID,),
        answers={200: Answer("It is cancelled."), 400: _BAD_ID, 404: _NO_RUN, 409: _ENDED_ALREADY},
    ),
    Operation(
        method="DELETE",
        path="/v0/runs/{run_id}",
        id="cancelRunV0",
        group="Runs",
        handler=cancel_run_v0,
        summary="Cancel a run (former address)",
        params=(RUN_ID,),
        answers={204: Answer("It is cancelled."), 400: _BAD_ID, 404: _NO_RUN, 409: _ENDED_ALREADY},
    ),
    Operation(
        method="POST",
        path="/v1/runs/{run_id}/rerun",
        id="rerunRun",
        group="Runs",
        handler=rerun,
        summary="Run the same event again",
        description=(
            "Starts the function anew for the same event, as a new run. The old run stays as it is. With `from_step`, "
            "what was recorded before that step is kept; with `input`, that step gets other arguments. "
            "The body may be left out."
        ),
        params=(RUN_ID,),
        body={
            "type": "object",
            "properties": {
                "from_step": {"type": "string", "description": "The id of the step to begin at."},
                "input": _INPUT,
                "event_data": _EVENT_DATA,
            },
        },
        body_required=False,
        answers={200: Answer("The new run.", Started), 400: _BAD_ID, 404: _NO_RUN, 409: _REFUSED},
    ),
    Operation(
        method="POST",
        path="/v1/runs/{run_id}/redrive",
        id="redriveRun",
        group="Dead letters",
        handler=redrive,
        summary="Continue a run that failed for good",
        description=(
            "A new run that takes over the finished steps and goes on at the one that failed. "
            "Asked twice, it answers the same run. `input` is for the step that failed. The body may be left out."
        ),
        params=(RUN_ID,),
        body={"type": "object", "properties": {"input": _INPUT, "event_data": _EVENT_DATA}},
        body_required=False,
        answers={
            200: Answer("The new run.", Started),
            400: _BAD_ID,
            404: _NO_RUN,
            409: Answer("It is no dead letter.", ErrorBody, envelope=False),
        },
    ),
    Operation(
        method="GET",
        path="/v1/dead-letters",
        id="listDeadLetters",
        group="Dead letters",
        handler=list_dead_letters,
        summary="List dead letters, newest first",
        params=(
            Param(
                "state",
                "dead, redriven, discarded or all.",
                "query",
                {"type": "string", "enum": [*_LETTER_STATES, "all"], "default": "dead"},
            ),
            Param("function", "`<app>-<function>`, or the function's id alone."),
            Param("fingerprint", "Only those of one error."),
            limit_param(50, MAX_LIMIT),
            CURSOR,
        ),
        answers={200: Answer("Dead letters.", list[DeadLetter])},
    ),
    Operation(
        method="GET",
        path="/v1/dead-letters/groups",
        id="listDeadLetterGroups",
        group="Dead letters",
        handler=list_groups,
        summary="Dead letters by their error, largest group first",
        description="Groups are made of all dead letters there are. `POST /v1/bulk` acts on one by its fingerprint.",
        params=(
            Param(
                "state",
                "dead, redriven or discarded.",
                "query",
                {"type": "string", "enum": list(_LETTER_STATES), "default": "dead"},
            ),
            Param("function", "`<app>-<function>`, or the function's id alone."),
            limit_param(100, MAX_LIMIT),
        ),
        answers={200: Answer("Groups.", list[LetterGroup])},
    ),
    Operation(
        method="DELETE",
        path="/v1/dead-letters/{run_id}",
        id="discardDeadLetter",
        group="Dead letters",
        handler=discard,
        summary="Discard a dead letter",
        description="It will not be redriven; the run and its history stay.",
        params=(RUN_ID,),
        answers={
            204: Answer("It is discarded."),
            400: _BAD_ID,
            404: _NO_RUN,
            409: Answer("It is resolved already, or no dead letter.", ErrorBody, envelope=False),
        },
    ),
)
