"""What pages and APIs read: plain views of the store, never used to decide anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from holdfast.core.reporting import Progress
from holdfast.store.flow_reads import AlarmView, CancelView, FlowView, GateView, TimerView


class FunctionView(msgspec.Struct, frozen=True):
    """A registered function."""

    id: int
    app: str
    slug: str
    """`<app>-<function id>`, unique."""
    name: str
    version: int
    config: dict[str, Any]
    """Triggers, retries, limits: the registration document of protocol section 3, with holdfast's own additions."""
    archived: bool
    """No longer part of its app's code."""
    paused: bool
    created_at: int
    pause: str | None = None
    """How it is paused: hold keeps its runs in their queue, skip lets events start nothing; None when it isn't."""


class RunView(msgspec.Struct, frozen=True):
    """A run as lists show it. Payloads are not in it."""

    id: str
    function_id: int
    function: str
    """The function's slug."""
    function_name: str
    app: str
    event_id: str
    event_name: str
    status: str
    """QUEUED RUNNING COMPLETED FAILED CANCELLED SKIPPED, or the derived WAITING."""
    queued_at: int
    started_at: int | None
    ended_at: int | None
    attempt: int
    steps: int
    error: str | None
    parent_id: str | None
    origin: str
    """event, invoke, rerun, redrive or cron."""
    key: str | None
    version: int = 1
    """Version of the function's configuration that started it."""
    reason: str | None = None
    """Why it was cancelled or skipped, where a rule did it."""
    batch: int = 0
    """How many events it has, if it is the run of a batch."""
    progress: Progress | None = None
    """How far it has said it is, if it has."""

    @property
    def duration_ms(self) -> int | None:
        if self.started_at is None or self.ended_at is None:
            return None
        return self.ended_at - self.started_at


class FinishedStep(msgspec.Struct, frozen=True, kw_only=True):
    """A step that is done or has failed for good, without its payload."""

    key: str
    name: str
    kind: str
    state: str
    """done or failed."""
    seq: int
    """Its place among the finished steps of its run, from 1."""
    started_at: int
    ended_at: int | None
    attempt: int
    """Attempts that failed before."""


class AttemptView(msgspec.Struct, frozen=True):
    """A failed attempt."""

    attempt: int
    """From 0."""
    started_at: int
    ended_at: int
    retry_at: int | None
    """When the next attempt is (was) due; None when there is none."""
    error: dict[str, object]
    """name, message, stack."""
    input: bytes | None = None
    """JSON of the arguments of the step's body: a list, or {args, kwargs}; None where they were not kept."""


class StepView(msgspec.Struct, frozen=True):
    """A step of a run, with everything recorded of it."""

    key: str
    name: str
    kind: str
    """run, sleep, wait_event, wait_signal, invoke, send, race, now, end, fetch, ai, send_signal."""
    state: str
    """done, failed or pending."""
    seq: int
    started_at: int
    ended_at: int | None
    attempt: int
    """Attempts that failed."""
    due: int | None
    data: bytes | None
    """JSON of the result; while pending, of what it waits for: sleep {until}, wait {event, where, if, timeout_at},
    invoke {function, run_id}."""
    error: dict[str, object] | None
    attempts: tuple[AttemptView, ...]
    asked: bytes | None = None
    """Of a wait or an invocation: JSON of what it waits or waited for, also once it is over."""


class LogView(msgspec.Struct, frozen=True):
    """A log line of a run."""

    at: int
    level: str
    """debug, info, warning, error or critical."""
    message: str
    step: str | None


class QueueView(msgspec.Struct, frozen=True):
    """Where a live run stands in the queue."""

    state: str
    """ready, timed, leased or parked."""
    due: int
    lane: str
    position: int | None
    """Place in line among ready items of its lane, from 1; None when it isn't in line."""
    attempt: int
    crashes: int
    more_ahead: bool = False
    """`position` was counted no further: there are more ahead."""
    gate: GateView | None = None
    """What it waits for, while it is in line, or held back before its start."""


class EventView(msgspec.Struct, frozen=True):
    """An accepted event."""

    internal_id: str
    id: str
    """The id its sender gave, else the internal one."""
    name: str
    ts: int
    received_at: int
    data: bytes
    meta: dict[str, object]
    source_run: str | None


