"""The rows of the store, as the pure core sees them. One struct per table; a row is never changed in place.

Time is integer milliseconds since 1970, UTC. Ids are 16-byte ULIDs. JSON stays bytes until somebody asks for its content.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any, ClassVar

import msgspec

SUSPECT_LANE = "!suspect"
"""Where items wait whose executor died: one of them runs at a time, so that a poison run condemns only itself."""


class RunStatus(IntEnum):
    """Where a run is in its life (protocol section 2.5). WAITING is derived: a live run whose item is parked."""

    QUEUED = 0
    RUNNING = 1
    COMPLETED = 2
    FAILED = 3
    CANCELLED = 4
    SKIPPED = 5

    @property
    def ended(self) -> bool:
        return self >= RunStatus.COMPLETED


class ItemState(IntEnum):
    """Where a queue item is. An item that is done is no longer there."""

    READY = 0
    """Waits in its lane for a place."""
    TIMED = 1
    """Not before `due`."""
    LEASED = 2
    """Being executed by `owner` under `epoch`."""
    PARKED = 3
    """Waits for something without a time: an event, a signal, an invoked run, or the end of a pause."""


class StepState(IntEnum):
    """What is known of a step."""

    DONE = 0
    FAILED = 1
    """Failed for good; the run sees a StepError."""
    PENDING = 2
    """Registered (timer, wait, invoke) or between two attempts; not yet a result."""


class StepKind(IntEnum):
    """What a step row records (protocol section 2.3)."""

    RUN = 0
    SLEEP = 1
    WAIT_EVENT = 2
    WAIT_SIGNAL = 3
    INVOKE = 4
    SEND = 5
    RACE = 6
    NOW = 7
    END = 8
    """The function's own return value or final error; its key is empty."""
    FETCH = 9
    AI = 10
    SEND_SIGNAL = 11


class Row(msgspec.Struct, gc=False):
    """Base of all rows. Two counters of a leased run, `RunRow.steps` and `ItemRow.woken`, are kept in memory and may rise
    in place: gaps in them are harmless, and they are only written when the run leaves memory.
    """

    TABLE: ClassVar[str] = ""


class EventRow(Row):
    """An accepted event."""

    TABLE: ClassVar[str] = "events"
    id: bytes
    name: str
    ts: int
    received_at: int
    data: bytes
    key: str | None = None
    """The id the sender gave it; None when it gave none."""
    meta: bytes | None = None
    """JSON of user, v, meta and trace context, when there are any."""
    source: bytes | None = None
    """The run that sent it from a step, if one did."""


class RunRow(Row):
    """One execution of a function for one event (or batch)."""

    TABLE: ClassVar[str] = "runs"
    id: bytes
    function_id: int
    event_id: bytes
    status: int
    queued_at: int
    started_at: int | None = None
    ended_at: int | None = None
    lane: str = ""
    priority: int = 0
    """Seconds by which it goes ahead of others in its lane."""
    version: int = 1
    """Version of the function's configuration that started it."""
    parent_id: bytes | None = None
    """The run that invoked it, or that it is a rerun of; `origin` says which."""
    parent_step: str | None = None
    origin: int = 0
    """0 event, 1 invoke, 2 rerun, 3 redrive, 4 cron."""
    attempt: int = 0
    """Failed attempts of the function itself (outside steps) so far."""
    steps: int = 0
    """Number of recorded steps, kept when the run leaves memory or ends."""
    error: str | None = None
    """Class name and first line of the last error, for lists."""
    key: str | None = None
    """The concurrency or idempotency key value shown in lists."""
    batch: int = 0
    """How many events it has, if it is the run of a batch; they are in `batch_events`."""
    reason: str | None = None
    """Why it was cancelled or skipped, where a rule did it."""
    remote: str | None = None
    """Of a run executed by calling an application: where its protocol stands (`core.remote.Progress`), as JSON."""


