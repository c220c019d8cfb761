"""Acting on many runs: asked first with their number, then carried out in the background with its progress on a page."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from holdfast.base.errors import ConfigurationError
from holdfast.base.ids import ulid_text
from holdfast.dashboard import humanize
from holdfast.dashboard.forms import Form
from holdfast.dashboard.search import from_params, is_id
from holdfast.dashboard.site import Site
from holdfast.dashboard.status import BULK_ACTIONS, BulkAction
from holdfast.engine.selection import MAX_IDS, selection_of
from holdfast.store.reads import BulkView

LISTED = 100
_SHOWN = 10
REFRESH_MS = 1000


async def ask(site: Site, request: Request, form: Form) -> Response:
    """How many there are, and whether it is meant. The runs are those selected, or all that a filter matches."""
    name, action = _action(form)
    where = _chosen(site, form)
    back = _back(site, request, form, name)
    if not where:
        return site.redirect(request, back, "Nothing was selected.", tone="bad")
    try:
        return await _ask(site, request, name, action, where, rate="", back=back)
    except ConfigurationError as error:
        return site.redirect(request, back, f"{error}.", tone="bad")


async def _ask(
    site: Site,
    request: Request,
    name: str,
    action: BulkAction,
    where: Mapping[str, Any],
    *,
    rate: str,
    back: str,
    problem: str = "",
) -> Response:
    selection = selection_of(name, where, site.now())
    total, (views, _) = await asyncio.gather(
        site.engine.bulks.count(name, where), site.reader.runs(selection, limit=_SHOWN)
    )
    if not total:
        return site.redirect(request, back, f"There is no run among them that can be {action.done}.", tone="bad")
    return await site.page(
        request,
        "bulk_ask.html",
        title=f"{action.verb} runs",
        section="dead" if name == "discard" else "runs",
        status_code=400 if problem else 200,
        action=name,
        verb=action.verb,
        thing=action.thing,
        views=views,
        total=total,
        words=words(where),
        filter=msgspec.json.encode(where).decode(),
        rate=rate,
        problem=problem,
        back=back,
    )


async def start(site: Site, request: Request, form: Form) -> Response:
    """Begin, and show its progress."""
    name, action = _action(form)
    where, rate = _filter(form), form.get("rate").strip()
    try:
        row = await site.engine.bulks.start(name, where, rate=rate or None, actor=site.guard.actor(request))
    except ConfigurationError as error:
        back = site.url(request, "/runs")
        return await _ask(site, request, name, action, where, rate=rate, back=back, problem=f"{error}.")
    bulk_id = ulid_text(row.id)
    said = f"{name} {row.total}: {row.filter.decode()}"
    await site.audit(request, "bulk.start", bulk_id, said)
    return site.redirect(request, site.url(request, f"/bulk/{bulk_id}"))


async def stop(site: Site, request: Request, form: Form) -> Response:
    """Stop an operation where it is."""
    bulk_id = _bulk_id(request)
    stopped = await site.engine.bulks.cancel(bulk_id)
    if stopped:
        await site.audit(request, "bulk.cancel", bulk_id)
    said = "Stopped. What it has done stays done." if stopped else "It had ended already."
    return site.redirect(request, site.url(request, f"/bulk/{bulk_id}"), said, tone="ok" if stopped else "bad")


async def show(site: Site, request: Request) -> Response:
    """One operation and how far it is."""
    bulk = await site.reader.bulk(_bulk_id(request))
    if bulk is None:
        raise HTTPException(
            404, "There is no such bulk operation. It may have been removed when its retention was over."
        )
    running = bulk.state == "running"
    return await site.page(
        request,
        "bulk.html",
        title=f"{BULK_ACTIONS[bulk.action].verb} {humanize.plural(bulk.total, BULK_ACTIONS[bulk.action].thing)}",
        section="runs",
        live="bulk",
        live_id=bulk.id,
        every=REFRESH_MS if running else None,
        bulk=bulk,
        running=running,
        action=BULK_ACTIONS[bulk.action],
        share=share(bulk),
        words=words(bulk.filter),
        runs_of=_runs_of(bulk),
    )


async def listing(site: Site, request: Request) -> Response:
    """All operations, newest first."""
    rows = await site.reader.bulks(limit=LISTED)
    return await site.page(
        request,
        "bulks.html",
        title="Bulk operations",
        section="runs",
        live="bulk",
        every=REFRESH_MS if any(row.state == "running" for row in rows) else None,
        rows=[(row, BULK_ACTIONS[row.action], words(row.filter), share(row)) for row in rows],
        cap=LISTED,
    )


def share(bulk: BulkView) -> float:
    """How much of it is done, 0 to 1. Runs that came or went since it began don't take it past the end."""
    if bulk.state == "done":
        return 1.0
    return min(1.0, bulk.seen / bulk.total) if bulk.total else 0.0