class SkipView(msgspec.Struct, frozen=True):
    """A function that an event did not start, and why."""

    function: str
    reason: str
    """paused, duplicate event id, idempotency, rate limited, debounced, debounced away, batched, singleton, trigger expression
    did not hold, or no function."""
    run_id: str | None
    """The run that stands in its place, or that it will become part of."""
    at: int
    detail: str = ""
    """The rule with its figures and key."""
    until: int | None = None
    """Of an event that waits (debounced, batched): when its run starts, unless more comes."""
    key: str | None = None
    """Of an event that waits: the key it waits under."""

    @property
    def waits(self) -> bool:
        """Whether it will still become (part of) a run."""
        return self.until is not None


class MatchedWaitView(msgspec.Struct, frozen=True):
    """A wait that an event ended."""

    run_id: str
    function: str
    step: str | None
    """The step that went on with the event; None where the event cancelled the run."""
    at: int


NO_FUNCTION = "no function"


def reasons(
    event: EventView, runs: Sequence[RunView], skips: Sequence[SkipView], matched: Sequence[MatchedWaitView]
) -> Sequence[SkipView]:
    """Why functions were not started by an event, and never nothing: an event that came of no use says so."""
    if runs or skips or matched:
        return skips
    return [SkipView("", NO_FUNCTION, None, event.received_at, "no function listened to it and no run waited for it when it came")]


class BatchEventView(msgspec.Struct, frozen=True):
    """An event of a batch, without its data."""

    event_id: str
    name: str
    at: int


class RunDetail(msgspec.Struct, frozen=True):
    """Everything about one run."""

    run: RunView
    event: EventView | None
    steps: tuple[StepView, ...]
    """In the order of their recording; pending ones last; the END row last of all when the run has ended."""
    function_attempts: tuple[AttemptView, ...]
    """Failed attempts of the function itself, outside steps."""
    logs: tuple[LogView, ...]
    queue: QueueView | None
    output: bytes | None
    """JSON of the return value once COMPLETED."""
    error: dict[str, object] | None
    """name, message, stack once FAILED."""
    children: tuple[RunView, ...]
    """Runs it invoked or that were made from it."""
    notes: tuple[str, ...]
    """What the engine has to say: changed code, steps no longer reached, crashes."""
    alarms: tuple[AlarmView, ...] = ()
    """Moments at which it will be cancelled."""
    cancels: tuple[CancelView, ...] = ()
    """Events that cancel it."""
    batch_events: tuple[BatchEventView, ...] = ()
    """The events of a batch in their order, at most a thousand."""


class RunProgress(msgspec.Struct, frozen=True):
    """How a run is doing: what a status outside of the store is made of."""

    run: RunView
    event: EventView | None
    attempts: tuple[AttemptView, ...]
    """Failed attempts of its steps and of the function itself, in the order in which they ended."""
    retrying: bool
    """Whether a step, or the function itself, is being tried again and has not succeeded."""
    error: dict[str, object] | None
    """name, message, stack once FAILED."""


class DeadLetterView(msgspec.Struct, frozen=True):
    """A dead letter."""

    run_id: str
    function: str
    function_name: str
    event_name: str
    at: int
    fingerprint: str
    error: str
    state: str
    """dead, redriven or discarded."""
    redriven_as: str | None
    attempts: int
    """How often what failed in the end was tried: the step that the final error names, else the function."""


class Backlog(msgspec.Struct, frozen=True):
    """The ready items of a function that wait for a place, counted no further than 100,000."""

    ready: int
    oldest_at: int | None
    """Since when the first of them waits."""


class CronView(msgspec.Struct, frozen=True):
    """A schedule."""

    function: str
    schedule: str
    """With its zone: `TZ=Europe/Paris 0 9 * * *`."""
    next_at: int
    last_at: int | None
    missed: int
    paused: bool


class WaitView(msgspec.Struct, frozen=True):
    """An open wait."""

    run_id: str
    function: str
    step: str
    lookup: str
    """`event name`, or `event name\\0path\\0JSON value` where a field must have a value."""
    expression: str | None
    expires: int | None
    created_at: int


