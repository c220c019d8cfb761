"""One function: triggers, configuration, how it does, and a form to invoke it."""

from __future__ import annotations

import asyncio
import re

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from holdfast.base.codec import encode_json
from holdfast.base.errors import EventInvalidError
from holdfast.base.limits import event_name_problem
from holdfast.dashboard.drafts import check, model_of, object_bytes
from holdfast.dashboard.forms import Form
from holdfast.dashboard.pages.flow import REFRESH_MS
from holdfast.dashboard.pages.period import PERIODS, period
from holdfast.dashboard.samples import sample_text
from holdfast.dashboard.site import Site
from holdfast.dashboard.words import schedule
from holdfast.sdk.sender import Outgoing
from holdfast.store.reads import FunctionView, RunFilter

_LAST_RUNS = 8


async def show(site: Site, request: Request) -> Response:
    return await _page(site, request, await _function(site, request))


async def invoke(site: Site, request: Request, form: Form) -> Response:
    """Start the function, whatever its triggers."""
    function = await _function(site, request)
    text = form.get("data")
    name = invoke_name(function)
    try:
        raw = object_bytes(text, f"function '{function.slug}'")
        model = model_of(site.engine.apps, name)
        if model is not None:
            check(model, name, raw)
        run_id = await site.engine.start(function.slug, Outgoing(name, raw, id=form.get("id").strip() or None))
    except EventInvalidError as error:
        return await _page(site, request, function, data=text, problem=f"{error}.", status_code=error.status)
    await site.audit(request, "function.invoke", function.slug, f"as {run_id}")
    return site.redirect(request, site.url(request, f"/runs/{run_id}"), "Started.")


async def _page(
    site: Site,
    request: Request,
    function: FunctionView,
    *,
    data: str | None = None,
    problem: str = "",
    status_code: int = 200,
) -> Response:
    chosen = period(request)
    since = site.now() - chosen.ms
    stats, (runs, older), crons, flows = await asyncio.gather(
        site.reader.stats(since=since),
        site.reader.runs(RunFilter(function=function.slug), limit=_LAST_RUNS),
        site.reader.crons(),
        site.reader.flow(function.slug),
    )
    model = model_of(site.engine.apps, invoke_name(function))
    return await site.page(
        request,
        "function.html",
        title=function.name,
        section="functions",
        live="run function event",
        every=REFRESH_MS if flows[0].rules else None,
        status_code=status_code,
        function=function,
        flow=flows[0],
        stats=next((s for s in stats if s.function_id == function.id), None),
        runs=runs,
        older=older,
        crons=[(cron, schedule(cron.schedule)) for cron in crons if cron.function == function.slug],
        period=chosen,
        periods=PERIODS,
        triggers=_triggers(function),
        settings=settings(function),
        config=site.show(encode_json(function.config, "configuration")),
        data=data if data is not None else (sample_text(model) if model is not None else "{}"),
        problem=problem,
        invoke_name=invoke_name(function),
        runnable=(function.app in site.engine.apps or function.slug in site.engine.applications.by_slug)
        and not function.archived,
    )


async def _function(site: Site, request: Request) -> FunctionView:
    slug: str = request.path_params["slug"]
    function = next((f for f in await site.reader.functions() if f.slug == slug), None)
    if function is None:
        raise HTTPException(404, f"There is no function '{slug[:120]}'.")
    return function


def _triggers(function: FunctionView) -> list[dict[str, object]]:
    listed = function.config.get("triggers")
    return [t for t in listed if isinstance(t, dict)] if isinstance(listed, list) else []


def invoke_name(function: FunctionView) -> str:
    """The event a run started by hand receives: that of the first trigger that names one."""
    for trigger in _triggers(function):
        name = trigger.get("event")
        if isinstance(name, str) and "*" not in name and event_name_problem(name, sent=True) is None:
            return name
    return "inngest/function.invoked"


_LABELS = {
    "retries": "Retries",
    "backoff": "Backoff",
    "stepTimeout": "Step timeout",
}


def settings(function: FunctionView) -> list[tuple[str, str]]:
    """The configuration but for flow control, which has a card of its own, as (label, value), most telling first."""
    out = []
    for key, label in _LABELS.items():
        value = function.config.get(key)
        if value not in (None, "", [], {}):
            out.append((label, said(value)))
    return out


def said(value: object) -> str:
    """A setting's value as text: `first delay 1s, multiplier 2, jitter none`."""
    if isinstance(value, dict):
        return ", ".join(f"{_spaced(str(key))} {said(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        listed = [said(inner) for inner in value]
        return ", ".join(listed) if all(isinstance(inner, str | int | float) for inner in value) else "; ".join(listed)
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _spaced(name: str) -> str:
    return re.sub(r"(?<=[a-z])([A-Z])", lambda match: f" {match[1].lower()}", name)
