"""What the REST API answers: one struct per object, which is both its JSON and its schema in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from holdfast.base.clock import iso
from holdfast.base.ids import name_uuid
from holdfast.core.reporting import Progress
from holdfast.dashboard.words import standing
from holdfast.store.reads import (
    AttemptView,
    CronView,
    DeadLetterView,
    EventView,
    FunctionView,
    LogView,
    QueueView,
    RunDetail,
    RunView,
    StepView,
)
from holdfast.store.reads import FinishedStep as FinishedStepView
from holdfast.store.reads import LetterGroup as LetterGroupView

ACCOUNT_ID = "00000000-0000-4000-a000-000000000000"
ENVIRONMENT_ID = "00000000-0000-4000-b000-000000000000"
"""The protocol's fixed ids of a server that has one account and one environment (section 1.9)."""


class Metadata(Struct, frozen=True):
    """About the answer itself."""

    fetched_at: Annotated[str, Meta(description="When it was read, RFC 3339.")]
    cached_until: Annotated[str | None, Meta(description="Always null: nothing is cached.")] = None
    next_cursor: Annotated[
        str | None, Meta(description="Of lists: pass it as `cursor` to get the next page; null on the last.")
    ] = None


class Event(Struct, frozen=True, kw_only=True):
    """An accepted event."""

    internal_id: Annotated[str, Meta(description="The id it got when it was accepted, a ULID.")]
    account_id: str = ACCOUNT_ID
    environment_id: str = ENVIRONMENT_ID
    source: Annotated[str, Meta(description="`api`, or `function` when a run sent it.")]
    source_id: Annotated[str | None, Meta(description="The run that sent it.")]
    received_at: Annotated[str, Meta(description="RFC 3339.")]
    id: Annotated[str, Meta(description="The id its sender gave it, else the internal one.")]
    name: str
    data: Annotated[Raw, Meta(description="An object, as it was sent.")]
    user: Annotated[Any, Meta(description="What its sender said of the user, if anything.")] = None
    ts: Annotated[int, Meta(description="Milliseconds since 1970.")]
    v: str | None = None


class AuditEntry(Struct, frozen=True):
    """Something that was changed."""

    at: Annotated[str, Meta(description="RFC 3339.")]
    actor: Annotated[str, Meta(description="Who: a login or a key, told apart by a fingerprint.")]
    action: str
    target: str
    detail: str
    origin: Annotated[str, Meta(description="The address it came from, and by which way: dashboard, API or command line.")]


class Place(Struct, frozen=True):
    """Where a live run stands in the queue."""

    state: Annotated[str, Meta(description="ready, timed, leased or parked.")]
    due: str
    lane: str
    position: Annotated[int | None, Meta(description="Place in line, from 1.")]
    attempt: int
    crashes: int
    more_ahead: Annotated[bool, Meta(description="`position` was counted no further.")] = False
    rule: Annotated[
        str | None,
        Meta(
            description="What it waits at: concurrency, concurrency-2, run-concurrency, throttle, singleton, paused, or capacity "
            "when it is no rule but a busy node."
        ),
    ] = None
    key: Annotated[str | None, Meta(description="The value of the rule's key.")] = None
    used: Annotated[int | None, Meta(description="Places taken, of `limit`.")] = None
    limit: int | None = None
    until: Annotated[str | None, Meta(description="Of a throttle: about when it starts.")] = None


class RunProgress(Struct, frozen=True):
    """How far a run has said it is."""

    fraction: Annotated[float | None, Meta(description="From 0 to 1; null when it can't say.")]
    text: str
    at: Annotated[str, Meta(description="When it said so.")]


