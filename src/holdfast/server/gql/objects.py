"""The objects that GraphQL queries walk over: apps, functions, runs, spans and events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from graphql import GraphQLError

from holdfast.base.ids import name_uuid, ulid_bytes
from holdfast.server.operation import Api
from holdfast.server.traces import Span, legacy_tree, preview_tree, run_output
from holdfast.store.reads import EventView, FunctionView, RunDetail, RunView
from holdfast.store.sqlite.registry import AppRecord

MAX_FIELDS = 50_000
"""Fields of one answer: what could go round in circles ends."""
_METHODS = {"ping": "SERVE", "connect": "CONNECT"}


class Asked:
    """What one request reads, so that a run or the list of functions is read once however often it is walked to.

    Args:
        api: The server.
        audit: Records a change that the request makes: action, target, detail.
    """

    def __init__(self, api: Api, audit: Any) -> None:
        self.api = api
        self.reader = api.reader
        self.audit = audit
        self._details: dict[str, RunDetail | None] = {}
        self._functions: Sequence[FunctionView] | None = None
        self._fields_left = MAX_FIELDS

    def count_field(self) -> None:
        """A field is resolved.

        Raises:
            GraphQLError: the answer grows too large.
        """
        self._fields_left -= 1
        if self.exhausted:
            raise GraphQLError("the answer grows too large")

    @property
    def exhausted(self) -> bool:
        """Whether more was asked for than is answered at once."""
        return self._fields_left < 0

    async def detail(self, run_id: str) -> RunDetail | None:
        """Everything of a run; None when there is none."""
        if run_id not in self._details:
            self._details[run_id] = await self.reader.run(run_id)
        return self._details[run_id]

    async def functions(self) -> Sequence[FunctionView]:
        """The functions of the apps' code."""
        return [one for one in await self._every_function() if not one.archived]

    async def _every_function(self) -> Sequence[FunctionView]:
        if self._functions is None:
            self._functions = await self.reader.functions()
        return self._functions

    async def function(self, function_id: int) -> FunctionView | None:
        """A function by its number in the store, archived ones too."""
        return next((one for one in await self._every_function() if one.id == function_id), None)

    def records(self) -> dict[str, AppRecord]:
        """The applications that are called over HTTP."""
        return self.api.engine.applications.apps


class AppNode:
    """An app: one that is called over HTTP, or one of this process."""

    def __init__(self, name: str, record: AppRecord | None) -> None:
        language, _, version = (record.sdk if record else "py:").partition(":")
        self.id = name_uuid(name)
        self.external_id = self.name = name
        self.sdk_language = language
        self.sdk_version = version.removeprefix("v")
        self.framework = record.framework if record else None
        self.url = record.url if record else None
        self.checksum = record.checksum if record else None
        self.error = record.error if record else None
        self.connected = self.error is None
        self.method = _METHODS.get(record.method, "SERVE") if record else "SERVE"
        self.app_version = record.version if record else None

    async def functions(self, info: Any) -> list[FunctionNode]:
        return [FunctionNode(one) for one in await info.context.functions() if one.app == self.name]

    async def function_count(self, info: Any) -> int:
        return len(await self.functions(info))


class TriggerNode(msgspec.Struct, frozen=True):
    """A trigger of a function."""

    type: str
    value: str
    condition: str | None


class FunctionNode:
    """A function."""

    def __init__(self, view: FunctionView) -> None:
        self.view = view
        self.id = name_uuid(view.app, view.slug)
        self.name = view.name
        self.slug = view.slug
        self.config = msgspec.json.encode(view.config).decode()
        self.concurrency = 0
        self.app_id = name_uuid(view.app)

    @property
    def triggers(self) -> list[TriggerNode]:
        found = self.view.config.get("triggers")
        return [_trigger(one) for one in found] if isinstance(found, list) else []

    @property
    def url(self) -> str:
        steps = self.view.config.get("steps")
        first: Any = next(iter(steps.values()), {}) if isinstance(steps, dict) else {}
        return str((first.get("runtime") or {}).get("url") or "")

    def app(self, info: Any) -> AppNode:
        return AppNode(self.view.app, info.context.records().get(self.view.app))


def _trigger(one: dict[str, Any]) -> TriggerNode:
    if one.get("cron"):
        return TriggerNode("CRON", one["cron"], None)
    return TriggerNode("EVENT", str(one.get("event") or ""), one.get("expression"))


