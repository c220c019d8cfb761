"""Starting a run again with something different: from a step, with other input or another event."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from holdfast.base.codec import decode_json
from holdfast.base.errors import ConfigurationError, EventInvalidError
from holdfast.base.masks import holds_mask
from holdfast.dashboard.drafts import json_value
from holdfast.dashboard.forms import Form
from holdfast.dashboard.pages.run import detail_of, last_input
from holdfast.dashboard.payload import pretty
from holdfast.dashboard.site import Site
from holdfast.sdk.sender import Edit
from holdfast.store.reads import RunDetail, StepView

NEW_RUN = "Started again, as this new run, with what you changed. The old one stays as it was."


_SHOWN = 30
"""Steps offered to begin at; all others can be chosen in the timeline."""


class Typed(msgspec.Struct, frozen=True):
    """The form as it stands."""

    redrive: bool
    step: str
    input: str
    data: str


async def show(site: Site, request: Request) -> Response:
    detail = await detail_of(site, request)
    params = request.query_params
    redrive = params.get("redrive") == "yes"
    step = _failed_step(detail) if redrive else _step(detail, params.get("step", ""))
    data = detail.event.data if detail.event is not None else None
    typed = Typed(
        redrive,
        step.key if step is not None else "",
        _shown(last_input(step)) if step is not None else "",
        _shown(data),
    )
    return await _page(site, request, detail, typed)


async def start(site: Site, request: Request, form: Form) -> Response:
    detail = await detail_of(site, request)
    typed = Typed(form.get("redrive") == "yes", form.get("step"), form.get("input"), form.get("data"))
    try:
        edit = _edit(site, detail, typed)
        restart = site.engine.redrive if typed.redrive else site.engine.rerun
        new = await restart(detail.run.id, edit)
    except (EventInvalidError, ConfigurationError) as error:
        return await _page(site, request, detail, typed, problem=f"{error}.")
    changed = [f"from step {typed.step}" if edit.from_step else ""]
    changed += ["with edited input" if edit.input is not None else ""]
    changed += ["with edited event" if edit.event_data is not None else ""]
    action = "run.redrive" if typed.redrive else "run.rerun"
    await site.audit(request, action, detail.run.id, ", ".join([f"as {new}", *filter(None, changed)]))
    return site.redirect(request, site.url(request, f"/runs/{new}"), NEW_RUN)


def _edit(site: Site, detail: RunDetail, typed: Typed) -> Edit:
    """What the form changes; what it leaves as it was is no edit."""
    given: Any = json_value(typed.input, f"the input of step '{typed.step}'") if typed.input.strip() else None
    data: Any = json_value(typed.data, "the event's data") if typed.data.strip() else None
    old = detail.event.data if detail.event is not None else None
    if old is not None and data == decode_json(old):
        data = None
    return Edit(None if typed.redrive else typed.step or None, given, data)


async def _page(site: Site, request: Request, detail: RunDetail, typed: Typed, *, problem: str = "") -> Response:
    steps = [step for step in detail.steps if step.kind != "end"]
    chosen = _step(detail, typed.step)
    return await site.page(
        request,
        "edit.html",
        title="Redrive with changes" if typed.redrive else "Rerun with changes",
        section="runs",
        status_code=400 if problem else 200,
        run=detail.run,
        event=detail.event,
        steps=steps,
        shown=_around(steps, chosen),
        step=chosen,
        takes_input=chosen is not None and chosen.kind == "run",
        kept=[step for step in steps if chosen is not None and _before(step, chosen)],
        typed=typed,
        problem=problem,
        masked=_has_masks(last_input(chosen) if chosen is not None else None),
        event_masked=_has_masks(detail.event.data if detail.event is not None else None),
    )


def _around(steps: list[StepView], chosen: StepView | None) -> list[StepView]:
    """The steps offered: those about the chosen one, else the first."""
    place = steps.index(chosen) if chosen is not None else 0
    begin = max(0, min(place - _SHOWN // 2, len(steps) - _SHOWN))
    return steps[begin : begin + _SHOWN]


def _before(step: StepView, chosen: StepView) -> bool:
    return step.state != "pending" and (chosen.state == "pending" or step.seq < chosen.seq)


def _step(detail: RunDetail, key: str) -> StepView | None:
    return next((step for step in detail.steps if step.key == key and step.kind != "end"), None)


def _failed_step(detail: RunDetail) -> StepView | None:
    name = (detail.error or {}).get("step")
    return _step(detail, name) if isinstance(name, str) else None


def _shown(raw: bytes | None) -> str:
    # masks in the place of values would be taken for the new ones
    return "" if raw is None or _has_masks(raw) else pretty(raw)


def _has_masks(raw: bytes | None) -> bool:
    return raw is not None and holds_mask(decode_json(raw))