class NodeView(msgspec.Struct, frozen=True):
    """A process that executes functions on this store."""

    number: int
    """Under which it leases; a node that comes back has another one."""
    name: str
    host: str
    pid: int
    version: str
    """Of holdfast."""
    started_at: int
    seen_at: int
    """When it last renewed its lease."""
    ended_at: int | None
    """When it stopped, or was declared dead."""
    in_flight: int
    """Runs it executed when it was last seen."""
    capacity: int
    """Runs it has room for in all."""
    state: str
    """alive, silent (its lease has run out, and nobody has declared it dead yet), stopped or dead."""
    leads: bool
    """Whether the duties that are needed once are its."""
    here: bool
    """Whether it is the node that was asked."""


class AuditView(msgspec.Struct, frozen=True):
    """An entry of the audit log."""

    at: int
    actor: str
    action: str
    target: str
    detail: str
    origin: str = ""
    """The address it came from, and by which way: `203.0.113.7, dashboard`."""


class FunctionStats(msgspec.Struct, frozen=True):
    """How a function did over a period. Runs are counted by when they were queued, failures by when they happened."""

    function_id: int
    function: str
    function_name: str
    app: str
    started: int
    completed: int
    failed: int
    cancelled: int
    active: int
    """Live now: queued, running and waiting."""
    p50_ms: int | None
    """From start to end, of its newest completed runs of the period, at most 1,000; None when there are none."""
    p95_ms: int | None
    last_run_at: int | None
    """When its newest run was queued, within the period or before."""
    last_error: str | None
    """Headline of the latest failure within the period."""

    @property
    def success_rate(self) -> float | None:
        """0..1 of the runs that ended COMPLETED or FAILED; None when none did."""
        ended = self.completed + self.failed
        return self.completed / ended if ended else None


class Overview(msgspec.Struct, frozen=True):
    """Counters of the home page. Over the period, runs are counted by when they were queued, and failures by when they
    happened, so that a run that waited a week and failed just now shows.
    """

    queued: int
    running: int
    waiting: int
    completed: int
    """Within the period."""
    failed: int
    cancelled: int
    dead: int
    events: int
    """Received within the period, without those of holdfast's own (`inngest/...`)."""
    backlog: int
    """Ready items that wait for a place."""
    oldest_ready_at: int | None
    timers: int
    next_timer_at: int | None
    store_bytes: int
    buckets: tuple[tuple[int, int, int, int, int], ...]
    """(start ms, completed, failed, cancelled, queued) per slice of the period, oldest first; the last one is open."""
    recent_failures: tuple[RunView, ...]
    """The latest ten of the period, latest first; those redriven since are among them."""


class RunFilter(msgspec.Struct, frozen=True):
    """Which runs to list; every field narrows."""

    status: tuple[str, ...] = ()
    function: str | None = None
    """Slug, or the id without the app's prefix."""
    app: str | None = None
    event: str | None = None
    """Event name."""
    event_id: str | None = None
    """Internal or sender's id."""
    since: int | None = None
    """Queued at or after."""
    until: int | None = None
    """Queued before."""
    error: str | None = None
    """Text contained in the error."""
    parent: str | None = None
    ids: tuple[str, ...] = ()
    """Only these runs; empty for any."""
    dead: bool = False
    """Only dead letters that were neither redriven nor discarded."""
    fingerprint: str | None = None
    """Only dead letters of this error."""


class LetterGroup(msgspec.Struct, frozen=True):
    """Dead letters of one error."""

    fingerprint: str
    error: str
    """Of the latest run among them."""
    sample: str
    """That run's id."""
    count: int
    first_at: int
    last_at: int
    functions: tuple[tuple[str, str, int], ...]
    """(slug, name, count) of the functions that died of it, most often first."""


class BulkView(msgspec.Struct, frozen=True):
    """A bulk operation and how far it is."""

    id: str
    action: str
    """cancel, rerun, redrive or discard."""
    filter: dict[str, object]
    actor: str
    state: str
    """running, done or cancelled."""
    rate: str | None
    total: int
    """How many runs matched when it began."""
    done: int
    skipped: int
    """There was nothing to do any more."""
    failed: int
    error: str | None
    """Why the last of those that failed did."""
    created_at: int
    ended_at: int | None

    @property
    def seen(self) -> int:
        """How many of them it has come to."""
        return self.done + self.skipped + self.failed