class Run(Struct, frozen=True, kw_only=True):
    """One execution of a function."""

    run_id: str
    status: Annotated[str, Meta(description="Queued, Running, Waiting, Completed, Failed, Cancelled or Skipped.")]
    function: Annotated[str, Meta(description="`<app>-<function>`.")]
    function_name: str
    app: str
    function_id: Annotated[str, Meta(description="The function's UUID in the Inngest protocol.")]
    environment_id: str = ENVIRONMENT_ID
    event_id: Annotated[str, Meta(description="Internal id of the event that started it.")]
    event_name: str
    batch_id: Annotated[str | None, Meta(description="Of the run of a batch: the batch, which has the run's id.")] = None
    original_run_id: Annotated[str | None, Meta(description="The run it repeats, for reruns and redrives.")]
    parent_run_id: Annotated[str | None, Meta(description="The run that invoked it.")]
    cron: Annotated[str | None, Meta(description="The schedule that started it, where it is known.")] = None
    origin: Annotated[str, Meta(description="event, invoke, rerun, redrive or cron.")]
    queued_at: Annotated[str, Meta(description="RFC 3339, as all moments here.")]
    run_started_at: Annotated[str, Meta(description="When it started; until then, when it was queued.")]
    started_at: str | None
    ended_at: str | None
    duration_ms: Annotated[int | None, Meta(description="From start to end.")]
    attempt: Annotated[int, Meta(description="Failed attempts of the function itself, outside steps.")]
    steps: Annotated[int, Meta(description="Steps recorded.")]
    function_version: Annotated[int, Meta(description="Version of the function's configuration that started it.")]
    error: Annotated[str | None, Meta(description="Class and first line of the last error.")]
    key: str | None
    reason: Annotated[str | None, Meta(description="Why it was cancelled or skipped, where a rule did it.")] = None
    batch: Annotated[int, Meta(description="How many events it has, if it is the run of a batch.")] = 0
    progress: Annotated[
        RunProgress | None, Meta(description="How far it has said it is, if it has; of a completed run, all.")
    ] = None
    queue: Annotated[
        Place | None, Meta(description="Its place in the queue, while it lives; only where a single run is read.")
    ] = None
    why: Annotated[
        list[str], Meta(description="Where it stands, in sentences; only where a single run is read.")
    ] = []
    output: Annotated[
        Raw | None, Meta(description="Return value once Completed; `{error: {name, message, stack}}` once Failed.")
    ] = None


class Job(Struct, frozen=True):
    """What is to be done for a run: moving it forward, or a step that is under way."""

    run_id: str
    step: Annotated[str | None, Meta(description="The step; null for the run itself.")]
    state: Annotated[str, Meta(description="ready, timed, leased or parked for the run; pending for a step.")]
    run_at: Annotated[str | None, Meta(description="Not before this moment.")]
    attempt: Annotated[int, Meta(description="Attempts that failed.")]


class FinishedStep(Struct, frozen=True):
    """A step that has finished, without its output."""

    id: str
    name: str
    kind: str
    state: Annotated[str, Meta(description="done or failed.")]
    number: Annotated[int, Meta(description="Its place among the run's finished steps, from 1.")]
    started_at: str
    ended_at: str | None
    failed_attempts: int


class Attempt(Struct, frozen=True):
    """A failed attempt."""

    attempt: Annotated[int, Meta(description="From 0.")]
    started_at: str
    ended_at: str
    retry_at: Annotated[str | None, Meta(description="When the next one is (was) due.")]
    error: dict[str, Any]
    input: Annotated[
        Raw | None,
        Meta(
            description="What the step's body got: a list, or {args, kwargs}; null where it has no JSON form or is large."
        ),
    ] = None


class Step(Struct, frozen=True, kw_only=True):
    """A step of a run."""

    id: Annotated[str, Meta(description="The step's id, with its index when it was used more than once.")]
    name: str
    kind: Annotated[str, Meta(description="run, sleep, wait_event, wait_signal, invoke, send, race, now, fetch, ai or send_signal.")]
    state: Annotated[str, Meta(description="done, failed or pending.")]
    started_at: str
    ended_at: str | None
    due: Annotated[str | None, Meta(description="While pending: its next attempt, wake-up or time-out.")]
    failed_attempts: int
    attempts: list[Attempt]
    output: Annotated[Raw | None, Meta(description="Its result; while pending, what it waits for, or `{input}` where that was edited.")]
    error: dict[str, Any] | None


