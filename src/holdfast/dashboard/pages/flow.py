"""Flow control: how the limits of all functions stand, and changing them while they run."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from holdfast.base.errors import ConfigurationError
from holdfast.dashboard import humanize
from holdfast.dashboard.flow_words import label
from holdfast.dashboard.forms import Form
from holdfast.dashboard.search import is_id
from holdfast.dashboard.site import Site
from holdfast.store.flow_reads import FlowView

REFRESH_MS = 5000
"""Throttles open and debounces end without anything being written."""


class Totals(msgspec.Struct, frozen=True):
    """The counters at the top."""

    queued: int
    running: int
    held_up: int
    """Of those in line, how many wait for a rule."""
    gathering: int
    paused: int
    more: bool
    oldest: int | None


async def show(site: Site, request: Request) -> Response:
    views = await site.reader.flow()
    shown = sorted((view for view in views if _of_interest(view)), key=_urgency)
    return await site.page(
        request,
        "flow.html",
        title="Flow control",
        section="flow",
        live="run function event",
        every=REFRESH_MS,
        views=shown,
        others=[view for view in views if not _of_interest(view)],
        totals=totals(views),
    )


def _of_interest(view: FlowView) -> bool:
    backlog = view.backlog
    return bool(view.rules or view.pause or backlog.queued or view.gathering)


def _urgency(view: FlowView) -> tuple[bool, int, str]:
    return (view.pause is None, -view.backlog.queued - view.gathering, view.function)


def totals(views: Sequence[FlowView]) -> Totals:
    """Sums over all functions."""
    oldest = [view.backlog.oldest for view in views if view.backlog.oldest is not None]
    return Totals(
        queued=sum(view.backlog.queued for view in views),
        running=sum(view.backlog.running for view in views),
        held_up=sum(rule.waiting for view in views for rule in view.rules if rule.limit is not None),
        gathering=sum(view.gathering for view in views),
        paused=sum(view.pause is not None for view in views),
        more=any(view.backlog.more for view in views),
        oldest=min(oldest, default=None),
    )


# -- changing --------------------------------------------------------------------------------------------------------


async def pause(site: Site, request: Request, form: Form) -> Response:
    slug, mode = await _slug(site, request), form.get("mode") or "hold"
    await site.engine.flow_control.pause(slug, mode)
    await site.audit(request, "function.pause", slug, mode)
    what = "its runs wait in their queue" if mode == "hold" else "events that come start nothing"
    return _back(site, request, form, slug, f"Paused: {what} until it is resumed.")


async def resume(site: Site, request: Request, form: Form) -> Response:
    slug = await _slug(site, request)
    await site.engine.flow_control.resume(slug)
    await site.audit(request, "function.resume", slug)
    return _back(site, request, form, slug, "Resumed.")


async def limit(site: Site, request: Request, form: Form) -> Response:
    """Change a limit, or go back to the code's when none is given."""
    slug, rule, text = await _slug(site, request), form.get("rule"), form.get("limit").strip()
    if text and not text.isdecimal():
        raise ConfigurationError(f"a limit is a whole number of 1 or more, not {text[:20]!r}")
    wanted = int(text) if text else None
    await site.engine.flow_control.set_limit(slug, rule, wanted)
    await site.audit(request, "function.limit", slug, f"{rule} {wanted or 'as in the code'}")
    said = f"{label(rule)} is {wanted} now." if wanted else f"{label(rule)} is as the code says again."
    return _back(site, request, form, slug, said)


async def flush(site: Site, request: Request, form: Form) -> Response:
    """Start what gathers now: all, or that of one key."""
    slug = await _slug(site, request)
    key = form.get("key") if form.get("one") else None
    count = await site.engine.flow_control.flush(slug, key)
    detail = f"{humanize.plural(count, 'run')}" + ("" if key is None else f" of key {key!r}")
    await site.audit(request, "function.flush", slug, detail)
    said = f"Started {humanize.plural(count, 'run')}." if count else "Nothing waits any more: it has started."
    return _back(site, request, form, slug, said)


async def _slug(site: Site, request: Request) -> str:
    slug: str = request.path_params["slug"]
    if not any(function.slug == slug for function in await site.reader.functions()):
        raise HTTPException(404, f"There is no function '{slug[:120]}'.")
    return slug


def _back(site: Site, request: Request, form: Form, slug: str, said: str) -> Response:
    came_from = form.get("back")
    path = f"/functions/{slug}"
    if came_from == "flow":
        path = "/flow"
    elif is_id(came_from):
        path = f"/events/{came_from.upper()}"
    return site.redirect(request, site.url(request, path), said)