class ItemRow(Row):
    """A queue item: somebody should move this run forward."""

    TABLE: ClassVar[str] = "queue"
    id: bytes
    """The run's id; for a step executed elsewhere (HTTP, Connect), the run's id and the step's hash."""
    run_id: bytes
    state: int
    lane: str
    rank: int
    """Order within the lane among READY items."""
    due: int
    """When TIMED: not before this moment."""
    owner: int = 0
    """The boot generation (SQLite) or node (PostgreSQL) that leases it."""
    epoch: int = 0
    """Rises with each lease; a report under an older epoch is refused."""
    attempt: int = 0
    crashes: int = 0
    """How often in a row its executor died without recording progress."""
    woken: int = 0
    """How much has resolved since it was leased, so that a release that doesn't know of all of it is refused."""
    held: str = ""
    """Ids of the gates it holds places of, a line each: those of its lease, and those of its run from start to end."""


class StepRow(Row):
    """The record of one step of a run."""

    TABLE: ClassVar[str] = "steps"
    run_id: bytes
    key: str
    """The step id with its repeat index (`id`, `id:1`, ...), or the hash an SDK reports."""
    seq: int
    """Order in which results were recorded within the run; replay releases them in this order."""
    state: int
    kind: int
    started_at: int
    ended_at: int | None = None
    attempt: int = 0
    """Attempts that failed before this state."""
    due: int | None = None
    """PENDING: next attempt, wake-up or time-out."""
    data: bytes | None = None
    """JSON of the result; for a PENDING step, of what it waits for."""
    error: bytes | None = None
    """JSON {name, message, stack, chain, data} of the final failure."""
    type: str | None = None
    """Tag of a result type that has no annotation to be read back by."""
    name: str | None = None
    """Display name where it differs from the key."""
    asked: bytes | None = None
    """JSON of what a wait or an invocation waited for: what `data` says while PENDING, kept beside the result."""


class AttemptRow(Row):
    """A failed attempt of a step (or of the function itself, key empty)."""

    TABLE: ClassVar[str] = "attempts"
    run_id: bytes
    key: str
    attempt: int
    started_at: int
    ended_at: int
    retry_at: int | None
    error: bytes
    input: bytes | None = None
    """JSON of the arguments of the step's body, where they have a JSON form that isn't large: a list of the positional
    ones, or {args, kwargs}."""


class WaitRow(Row):
    """An open wait of a run for an event, a signal, or an invoked run."""

    TABLE: ClassVar[str] = "waits"
    run_id: bytes
    key: str
    lookup: str
    """`event name` or `event name\\0path\\0JSON value`: the indexed part of the match."""
    expires: int | None
    expression: str | None = None
    """The part of the match that isn't indexed: CEL over `event` and `async`."""
    context: bytes | None = None
    """JSON of the triggering event, where the expression needs it."""
    created_at: int = 0


class DedupeRow(Row):
    """An id that has started a function within its window (promise 5)."""

    TABLE: ClassVar[str] = "dedupe"
    function_id: int
    key: str
    run_id: bytes
    expires: int


class OutboxRow(Row):
    """An event that a caller's transaction has written. PostgreSQL only: on SQLite that table is in the caller's file."""

    TABLE: ClassVar[str] = "outbox"
    id: bytes
    """The event's."""
    event: bytes
    """JSON, as `sdk.transactional` writes it."""


class SkipRow(Row):
    """Why an event did not start a function."""

    TABLE: ClassVar[str] = "skips"
    event_id: bytes
    function_id: int
    reason: str
    run_id: bytes | None
    """The run that stands in its place, where there is one."""
    at: int
    detail: str = ""
    """The rule with its figures and key."""


class MatchedWaitRow(Row):
    """An open wait that an event ended: a step of a run went on with it, or the run was cancelled by it."""

    TABLE: ClassVar[str] = "matched_waits"
    event_id: bytes
    run_id: bytes
    key: str
    """The waiting step, or the number of the run's cancelling event with its prefix."""
    at: int