class Cron(Struct, frozen=True, kw_only=True):
    """A schedule of a function."""

    function: Annotated[str, Meta(description="`<app>-<function>`.")]
    function_name: str
    app: str
    schedule: Annotated[str, Meta(description="With its zone: `TZ=Europe/Paris 0 9 * * *`.")]
    zone: Annotated[str, Meta(description="The IANA name of its time zone.")]
    next: Annotated[list[str], Meta(description="Its next five occurrences, before jitter.")]
    last_at: Annotated[str | None, Meta(description="The occurrence that fired last.")]
    missed: Annotated[int, Meta(description="Occurrences that passed without firing so far.")]
    jitter: Annotated[str | None, Meta(description="How much later an occurrence may fire, such as `30s`.")]
    catch_up: Annotated[str, Meta(description="After downtime: skip, once or all.")]
    paused: bool


class LogLine(Struct, frozen=True):
    """A line a run logged."""

    at: str
    level: str
    message: str
    step: str | None


class BatchEvent(Struct, frozen=True):
    """An event of a batch."""

    internal_id: str
    name: str
    received_at: str


class History(Struct, frozen=True, kw_only=True):
    """Everything recorded of a run."""

    run: Run
    event: Event | None
    steps: list[Step]
    attempts: Annotated[list[Attempt], Meta(description="Failed attempts of the function itself, outside steps.")]
    logs: list[LogLine]
    queue: Place | None
    children: list[Run]
    notes: Annotated[list[str], Meta(description="What the engine has to say: changed code, crashes.")]
    batch_events: Annotated[list[BatchEvent], Meta(description="The events of a batch, a thousand at most.")] = []


class DeadLetter(Struct, frozen=True):
    """A run that failed for good."""

    run_id: str
    function: str
    function_name: str
    event_name: str
    at: str
    fingerprint: Annotated[str, Meta(description="The same for letters of the same error.")]
    error: str
    state: Annotated[str, Meta(description="dead, redriven or discarded.")]
    redriven_as: str | None
    attempts: int


class LetterFunction(Struct, frozen=True):
    """A function within a group of dead letters."""

    function: Annotated[str, Meta(description="`<app>-<function>`.")]
    function_name: str
    count: int


class LetterGroup(Struct, frozen=True):
    """Dead letters of one error."""

    fingerprint: Annotated[str, Meta(description="The same for letters of the same error.")]
    error: Annotated[str, Meta(description="Class and first line, of the latest run among them.")]
    sample_run_id: Annotated[str, Meta(description="That run.")]
    count: int
    first_at: str
    last_at: str
    functions: Annotated[list[LetterFunction], Meta(description="What died of it, most often first.")]


class Function(Struct, frozen=True):
    """A registered function."""

    id: Annotated[str, Meta(description="Its UUID in the Inngest protocol.")]
    slug: Annotated[str, Meta(description="`<app>-<function>`.")]
    name: str
    app: str
    version: int
    archived: bool
    paused: bool
    pause: Annotated[str | None, Meta(description="How it is paused: hold, skip, or null.")]
    created_at: str
    config: Annotated[dict[str, Any], Meta(description="Triggers, retries and limits, as it registered.")]


class Alert(Struct, frozen=True):
    """A function that is past one of its thresholds."""

    function: Annotated[str, Meta(description="`<app>-<function>`.")]
    alert: Annotated[str, Meta(description="backlog, delay, failure_rate or dead_letters.")]
    value: Annotated[
        float, Meta(description="What was measured when it was raised: runs, seconds, a part of 1, dead letters.")
    ]
    threshold: float
    raised_at: str
    text: Annotated[str, Meta(description="The alert in a sentence.")]


class Application(Struct, frozen=True):
    """An application that is called over HTTP."""

    id: Annotated[str, Meta(description="Its UUID in the Inngest protocol.")]
    name: str
    url: str
    sdk: Annotated[str, Meta(description="`<language>:v<version>`.")]
    framework: str
    synced_at: str
    functions: int
    error: Annotated[str | None, Meta(description="Why it can't be reached or synced now.")]