class RunNode:
    """A run, in both forms that the protocol has of it."""

    def __init__(self, view: RunView) -> None:
        self.view = view
        self.id = view.id
        self.app_id = name_uuid(view.app)
        self.function_id = name_uuid(view.app, view.function)
        self.trace_id = ulid_bytes(view.id).hex()
        self.queued_at = view.queued_at
        self.started_at = view.started_at
        self.ended_at = self.finished_at = view.ended_at
        self.status = "RUNNING" if view.status == "WAITING" else view.status
        self.source_id = None
        self.event_id = view.event_id
        self.event_name = view.event_name
        self.is_batch = view.batch > 0
        self.batch_id = view.id if self.is_batch else None
        self.has_ai = False

    async def trigger_ids(self, info: Any) -> list[str]:
        if not self.is_batch:
            return [self.event_id]
        detail = await info.context.detail(self.id)
        return [one.event_id for one in detail.batch_events] if detail else [self.event_id]

    async def batch_created_at(self, info: Any) -> int | None:
        detail = await info.context.detail(self.id) if self.is_batch else None
        return min((one.at for one in detail.batch_events), default=self.queued_at) if detail else None

    async def cron_schedule(self, info: Any) -> str | None:
        detail = await info.context.detail(self.id) if self.view.origin == "cron" else None
        if detail is None or detail.event is None:
            return None
        found = msgspec.json.decode(detail.event.data).get("cron")
        return found if isinstance(found, str) else None

    async def cron(self, info: Any) -> str | None:
        return await self.cron_schedule(info)

    async def output(self, info: Any) -> str | None:
        detail = await info.context.detail(self.id) if self.ended_at is not None else None
        return None if detail is None else run_output(detail)

    async def trace(self, info: Any, preview: bool | None = None) -> SpanNode | None:
        detail = await info.context.detail(self.id)
        return None if detail is None else SpanNode(preview_tree(detail) if preview else legacy_tree(detail), self)

    async def function(self, info: Any) -> FunctionNode | None:
        view = await info.context.function(self.view.function_id)
        return None if view is None else FunctionNode(view)

    def app(self, info: Any) -> AppNode:
        return AppNode(self.view.app, info.context.records().get(self.view.app))

    async def event(self, info: Any) -> EventNode | None:
        view = await info.context.reader.event(self.event_id)
        return None if view is None else EventNode(view)


class SpanNode:
    """A span of a run."""

    is_userland = False

    def __init__(self, span: Span, run: RunNode) -> None:
        self._span = span
        self.run = run
        self.app_id = run.app_id
        self.function_id = run.function_id
        self.metadata: list[Any] = []
        self.children_spans = [SpanNode(child, run) for child in span.children_spans]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._span, name)


class SourceNode(msgspec.Struct, frozen=True):
    """Where an event comes from."""

    id: str
    name: str | None
    source_kind: str


class EventNode:
    """An event, in both forms that the protocol has of it."""

    def __init__(self, view: EventView) -> None:
        self.view = view
        self.id = view.internal_id
        self.external_id = view.id
        self.idempotency_key = view.id
        self.name = view.name
        self.created_at = self.received_at = view.received_at
        self.occurred_at = view.ts
        self.payload = view.data.decode()
        self.schema = self.status = None
        version = view.meta.get("v")
        self.version = None if version is None else str(version)

    @property
    def raw(self) -> str:
        """The event as it was sent: always these five fields."""
        view = self.view
        body = {"data": msgspec.Raw(view.data), "id": view.id, "name": view.name, "ts": view.ts, "v": self.version}
        return msgspec.json.encode(body).decode()

    @property
    def source(self) -> SourceNode:
        run = self.view.source_run
        return SourceNode(run or "api", None, "function" if run else "api")

    async def runs(self, info: Any) -> list[RunNode]:
        return [RunNode(one) for one in await info.context.reader.event_runs(self.id)]

    async def function_runs(self, info: Any) -> list[RunNode]:
        return await self.runs(info)

    async def total_runs(self, info: Any) -> int:
        return len(await self.runs(info))

    async def pending_runs(self, info: Any) -> int:
        return sum(one.ended_at is None for one in await self.runs(info))


def trigger_payload(view: EventView) -> str:
    """An event as runs receive it, as JSON text."""
    body: dict[str, Any] = {"name": view.name, "data": msgspec.Raw(view.data), "id": view.id, "ts": view.ts}
    body |= {key: view.meta[key] for key in ("user", "v") if view.meta.get(key) is not None}
    return msgspec.json.encode(body).decode()