_SAID = {
    "function": "fn:",
    "app": "app:",
    "event": "event:",
    "event_id": "event_id:",
    "error": "error~",
    "parent": "parent:",
}


def words(where: Mapping[str, Any]) -> str:
    """Which runs a filter means, as the search box spells it."""
    ids = where.get("ids")
    if ids:
        return f"{humanize.plural(len(ids), 'selected run')}"
    terms = []
    status = where.get("status") or ()
    if status:
        terms.append("status:" + (status if isinstance(status, str) else ",".join(status)).lower())
    terms += [f"{sign}{where[name]}" for name, sign in _SAID.items() if where.get(name)]
    terms += [f"{name}:{_time(where[name])}" for name in ("since", "until") if where.get(name) is not None]
    if where.get("fingerprint"):
        terms.append(f"fingerprint:{where['fingerprint']}")
    if where.get("if"):
        terms.append(f"if {where['if']}")
    return " ".join(terms) or "all"


def _time(value: Any) -> str:
    return humanize.absolute(value) if isinstance(value, int) else str(value)


def _runs_of(bulk: BulkView) -> dict[str, str]:
    """The address parameters of a list of the runs concerned, where the list can show them."""
    where = bulk.filter
    if where.get("ids") or where.get("fingerprint") or where.get("if"):
        return {}
    shown = ("function", "app", "event", "event_id", "error", "parent", "since", "until")
    return {name: str(where[name]) for name in shown if where.get(name) is not None}


def _action(form: Form) -> tuple[str, BulkAction]:
    name = form.get("action")
    action = BULK_ACTIONS.get(name)
    if action is None:
        raise HTTPException(
            400, f"'{name[:40]}' is not something to do with runs; there are {', '.join(BULK_ACTIONS)}."
        )
    return name, action


def _chosen(site: Site, form: Form) -> dict[str, Any]:
    """The filter that a form of a list means; empty when nothing was chosen."""
    if form.get("filter"):
        return _filter(form)
    if form.get("all") != "yes":
        ids = list(dict.fromkeys(form.all("run")))[:MAX_IDS]
        return {"ids": ids} if ids else {}
    query, _ = from_params(dict(parse_qsl(form.get("back"))))
    where = query.where(site.now())
    # relative times are fixed here, so that what is counted is what is done
    fields = {name: getattr(where, name) for name in where.__struct_fields__}
    chosen = {name: value for name, value in fields.items() if value}
    return chosen or {"all": True}


def _filter(form: Form) -> dict[str, Any]:
    try:
        return msgspec.json.decode(form.get("filter"), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise HTTPException(400, f"The filter can't be read: {error}.") from error


def _back(site: Site, request: Request, form: Form, name: str) -> str:
    if form.get("filter") and name in {"redrive", "discard"}:
        return site.url(request, "/dead-letters")
    query, _ = from_params(dict(parse_qsl(form.get("back"))))
    return site.url(request, "/runs", **query.params())


def _bulk_id(request: Request) -> str:
    bulk_id: str = request.path_params["bulk_id"]
    if not is_id(bulk_id):
        raise HTTPException(404, f"'{bulk_id[:60]}' is not the id of a bulk operation.")
    return bulk_id.upper()
