"""Lists of runs and events for GraphQL: filters, expressions over contents, orders and pages (protocol section 6)."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
from graphql import GraphQLError

from holdfast.base.errors import ConfigurationError
from holdfast.base.ids import name_uuid
from holdfast.core.expressions import Expression, compile_expression
from holdfast.server.gql.objects import Asked, EventNode, RunNode
from holdfast.server.traces import run_output
from holdfast.store.reads import EventView, RunDetail, RunFilter, RunView

MAX_PAGE = 400
MAX_WALKED = 10_000
"""Runs or events that one request looks at, newest first; what is beyond is neither listed nor counted."""
MAX_READ = 1_000
"""Of runs, so many have their contents compared with an expression."""
_CHUNK = 500

T = TypeVar("T")


class PageInfo(msgspec.Struct, frozen=True):
    """Where a page stands."""

    has_next_page: bool
    has_previous_page: bool
    start_cursor: str | None
    end_cursor: str | None


class Edge(msgspec.Struct, frozen=True):
    """An object of a page."""

    cursor: str
    node: Any


class Connection:
    """A page of a list.

    Args:
        nodes: All that the filter lets through, in order.
        cursors: A cursor for each.
        first: How many to answer.
        after: The cursor after which the page begins.
    """

    def __init__(self, nodes: Sequence[Any], cursors: Sequence[str], first: int, after: str | None) -> None:
        if not 1 <= first <= MAX_PAGE:
            raise GraphQLError(f"first is 1 to {MAX_PAGE}, not {first}")
        begin = 0
        if after:
            if after not in cursors:
                raise GraphQLError(f"{after[:60]!r} is no cursor of this list; pass on `pageInfo.endCursor`")
            begin = cursors.index(after) + 1
        end = begin + first
        self.edges = [Edge(*pair) for pair in zip(cursors[begin:end], nodes[begin:end], strict=True)]
        self._total = len(nodes)
        self.page_info = PageInfo(
            end < len(nodes),
            begin > 0,
            self.edges[0].cursor if self.edges else None,
            self.edges[-1].cursor if self.edges else None,
        )

    def total_count(self, _info: Any, **_preview: Any) -> int:
        """How many there are in all."""
        return self._total


def cursor_of(node_id: str) -> str:
    """The cursor of an object."""
    return base64.urlsafe_b64encode(node_id.encode()).decode().rstrip("=")


# -- expressions -----------------------------------------------------------------------------------------------------


def expressions(query: str | None) -> list[Expression]:
    """The lines of a query: CEL over `event`, and for runs over `output` and `error`.

    Raises:
        GraphQLError: one can't be understood.
    """
    try:
        return [compile_expression(line.strip()) for line in (query or "").splitlines() if line.strip()]
    except ConfigurationError as error:
        raise GraphQLError(str(error)) from error


def event_value(view: EventView) -> dict[str, Any]:
    """An event as expressions see it."""
    return {"id": view.id, "name": view.name, "ts": view.ts, "v": view.meta.get("v"), "data": msgspec.json.decode(view.data)}


def run_values(detail: RunDetail) -> dict[str, Any]:
    """The output and error of a run as expressions see them."""
    text = run_output(detail)
    output = None if text is None else msgspec.json.decode(text)
    error = {key: (detail.error or {}).get(key) for key in ("name", "message", "stack")}
    return {"output": {} if output is None else output, "error": error if detail.error is not None else {}}


async def _run_matches(asked: Asked, view: RunView, lines: Sequence[Expression]) -> bool:
    detail = await asked.detail(view.id)
    if detail is None:
        return False
    values = run_values(detail)
    about_event = [line for line in lines if "event." in line.source]
    if not all(line.matches(event={}, **values) for line in lines if line not in about_event):
        return False
    if not about_event:
        return True
    ids = [one.event_id for one in detail.batch_events] or [view.event_id]
    for event_id in ids:
        event = detail.event if event_id == view.event_id else await asked.reader.event(event_id)
        if event is not None and all(line.matches(event=event_value(event), **values) for line in about_event):
            return True
    return False


# -- runs ------------------------------------------------------------------------------------------------------------

_FIELDS: dict[str, Callable[[RunView], int | None]] = {
    "QUEUED_AT": lambda view: view.queued_at,
    "STARTED_AT": lambda view: view.started_at,
    "ENDED_AT": lambda view: view.ended_at,
}


async def list_runs(
    asked: Asked, where: dict[str, Any], orders: Sequence[dict[str, str]], first: int, after: str | None
) -> Connection:
    """A page of runs. Without an order, those queued last come first."""
    lines = expressions(where.get("query"))
    views = [view for view in await _walk_runs(asked, where) if _let_through(view, where)]
    if lines:
        views = [view for view in views[:MAX_READ] if await _run_matches(asked, view, lines)]
    for order in reversed(orders):
        views = _ordered(views, _FIELDS[order["field"]], falling=order["direction"] == "DESC")
    return Connection([RunNode(view) for view in views], [cursor_of(view.id) for view in views], first, after)


def _ordered(views: list[RunView], key: Callable[[RunView], int | None], *, falling: bool) -> list[RunView]:
    """Sorted by a moment; those without it come last."""
    there = [view for view in views if key(view) is not None]
    there.sort(key=lambda view: (key(view) or 0, view.id), reverse=falling)
    return there + [view for view in views if key(view) is None]


async def _walk_runs(asked: Asked, where: dict[str, Any]) -> list[RunView]:
    queued = where.get("time_field", "QUEUED_AT") == "QUEUED_AT"
    statuses = where.get("status") or []
    narrow = RunFilter(
        status=tuple([*statuses, "WAITING"] if "RUNNING" in statuses else statuses),
        since=where["from"] if queued else None,
        until=where.get("until"),  # what was started or ended before a moment was queued before it
    )
    found: list[RunView] = []
    cursor = None
    while len(found) < MAX_WALKED:
        rows, cursor = await asked.reader.runs(narrow, limit=_CHUNK, cursor=cursor)
        found.extend(rows)
        if cursor is None:
            break
    return found


def _let_through(view: RunView, where: dict[str, Any]) -> bool:
    moment = _FIELDS[where.get("time_field", "QUEUED_AT")](view)
    until = where.get("until")
    if moment is None or moment < where["from"] or (until is not None and moment >= until):
        return False
    functions, apps = where.get("function_ids"), where.get("app_ids")
    if functions and name_uuid(view.app, view.function) not in functions:
        return False
    return not apps or name_uuid(view.app) in apps


# -- events ----------------------------------------------------------------------------------------------------------


async def list_events(asked: Asked, where: dict[str, Any], first: int, after: str | None) -> Connection:
    """A page of events, those received last first."""
    lines = expressions(where.get("query"))
    names = where.get("event_names") or []
    views: list[EventView] = []
    cursor, walked = None, 0
    while walked < MAX_WALKED:
        rows, cursor = await asked.reader.events(
            name=names[0] if len(names) == 1 else None,
            internal=where.get("include_internal_events", False) or any(name.startswith("inngest/") for name in names),
            limit=_CHUNK,
            cursor=cursor,
            received_after=where["from"] - 1,
            received_before=where.get("until"),
        )
        walked += len(rows)
        views.extend(view for view in rows if _event_matches(view, names, lines))
        if cursor is None:
            break
    return Connection([EventNode(view) for view in views], [cursor_of(view.internal_id) for view in views], first, after)


def _event_matches(view: EventView, names: Sequence[str], lines: Sequence[Expression]) -> bool:
    if names and view.name not in names:
        return False
    return not lines or all(line.matches(event=event_value(view)) for line in lines)
