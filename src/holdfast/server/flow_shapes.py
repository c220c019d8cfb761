"""What the REST API answers about flow control."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from holdfast.base.clock import iso
from holdfast.store.flow_reads import BacklogView, FlowView, GatherView, KeyView, RuleView
from holdfast.store.reads import MatchedWaitView, SkipView


class LimitedKey(Struct, frozen=True, kw_only=True):
    """How a rule stands for one value of its key."""

    key: str
    used: Annotated[int, Meta(description="Places taken; of a rate limit, starts within its period.")]
    waiting: Annotated[int, Meta(description="Runs that wait for it.")]
    since: Annotated[str | None, Meta(description="Since when the first in line waits, RFC 3339.")]
    until: Annotated[str | None, Meta(description="Of a throttle: when the next may start.")]


class Rule(Struct, frozen=True, kw_only=True):
    """A rule of a function, and how it stands."""

    name: Annotated[
        str,
        Meta(
            description="concurrency, concurrency-2, run-concurrency, throttle, rate-limit, debounce, batch, singleton, idempotency, "
            "priority, cancel, start-timeout or finish-timeout."
        ),
    ]
    words: Annotated[str, Meta(description="What it says, in words.")]
    limit: Annotated[int | None, Meta(description="The limit in force, of the first five.")]
    declared: Annotated[int | None, Meta(description="The code's limit.")]
    key: Annotated[str | None, Meta(description="What its key is taken from.")]
    used: Annotated[int | None, Meta(description="Places taken, over all keys; of a rate limit, starts within its period.")]
    waiting: Annotated[int, Meta(description="Runs that wait for it; of a debounce or batch, those that will start.")]
    since: Annotated[str | None, Meta(description="Since when the first of them waits.")]
    lines: Annotated[int, Meta(description="Lines that wait for it: one for each combination of keys.")]
    hot_keys: Annotated[list[LimitedKey], Meta(description="The keys with most waiting, ten at most.")]
    more: Annotated[bool, Meta(description="There is more than was counted.")]


class Gathering(Struct, frozen=True, kw_only=True):
    """Events that wait to become one run."""

    kind: Annotated[str, Meta(description="debounce or batch.")]
    key: str
    run_id: Annotated[str, Meta(description="The id its run will have.")]
    event_id: Annotated[str, Meta(description="Of a debounce, the event it will start with; of a batch, the first.")]
    first_at: str
    due: Annotated[str, Meta(description="When the run starts unless more comes.")]
    events: int
    bytes: int


class Backlog(Struct, frozen=True, kw_only=True):
    """What a function has to do."""

    queued: Annotated[int, Meta(description="Runs in line.")]
    running: Annotated[int, Meta(description="Runs that are executing.")]
    delayed: Annotated[dict[str, int], Meta(description="How many wait for which rule, debounces and batches included.")]
    oldest: Annotated[str | None, Meta(description="Since when the first in line waits.")]
    more: Annotated[bool, Meta(description="There is more than was counted.")]


class Flow(Struct, frozen=True, kw_only=True):
    """The flow control of a function, and how it stands."""

    function: Annotated[str, Meta(description="`<app>-<function>`.")]
    name: str
    app: str
    paused: Annotated[str | None, Meta(description="hold, skip, or null.")]
    rules: list[Rule]
    backlog: Backlog
    gathering: Annotated[int, Meta(description="Debounces and batches that wait.")]
    gathers: Annotated[list[Gathering], Meta(description="Those that are due first, twenty at most.")]


class Skip(Struct, frozen=True, kw_only=True):
    """A function that an event did not start, or not yet, and why."""

    function: Annotated[str | None, Meta(description="Null when no function listened to the event.")]
    reason: Annotated[
        str,
        Meta(
            description="paused, duplicate event id, idempotency, rate limited, debounced, debounced away, batched, singleton, "
            "trigger expression did not hold, or no function."
        ),
    ]
    detail: Annotated[str, Meta(description="The rule with its figures and key.")]
    run_id: Annotated[str | None, Meta(description="The run that stands in its place, or that it will be part of.")]
    at: str
    waits_until: Annotated[str | None, Meta(description="Of an event that waits: when its run starts unless more comes.")]


class MatchedWait(Struct, frozen=True, kw_only=True):
    """A run that waited for an event."""

    run_id: str
    function: Annotated[str | None, Meta(description="Null when it has been removed.")]
    step: Annotated[str | None, Meta(description="The step that went on with the event; null where the event cancelled the run.")]
    at: str


class Flushed(Struct, frozen=True):
    """How many runs a request started."""

    started: int


def flow_of(view: FlowView) -> Flow:
    """A function's flow control for the API."""
    return Flow(
        function=view.function,
        name=view.function_name,
        app=view.app,
        paused=view.pause,
        rules=[_rule(rule) for rule in view.rules],
        backlog=_backlog(view.backlog),
        gathering=view.gathering,
        gathers=[_gathering(gather) for gather in view.gathers],
    )


def _rule(view: RuleView) -> Rule:
    return Rule(
        name=view.name,
        words=view.words,
        limit=view.limit,
        declared=view.declared,
        key=view.key,
        used=view.used,
        waiting=view.waiting,
        since=iso(view.since),
        lines=view.lanes,
        hot_keys=[_key(key) for key in view.hot],
        more=view.more,
    )


def _key(view: KeyView) -> LimitedKey:
    return LimitedKey(
        key=view.key, used=view.used, waiting=view.waiting, since=iso(view.since), until=iso(view.until)
    )


def _backlog(view: BacklogView) -> Backlog:
    return Backlog(
        queued=view.queued, running=view.running, delayed=view.delayed, oldest=iso(view.oldest), more=view.more
    )


def _gathering(view: GatherView) -> Gathering:
    return Gathering(
        kind=view.kind,
        key=view.key,
        run_id=view.run_id,
        event_id=view.event_id,
        first_at=iso(view.first_at) or "",
        due=iso(view.due) or "",
        events=view.events,
        bytes=view.bytes,
    )


def skip_of(view: SkipView) -> Skip:
    """A reason for the API."""
    return Skip(
        function=view.function or None,
        reason=view.reason,
        detail=view.detail,
        run_id=view.run_id,
        at=iso(view.at) or "",
        waits_until=iso(view.until),
    )


def matched_wait_of(view: MatchedWaitView) -> MatchedWait:
    """A wait that an event ended, for the API."""
    return MatchedWait(run_id=view.run_id, function=view.function or None, step=view.step, at=iso(view.at) or "")