class Started(Struct, frozen=True):
    """A run that a request made."""

    run_id: str


class Invoked(Struct, frozen=True):
    """The answer to an invocation."""

    id: Annotated[str, Meta(description="Internal id of the event made for it.")]
    run_id: str
    status: int = 200


class Accepted(Struct, frozen=True):
    """The answer of the event API."""

    ids: Annotated[
        list[str],
        Meta(description="Internal ids of the accepted events, in order; one empty text when there are none."),
    ]
    status: int
    error: Annotated[str | None, Meta(description="What is wrong with the first event that is not acceptable.")] = None
    code: Annotated[str | None, Meta(description="A stable name of that, for programs.")] = None


class KeyRefused(Struct, frozen=True):
    """The answer to an event key that is not known."""

    status: int = 401
    message: str = ""
    error: str = "Event key not found"


class Health(Struct, frozen=True):
    """Whether the server accepts work."""

    status: int
    message: str


# -- from the read model ---------------------------------------------------------------------------------------------


def _moment(ms: int) -> str:
    return iso(ms) or ""


def event_of(view: EventView) -> Event:
    """An event for the API."""
    return Event(
        internal_id=view.internal_id,
        source="function" if view.source_run else "api",
        source_id=view.source_run,
        received_at=_moment(view.received_at),
        id=view.id,
        name=view.name,
        data=Raw(view.data),
        user=view.meta.get("user"),
        ts=view.ts,
        v=_text(view.meta.get("v")),
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def progress_of(progress: Progress) -> RunProgress:
    """A run's progress for the API."""
    return RunProgress(progress.fraction, progress.text, _moment(progress.at))


def finished_step_of(step: FinishedStepView) -> FinishedStep:
    """A step for readers of a stream."""
    return FinishedStep(
        step.key, step.name, step.kind, step.state, step.seq, _moment(step.started_at), iso(step.ended_at), step.attempt
    )


def run_of(view: RunView, output: bytes | None = None) -> Run:
    """A run for the API."""
    repeats = view.origin in {"rerun", "redrive"}
    return Run(
        run_id=view.id,
        status=view.status.capitalize(),
        function=view.function,
        function_name=view.function_name,
        app=view.app,
        function_id=name_uuid(view.app, view.function),
        event_id=view.event_id,
        event_name=view.event_name,
        original_run_id=view.parent_id if repeats else None,
        parent_run_id=None if repeats else view.parent_id,
        origin=view.origin,
        queued_at=_moment(view.queued_at),
        run_started_at=_moment(view.queued_at if view.started_at is None else view.started_at),
        started_at=iso(view.started_at),
        ended_at=iso(view.ended_at),
        duration_ms=view.duration_ms,
        attempt=view.attempt,
        steps=view.steps,
        function_version=view.version,
        error=view.error,
        key=view.key,
        reason=view.reason,
        progress=None if view.progress is None else progress_of(view.progress),
        batch=view.batch,
        batch_id=view.id if view.batch else None,
        output=None if output is None else Raw(output),
    )


class _Tick(Struct):
    cron: str | None = None


def full_run_of(detail: RunDetail, now: int) -> Run:
    """A run with its output, or its error in the place of it, and where it stands."""
    output = detail.output
    if output is None and detail.error is not None:
        output = msgspec.json.encode({"error": detail.error})
    run = msgspec.structs.replace(
        run_of(detail.run, output),
        queue=None if detail.queue is None else place_of(detail.queue),
        why=standing(detail, now),
    )
    if detail.run.origin == "cron" and detail.event is not None:
        run = msgspec.structs.replace(run, cron=msgspec.json.decode(detail.event.data, type=_Tick).cron)
    return run


def history_of(detail: RunDetail, now: int) -> History:
    """Everything about a run for the API."""
    return History(
        run=full_run_of(detail, now),
        event=None if detail.event is None else event_of(detail.event),
        steps=[step_of(step) for step in detail.steps if step.kind != "end"],
        attempts=[attempt_of(item) for item in detail.function_attempts],
        logs=[log_of(line) for line in detail.logs],
        queue=None if detail.queue is None else place_of(detail.queue),
        children=[run_of(child) for child in detail.children],
        notes=list(detail.notes),
        batch_events=[BatchEvent(one.event_id, one.name, _moment(one.at)) for one in detail.batch_events],
    )


def step_of(view: StepView) -> Step:
    """A step for the API."""
    return Step(
        id=view.key,
        name=view.name,
        kind=view.kind,
        state=view.state,
        started_at=_moment(view.started_at),
        ended_at=iso(view.ended_at),
        due=iso(view.due),
        failed_attempts=view.attempt,
        attempts=[attempt_of(item) for item in view.attempts],
        output=None if view.data is None or view.state == "failed" else Raw(view.data),
        error=view.error,
    )


def jobs_of(detail: RunDetail) -> list[Job]:
    """What is to be done for a run."""
    run_id, queue = detail.run.id, detail.queue
    own = [] if queue is None else [Job(run_id, None, queue.state, iso(queue.due or None), queue.attempt)]
    pending = [step for step in detail.steps if step.state == "pending"] if queue is not None else []
    return own + [Job(run_id, step.key, step.state, iso(step.due), step.attempt) for step in pending]


def attempt_of(view: AttemptView) -> Attempt:
    """A failed attempt for the API."""
    return Attempt(
        view.attempt,
        _moment(view.started_at),
        _moment(view.ended_at),
        iso(view.retry_at),
        view.error,
        None if view.input is None else Raw(view.input),
    )


def log_of(view: LogView) -> LogLine:
    """A log line for the API."""
    return LogLine(_moment(view.at), view.level, view.message, view.step)


def place_of(view: QueueView) -> Place:
    """A place in the queue for the API."""
    gate = view.gate
    place = Place(
        view.state, _moment(view.due), view.lane, view.position, view.attempt, view.crashes, view.more_ahead
    )
    if gate is None:
        return place
    return msgspec.structs.replace(
        place, rule=gate.rule, key=gate.key or None, used=gate.used, limit=gate.limit, until=iso(gate.until)
    )


def dead_letter_of(view: DeadLetterView) -> DeadLetter:
    """A dead letter for the API."""
    return DeadLetter(
        view.run_id,
        view.function,
        view.function_name,
        view.event_name,
        _moment(view.at),
        view.fingerprint,
        view.error,
        view.state,
        view.redriven_as,
        view.attempts,
    )


def letter_group_of(view: LetterGroupView) -> LetterGroup:
    """A group of dead letters for the API."""
    return LetterGroup(
        view.fingerprint,
        view.error,
        view.sample,
        view.count,
        _moment(view.first_at),
        _moment(view.last_at),
        [LetterFunction(*function) for function in view.functions],
    )


def alert_of(alert: dict[str, Any]) -> Alert:
    """An alert for the API."""
    moment = _moment(alert["raised_at"])
    return Alert(alert["function"], alert["alert"], alert["value"], alert["threshold"], moment, alert["text"])


def function_of(view: FunctionView) -> Function:
    """A function for the API."""
    return Function(
        name_uuid(view.app, view.slug),
        view.slug,
        view.name,
        view.app,
        view.version,
        view.archived,
        view.paused,
        view.pause,
        _moment(view.created_at),
        view.config,
    )


def cron_of(view: CronView, function: FunctionView, zone: str, coming: Sequence[int]) -> Cron:
    """A schedule for the API."""
    triggers = function.config.get("triggers")
    found = [t for t in triggers if t.get("cron") == view.schedule] if isinstance(triggers, list) else []
    trigger = found[0] if found else {}
    return Cron(
        function=view.function,
        function_name=function.name,
        app=function.app,
        schedule=view.schedule,
        zone=zone,
        next=[_moment(at) for at in coming],
        last_at=iso(view.last_at),
        missed=view.missed,
        jitter=trigger.get("jitter"),
        catch_up=trigger.get("catchUp", "once"),
        paused=view.paused,
    )
