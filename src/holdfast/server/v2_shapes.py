"""What version 2 of the API answers (protocol section 1.8)."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from holdfast.base.clock import iso
from holdfast.base.ids import name_uuid
from holdfast.server.traces import Span
from holdfast.store.reads import EventView, FunctionView, RunView


class MetadataV2(Struct, frozen=True, rename="camel"):
    """About the answer itself."""

    fetched_at: str
    cached_until: str | None = None


class PageV2(Struct, frozen=True, rename="camel"):
    """Of lists: where the page stands."""

    cursor: Annotated[str | None, Meta(description="Pass it as `cursor` to get the next page; null on the last.")]
    has_more: bool
    limit: int


class AnswerV2(Struct, frozen=True, omit_defaults=True):
    """The envelope of every answer."""

    data: Any
    metadata: MetadataV2
    page: PageV2 | None = None


class ProblemV2(Struct, frozen=True):
    """What was wrong."""

    code: str
    message: str


class ErrorsV2(Struct, frozen=True):
    """The envelope of every error."""

    errors: list[ProblemV2]


class InvokedV2(Struct, frozen=True, rename="camel"):
    """A run that an invocation started, now or when it was asked first."""

    run_id: str


class AppV2(Struct, frozen=True, rename="camel"):
    """An app."""

    id: str
    name: str
    url: str | None
    sdk: str | None
    framework: str | None
    version: str | None
    function_count: int
    synced_at: str | None
    error: str | None


class FunctionV2(Struct, frozen=True, rename="camel"):
    """A function."""

    id: Annotated[str, Meta(description="Its id without the app's prefix.")]
    uuid: str
    slug: str
    name: str
    app_id: str
    version: int
    is_paused: bool
    config: dict[str, Any]


class RunV2(Struct, frozen=True, rename="camel"):
    """A run."""

    id: str
    status: Annotated[str, Meta(description="QUEUED, RUNNING, COMPLETED, FAILED, CANCELLED or SKIPPED.")]
    app_id: str
    function_id: str
    function_slug: str
    event_ids: list[str]
    is_batch: bool
    queued_at: str
    started_at: str | None
    ended_at: str | None
    output: Raw | None = None


class EventV2(Struct, frozen=True, rename="camel"):
    """An event."""

    id: str
    external_id: str
    name: str
    data: Raw
    ts: int
    received_at: str


class SpanV2(Struct, frozen=True, rename="camel"):
    """A span of a run's trace, with those below it."""

    id: str
    parent_id: str | None
    name: str
    status: str
    step_id: str | None
    step_op: str | None
    attempts: int
    started_at: str | None
    ended_at: str | None
    output_id: str | None
    children: list[SpanV2]


def short_id(view: FunctionView) -> str:
    """A function's id without the app's prefix."""
    return view.slug.removeprefix(f"{view.app}-")


def function_v2(view: FunctionView) -> FunctionV2:
    """A function for the API."""
    return FunctionV2(
        short_id(view), name_uuid(view.app, view.slug), view.slug, view.name, view.app, view.version, view.paused, view.config
    )


def run_v2(view: RunView, output: str | None = None) -> RunV2:
    """A run for the API."""
    return RunV2(
        view.id,
        "RUNNING" if view.status == "WAITING" else view.status,
        view.app,
        name_uuid(view.app, view.function),
        view.function,
        [view.event_id],
        view.batch > 0,
        iso(view.queued_at) or "",
        iso(view.started_at),
        iso(view.ended_at),
        None if output is None else Raw(output.encode()),
    )


def event_v2(view: EventView) -> EventV2:
    """An event for the API."""
    return EventV2(view.internal_id, view.id, view.name, Raw(view.data), view.ts, iso(view.received_at) or "")


def span_v2(span: Span) -> SpanV2:
    """A trace for the API."""
    return SpanV2(
        span.span_id, span.parent_span_id, span.name, span.status, span.step_id, span.step_op, span.attempts,
        iso(span.started_at), iso(span.ended_at), span.output_id, [span_v2(child) for child in span.children_spans],
    )  # fmt: skip


def encode(answer: AnswerV2 | ErrorsV2) -> bytes:
    """Its JSON."""
    return msgspec.json.encode(answer)