class Reader(Protocol):
    """Reading side of a store. Every call has a time limit and never blocks writers. Ids are ULID text, and text that
    can't be an id finds nothing; so does a cursor that no page gave out. A call sees one commit, never half of two.

    Raises:
        StoreError: the query took longer than the reader's limit.
    """

    async def functions(self) -> Sequence[FunctionView]: ...
    async def runs(
        self, where: RunFilter, *, limit: int = 50, cursor: str | None = None
    ) -> tuple[list[RunView], str | None]:
        """Newest first, and the cursor of the next page or None."""
        ...

    async def count_runs(self, where: RunFilter, *, cap: int = 10_000) -> int:
        """How many match, counted no further than `cap`."""
        ...

    async def run(self, run_id: str) -> RunDetail | None: ...
    async def progress(self, run_id: str) -> RunProgress | None: ...
    async def run_view(self, run_id: str) -> RunView | None: ...
    async def finished_steps(self, run_id: str, *, after: int = 0, limit: int = 100) -> Sequence[FinishedStep]:
        """The steps of a run that finished after another, in the order in which they did."""
        ...

    async def events(
        self,
        *,
        name: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
        internal: bool = True,
        received_after: int | None = None,
        received_before: int | None = None,
    ) -> tuple[list[EventView], str | None]:
        """Newest first, received strictly between the two moments. A page of large events is shorter than `limit`."""
        ...

    async def event(self, internal_id: str) -> EventView | None: ...
    async def event_runs(self, internal_id: str) -> Sequence[RunView]:
        """The runs it started, those of batches that it is part of included."""
        ...

    async def event_skips(self, internal_id: str) -> Sequence[SkipView]:
        """The functions it did not start, or not yet: a debounced or batched event waits."""
        ...

    async def matched_waits(self, internal_id: str) -> Sequence[MatchedWaitView]:
        """The waits that it ended, up to 100 of them."""
        ...

    async def event_names(self, *, limit: int = 200) -> Sequence[str]:
        """Names of stored events, sorted; holdfast's own last."""
        ...

    async def dead_letters(
        self,
        *,
        state: str | None = "dead",
        function: str | None = None,
        fingerprint: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> tuple[list[DeadLetterView], str | None]:
        """Those of the newest runs first. `state` None lists all; `function` is a slug, or an id without its app."""
        ...

    async def letter_groups(
        self, *, state: str = "dead", function: str | None = None, limit: int = 100
    ) -> Sequence[LetterGroup]:
        """All dead letters by their error, largest group first; `limit` groups at most."""
        ...

    async def bulks(self, *, limit: int = 50, running: bool = False) -> Sequence[BulkView]:
        """Bulk operations, newest first; all, or those that are running."""
        ...

    async def bulk(self, bulk_id: str) -> BulkView | None: ...
    async def dead_letter(self, run_id: str) -> DeadLetterView | None: ...
    async def crons(self) -> Sequence[CronView]: ...
    async def waits(self, *, limit: int = 200) -> Sequence[WaitView]: ...
    async def timers(self, *, limit: int = 100) -> Sequence[TimerView]:
        """Runs that are due at a moment, the next first."""
        ...

    async def audit(self, *, limit: int = 100) -> Sequence[AuditView]: ...
    async def stats(self, *, since: int) -> Sequence[FunctionStats]: ...
    async def flow(self, function: str | None = None) -> Sequence[FlowView]:
        """The flow control of the functions of the apps' code, or of one function by its slug: rules, limits, who waits.

        Counts are exact up to a bound, past which they say that there is more.
        """
        ...

    async def overview(self, *, since: int, now: int, slices: int = 60) -> Overview: ...

    async def backlogs(self, function_ids: Sequence[int]) -> Mapping[int, Backlog]:
        """What of these functions waits for a place."""
        ...

    async def close(self) -> None:
        """Give up threads and connections. Nothing can be read afterwards; closing again does nothing."""
        ...