class LaneRow(Row):
    """A lane that has items waiting. Lanes without are not there."""

    TABLE: ClassVar[str] = "lanes"
    lane: str
    turn: int
    """Lanes are served by rising turn; a served lane goes to the back."""
    blocked: int = 0
    """0 ready, 1 waits for a place at `gate`, 2 waits until `until`."""
    until: int = 0
    gate: str = ""
    """The gate it waits at."""


class LeaseCountRow(Row):
    """Places of a concurrency limit that leases hold. A store whose leases don't outlive the process need not write it."""

    TABLE: ClassVar[str] = "lease_counts"
    gate: str
    used: int


class RunCountRow(Row):
    """Places of a run concurrency limit, held by runs from their start to their end."""

    TABLE: ClassVar[str] = "run_counts"
    gate: str
    used: int


class ThrottleRow(Row):
    """Where a throttle stands (GCRA)."""

    TABLE: ClassVar[str] = "throttles"
    gate: str
    tat: int
    """The theoretical arrival time of the next start, in microseconds since 1970."""


class WindowRow(Row):
    """What a rate limit has let pass within its period."""

    TABLE: ClassVar[str] = "windows"
    gate: str
    moments: bytes
    """JSON `[[moment, count], ...]`, oldest first."""
    expires: int


class SingletonRow(Row):
    """The live run of a singleton key. A run that has ended holds nothing, whatever stands here."""

    TABLE: ClassVar[str] = "singletons"
    function_id: int
    key: str
    run_id: bytes
    before: bytes | None = None
    """The run it takes the place of, which may be live until it has been cancelled."""


class GatherKind(IntEnum):
    """Why events wait before they start a run."""

    DEBOUNCE = 0
    BATCH = 1


class GatherRow(Row):
    """Events that wait to become one run: debounced, or gathered to a batch."""

    TABLE: ClassVar[str] = "gathers"
    function_id: int
    kind: int
    key: str
    run_id: bytes
    """The id its run will have."""
    event_id: bytes
    """Debounce: the event that is to start the run. Batch: the first."""
    ts: int
    """That event's time: an older one doesn't take its place."""
    first_at: int
    due: int
    """When the run starts unless something comes before."""
    count: int
    bytes: int
    invoked: int = 0
    """Whether other runs wait for its result."""
    lane: str = ""
    """Batch: the lane of its first event, which is its run's."""


class BatchEventRow(Row):
    """An event's place in a batch."""

    TABLE: ClassVar[str] = "batch_events"
    run_id: bytes
    position: int
    event_id: bytes


class AlarmKind(IntEnum):
    """What is to happen to a run at a moment."""

    START = 0
    """It is cancelled unless it has started."""
    FINISH = 1
    """It is cancelled unless it has ended."""
    CANCEL = 2
    """It is cancelled: an event or a newer run said so."""


class AlarmRow(Row):
    """A moment at which a run is cancelled, by a timeout or by what has come in."""

    TABLE: ClassVar[str] = "alarms"
    run_id: bytes
    kind: int
    at: int
    reason: str
    by: bytes | None = None
    """The run that may start once this one is cancelled."""


class DeadLetterRow(Row):
    """A run that failed for good and can be redriven."""

    TABLE: ClassVar[str] = "dead_letters"
    run_id: bytes
    function_id: int
    at: int
    fingerprint: str
    """Groups letters of the same error."""
    error: str
    state: int = 0
    """0 dead, 1 redriven, 2 discarded."""
    redriven_as: bytes | None = None
    resolved_at: int | None = None


class CronRow(Row):
    """A schedule of a function and where it stands."""

    TABLE: ClassVar[str] = "crons"
    function_id: int
    schedule: str
    next_at: int
    last_at: int | None = None
    missed: int = 0
    """Occurrences skipped by the catch-up policy so far."""


class CronFireRow(Row):
    """A cron occurrence that has been decided; unique, so that it happens at most once."""

    TABLE: ClassVar[str] = "cron_fires"
    function_id: int
    schedule: str
    occurrence: int
    run_id: bytes | None
    """None when catch-up skipped it."""
    at: int


