"""One run: where it stands, its waterfall, its steps, and what can be done with it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from holdfast.base.errors import ConfigurationError
from holdfast.base.ids import ulid_bytes
from holdfast.dashboard import timeline, words
from holdfast.dashboard.forms import Form
from holdfast.dashboard.history import history
from holdfast.dashboard.search import is_id
from holdfast.dashboard.site import Site
from holdfast.dashboard.status import ACTIVE, detail_status
from holdfast.engine.engine import Engine
from holdfast.sdk.sender import Edit
from holdfast.store.reads import FunctionView, RunDetail, StepView

ACTIVE_REFRESH_MS = 1000
_LOG_LINES = 200
_HISTORY = 100


async def show(site: Site, request: Request) -> Response:
    detail = await detail_of(site, request)
    functions, letter = await asyncio.gather(site.reader.functions(), site.reader.dead_letter(detail.run.id))
    function = next((f for f in functions if f.id == detail.run.function_id), None)
    now = site.now()
    params = request.query_params
    show_all, fold_idle = params.get("show") == "all", params.get("idle") != "full"
    step = next((s for s in detail.steps if s.key == params.get("step") and s.kind != "end"), None)
    active = detail.run.status in ACTIVE
    entries = history(detail)
    log_lines = detail.logs if params.get("logs") == "all" else detail.logs[-_LOG_LINES:]
    return await site.page(
        request,
        "run.html",
        title=f"{detail.run.function_name} · {detail.run.id[-6:]}",
        section="runs",
        live="run dead progress",
        live_id=detail.run.id,
        every=ACTIVE_REFRESH_MS if active else None,
        detail=detail,
        run=detail.run,
        function=function,
        letter=letter,
        shown_status=detail_status(detail),
        standing=words.standing(detail, now, _retries(function)),
        active=active,
        line=timeline.build(detail, now, show_all=show_all, fold_idle=fold_idle, selected=params.get("step")),
        state={key: value for key in ("show", "idle", "step", "logs", "history") if (value := params.get(key))},
        step=step,
        first_start=timeline.first_start(step) if step is not None else 0,
        step_place=detail.steps.index(step) if step is not None else -1,
        step_data=site.show(step.data) if step is not None else None,
        step_input=site.show(last_input(step)) if step is not None else None,
        step_logs=[line for line in detail.logs if step is not None and line.step in {step.key, step.name}][
            -_LOG_LINES:
        ],
        waits=words.waits_for(step) if step is not None and step.state == "pending" else {},
        output=site.show(detail.output),
        event_data=site.show(detail.event.data) if detail.event is not None else None,
        history=entries if params.get("history") == "all" else entries[-_HISTORY:],
        history_total=len(entries),
        log_lines=log_lines,
        hidden_logs=len(detail.logs) - len(log_lines),
    )


def last_input(step: StepView) -> bytes | None:
    """The input of the step's latest failed attempt, where it was kept."""
    return next((attempt.input for attempt in reversed(step.attempts) if attempt.input is not None), None)


async def raw(site: Site, request: Request) -> Response:
    """A payload as a JSON document: `output.json`, or `steps/<place>.json`."""
    detail = await detail_of(site, request)
    part = request.path_params["part"]
    if part == "output":
        data = detail.output
    elif part.startswith("steps/") and part[6:].isdecimal() and int(part[6:]) < len(detail.steps):
        data = detail.steps[int(part[6:])].data
    else:
        raise HTTPException(
            404, f"A run has no document '{part[:60]}.json'; there are output.json and steps/<number>.json."
        )
    if data is None:
        raise HTTPException(404, "There is nothing there yet.")
    return json_document(data)


def json_document(data: bytes) -> Response:
    """JSON to look at or save, never run by a browser."""
    return Response(
        data,
        media_type="application/json",
        headers={
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
            "Content-Security-Policy": "default-src 'none'; sandbox",
        },
    )


async def cancel(site: Site, request: Request, form: Form) -> Response:
    run_id = run_id_of(request)
    done = await site.engine.cancel(run_id)
    if done:
        await site.audit(request, "run.cancel", run_id)
    said = (
        "Cancelled. A step in flight finishes, its result is dropped."
        if done
        else "It had ended already; nothing was changed."
    )
    return site.redirect(request, site.url(request, f"/runs/{run_id}"), said, tone="ok" if done else "bad")


async def rerun(site: Site, request: Request, form: Form) -> Response:
    run_id = run_id_of(request)
    step = form.get("step")
    try:
        new = await site.engine.rerun(run_id, Edit(step) if step else None)
    except ConfigurationError as error:
        return site.redirect(
            request, site.url(request, f"/runs/{run_id}"), f"It can't start again: {error}.", tone="bad"
        )
    await site.audit(request, "run.rerun", run_id, f"as {new}" + (f", from step {step}" if step else ""))
    return site.redirect(
        request, site.url(request, f"/runs/{new}"), "Started again, as this new run. The old one stays as it was."
    )


async def redrive(site: Site, request: Request, form: Form) -> Response:
    run_id = run_id_of(request)
    try:
        new = await site.engine.redrive(run_id)
    except ConfigurationError as error:
        return site.redirect(
            request, site.url(request, f"/runs/{run_id}"), f"It can't be redriven: {error}.", tone="bad"
        )
    await site.audit(request, "run.redrive", run_id, f"as {new}")
    return site.redirect(
        request, site.url(request, f"/runs/{new}"), "Redriven, as this new run. Finished steps were kept."
    )


def run_id_of(request: Request) -> str:
    """The run of the address.

    Raises:
        HTTPException: it can't be one.
    """
    run_id: str = request.path_params["run_id"]
    if not is_id(run_id):
        raise HTTPException(404, f"'{run_id[:60]}' is not the id of a run.")
    return run_id.upper()


async def detail_of(site: Site, request: Request) -> RunDetail:
    """Everything about the run of the address.

    Raises:
        HTTPException: there is none.
    """
    run_id = run_id_of(request)
    detail = await site.reader.run(run_id)
    if detail is None:
        raise HTTPException(404, f"There is no run {run_id}. It may have been removed when its retention was over.")
    return with_running(detail, running_steps(site.engine, run_id))


def running_steps(engine: Engine, run_id: str) -> dict[str, int]:
    """Step bodies that this process is executing for a run: key and start. The store knows them once they end."""
    live = engine.live.get(ulid_bytes(run_id))
    return {} if live is None else dict(live.bodies)


def with_running(detail: RunDetail, running: Mapping[str, int]) -> RunDetail:
    """A run with the steps that are being executed and not yet recorded."""
    known = {step.key for step in detail.steps}
    added = [
        StepView(
            key=key,
            name=key,
            kind="run",
            state="pending",
            seq=1 << 40,
            started_at=started,
            ended_at=None,
            attempt=0,
            due=None,
            data=None,
            error=None,
            attempts=(),
        )
        for key, started in running.items()
        if key not in known
    ]
    return msgspec.structs.replace(detail, steps=(*detail.steps, *added)) if added else detail


def _retries(function: FunctionView | None) -> int | None:
    value = function.config.get("retries") if function is not None else None
    return value if isinstance(value, int) else None
