"""What can be asked by GraphQL (protocol section 6)."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import msgspec
from graphql import GraphQLError

from holdfast.base.ids import name_uuid
from holdfast.server.gql.listing import Connection, list_events, list_runs
from holdfast.server.gql.objects import AppNode, Asked, EventNode, FunctionNode, RunNode, SpanNode, trigger_payload
from holdfast.server.traces import output_of, place_of
from holdfast.store.reads import EventView, RunDetail

_MAX_BATCH = 1000


class OutputNode(msgspec.Struct, frozen=True):
    """What a span brought."""

    data: str | None
    error: ErrorNode | None
    input: str | None = None


class ErrorNode(msgspec.Struct, frozen=True):
    """An error."""

    message: str
    name: str | None
    stack: str | None
    cause: Any = None


class TriggerNode(msgspec.Struct, frozen=True, kw_only=True):
    """What started a run."""

    event_name: str | None
    ids: list[str]
    timestamp: int
    payloads: list[str]
    is_batch: bool
    batch_id: str | None
    cron: str | None


class StreamNode(msgspec.Struct, frozen=True):
    """An event with what it started."""

    id: str
    trigger: str
    type: str
    created_at: int
    runs: list[RunNode]
    in_batch: bool


class Query:
    """The root of all questions."""

    async def apps(self, info: Any) -> list[AppNode]:
        asked: Asked = info.context
        names = {view.app for view in await asked.functions()} | set(asked.records()) | set(asked.api.engine.apps)
        return [AppNode(name, asked.records().get(name)) for name in sorted(names)]

    async def app(self, info: Any, id: str) -> AppNode | None:  # noqa: A002 - the protocol's word
        return next((one for one in await self.apps(info) if one.id == _uuid(id)), None)

    async def functions(self, info: Any) -> list[FunctionNode]:
        return [FunctionNode(view) for view in await info.context.functions()]

    async def function_by_slug(self, info: Any, query: dict[str, Any]) -> FunctionNode | None:
        return next((one for one in await self.functions(info) if one.slug == query["function_slug"]), None)

    # -- runs ----------------------------------------------------------------------------------------------------------

    async def run(self, info: Any, run_id: str) -> RunNode | None:
        detail = await info.context.detail(run_id)
        return None if detail is None else RunNode(detail.run)

    async def function_run(self, info: Any, query: dict[str, Any]) -> RunNode:
        return RunNode((await _detail(info, query["function_run_id"])).run)

    async def runs(
        self,
        info: Any,
        filter: dict[str, Any],  # noqa: A002 - the protocol's word
        first: int,
        after: str | None = None,
        order_by: Sequence[dict[str, str]] | None = None,
        preview: bool | None = None,
    ) -> Connection:
        return await list_runs(info.context, filter, order_by or [], first, after)

    async def run_trace(self, info: Any, run_id: str, preview: bool | None = None) -> SpanNode | None:
        run = await self.run(info, run_id)
        return None if run is None else await run.trace(info, preview)

    async def run_trace_span_output_by_id(self, info: Any, output_id: str) -> OutputNode:
        try:
            place = place_of(output_id)
        except ValueError as error:
            raise GraphQLError(str(error)) from error
        output = output_of(await _detail(info, place.run_id), place)
        if output is None:
            raise GraphQLError("there is no output here yet")
        return OutputNode(output.data, None if output.error is None else _error(output.error))

    async def run_trigger(self, info: Any, run_id: str) -> TriggerNode:
        detail = await _detail(info, run_id)
        events = await _events_of(info.context, detail)
        cron = await RunNode(detail.run).cron_schedule(info)
        return TriggerNode(
            event_name=None if cron else detail.run.event_name,
            ids=[one.internal_id for one in events],
            timestamp=min((one.received_at for one in events), default=detail.run.queued_at),
            payloads=[trigger_payload(one) for one in events],
            is_batch=detail.run.batch > 0,
            batch_id=detail.run.id if detail.run.batch else None,
            cron=cron,
        )

    # -- events --------------------------------------------------------------------------------------------------------

    async def event(self, info: Any, query: dict[str, Any]) -> EventNode | None:
        view = await info.context.reader.event(query["event_id"])
        return None if view is None else EventNode(view)

    async def event_v2(self, info: Any, id: str) -> EventNode:  # noqa: A002 - the protocol's word
        view = await info.context.reader.event(id)
        if view is None:
            raise GraphQLError(f"there is no event {id}")
        return EventNode(view)

    async def events(self, info: Any, query: dict[str, Any]) -> list[EventNode]:
        views, _ = await info.context.reader.events(limit=50, internal=False, cursor=query.get("last_event_id"))
        return [EventNode(view) for view in views]

    async def events_v2(
        self,
        info: Any,
        filter: dict[str, Any],  # noqa: A002 - the protocol's word
        first: int,
        after: str | None = None,
    ) -> Connection:
        return await list_events(info.context, filter, first, after)

    async def stream(self, info: Any, query: dict[str, Any]) -> list[StreamNode]:
        reader = info.context.reader
        views, _ = await reader.events(
            limit=query["limit"],
            internal=query.get("include_internal_events") or False,
            received_after=query.get("after"),
            received_before=query.get("before"),
        )
        return [await _item(info.context, view) for view in views]


async def _item(asked: Asked, view: EventView) -> StreamNode:
    runs = [RunNode(one) for one in await asked.reader.event_runs(view.internal_id)]
    kind = "CRON" if view.name == "inngest/scheduled.timer" else "EVENT"
    return StreamNode(view.internal_id, view.name, kind, view.received_at, runs, any(run.is_batch for run in runs))


async def _detail(info: Any, run_id: str) -> RunDetail:
    detail: RunDetail | None = await info.context.detail(run_id)
    if detail is None:
        raise GraphQLError(f"there is no run {run_id[:40]}")
    return detail


async def _events_of(asked: Asked, detail: RunDetail) -> list[EventView]:
    """The events of a run: one, or those of its batch."""
    if not detail.batch_events:
        return [] if detail.event is None else [detail.event]
    found = [await asked.reader.event(one.event_id) for one in detail.batch_events[:_MAX_BATCH]]
    return [view for view in found if view is not None]


def _error(error: Any) -> ErrorNode:
    return ErrorNode(
        str(error.get("message") or ""), _text(error.get("name")), _text(error.get("stack")), error.get("cause")
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise GraphQLError(f"{text[:60]!r} is not a UUID") from error


def app_named(asked: Asked, app_id: str) -> str | None:
    """The name of the application with an id; None when there is none."""
    wanted = _uuid(app_id)
    return next((name for name in asked.records() if name_uuid(name) == wanted), None)