class LogRow(Row):
    """A line a function logged."""

    TABLE: ClassVar[str] = "logs"
    run_id: bytes
    seq: int
    at: int
    level: int
    message: str
    step: str | None = None


class NoteRow(Row):
    """Something the engine has to say about a run: changed code, a crash, an abandoned step."""

    TABLE: ClassVar[str] = "notes"
    run_id: bytes
    seq: int
    at: int
    text: str


class ProgressRow(Row):
    """How far a run has said it is: the latest."""

    TABLE: ClassVar[str] = "progress"
    run_id: bytes
    at: int
    fraction: float | None
    """From 0 to 1, where it is known."""
    text: str


class AlertRow(Row):
    """An alert that is on."""

    TABLE: ClassVar[str] = "alerts"
    function_id: int
    kind: str
    """backlog, delay, failure_rate or dead_letters."""
    raised_at: int
    value: float
    """What was measured when it was raised."""
    threshold: float


class AuditRow(Row):
    """Something a person or key changed."""

    TABLE: ClassVar[str] = "audit"
    id: bytes
    at: int
    actor: str
    action: str
    target: str
    detail: str = ""
    origin: str = ""
    """The address it came from, and by which way."""


class BulkState(IntEnum):
    """Where a bulk operation is."""

    RUNNING = 0
    DONE = 1
    CANCELLED = 2


class BulkRow(Row):
    """One action on all runs that a filter matches, carried out in slices from the newest run to the oldest."""

    TABLE: ClassVar[str] = "bulk_operations"
    id: bytes
    action: str
    """cancel, rerun, redrive or discard."""
    filter: bytes
    """JSON of which runs."""
    actor: str
    created_at: int
    state: int = BulkState.RUNNING
    rate: str | None = None
    """How many runs in how much time at most, such as 10/s; None: as fast as the node has room."""
    total: int = 0
    """How many runs matched when it began."""
    done: int = 0
    skipped: int = 0
    """There was nothing to do any more: the run had ended, or was redriven already."""
    failed: int = 0
    error: str | None = None
    """Why the last of those that failed did."""
    cursor: bytes = b""
    """The last run looked at; it goes on below. At first the operation's own id, so that no later run is in it."""
    ended_at: int | None = None


def row_key(row: Row) -> object:
    """The primary key of a row, as the overlay uses it."""
    return KEYS[type(row)](row)


KEYS: dict[type[Row], Callable[[Any], Any]] = {
    EventRow: lambda r: r.id,
    RunRow: lambda r: r.id,
    ItemRow: lambda r: r.id,
    StepRow: lambda r: (r.run_id, r.key),
    AttemptRow: lambda r: (r.run_id, r.key, r.attempt),
    WaitRow: lambda r: (r.run_id, r.key),
    DedupeRow: lambda r: (r.function_id, r.key),
    OutboxRow: lambda r: r.id,
    SkipRow: lambda r: (r.event_id, r.function_id),
    MatchedWaitRow: lambda r: (r.event_id, r.run_id, r.key),
    LaneRow: lambda r: r.lane,
    DeadLetterRow: lambda r: r.run_id,
    CronRow: lambda r: (r.function_id, r.schedule),
    CronFireRow: lambda r: (r.function_id, r.schedule, r.occurrence),
    LogRow: lambda r: (r.run_id, r.seq),
    NoteRow: lambda r: (r.run_id, r.seq),
    ProgressRow: lambda r: r.run_id,
    AuditRow: lambda r: r.id,
    BulkRow: lambda r: r.id,
    LeaseCountRow: lambda r: r.gate,
    RunCountRow: lambda r: r.gate,
    ThrottleRow: lambda r: r.gate,
    WindowRow: lambda r: r.gate,
    SingletonRow: lambda r: (r.function_id, r.key),
    GatherRow: lambda r: (r.function_id, r.kind, r.key),
    BatchEventRow: lambda r: (r.run_id, r.position),
    AlarmRow: lambda r: (r.run_id, r.kind),
    AlertRow: lambda r: (r.function_id, r.kind),
}
