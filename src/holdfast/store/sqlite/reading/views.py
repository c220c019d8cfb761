"""From rows of the statements to the views of the read model."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from holdfast.base.codec import decode_json
from holdfast.base.ids import ulid_bytes, ulid_text
from holdfast.core.ingest import CANCEL_KEY
from holdfast.core.reporting import Progress
from holdfast.core.rows import ItemState, RunStatus, StepKind, StepState
from holdfast.store.flow_reads import GateView
from holdfast.store.reads import (
    AttemptView,
    AuditView,
    BulkView,
    CronView,
    DeadLetterView,
    EventView,
    FinishedStep,
    FunctionView,
    LogView,
    MatchedWaitView,
    QueueView,
    RunView,
    SkipView,
    StepView,
    WaitView,
)
from holdfast.store.sqlite.reading.compiled import PAUSES
from holdfast.store.sqlite.reading.statements import WAITING

SqlRow: TypeAlias = tuple[Any, ...]

STATUS_NAMES = {status.value: status.name for status in RunStatus} | {WAITING: "WAITING"}
BULK_STATES = ("running", "done", "cancelled")
LETTER_STATES = ("dead", "redriven", "discarded")
_ORIGINS = ("event", "invoke", "rerun", "redrive", "cron")
_LEVELS = ((50, "critical"), (40, "error"), (30, "warning"), (20, "info"))


def raw_id(text: str) -> bytes | None:
    """The bytes of an id, or None for text that can't be one, which therefore finds nothing."""
    try:
        return ulid_bytes(text)
    except ValueError:
        return None


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else ulid_text(raw)


def _object(raw: bytes | str) -> dict[str, object]:
    """A JSON object; what is something else, or no JSON, is shown as a message rather than hidden."""
    try:
        value = decode_json(raw)
    except msgspec.DecodeError:
        value = raw if isinstance(raw, str) else raw.decode(errors="replace")
    return value if isinstance(value, dict) else {"name": "Error", "message": str(value)}


def function_view(row: SqlRow) -> FunctionView:
    function_id, app, slug, name, version, config, archived, paused, created_at = row
    return FunctionView(
        id=function_id,
        app=app,
        slug=slug,
        name=name,
        version=version,
        config=_object(config),
        archived=bool(archived),
        paused=bool(paused),
        created_at=created_at,
        pause=PAUSES[paused],
    )


def run_view(row: SqlRow) -> RunView:
    run_id, function_id, function, function_name, app, event_id, event_name, status, *rest = row
    queued_at, started_at, ended_at, attempt, steps, error, parent_id, origin, key, version, reason, batch, *said = rest
    name = STATUS_NAMES[status]
    return RunView(
        id=ulid_text(run_id),
        function_id=function_id,
        function=function,
        function_name=function_name,
        app=app,
        event_id=ulid_text(event_id),
        event_name=event_name,
        status=name,
        queued_at=queued_at,
        started_at=started_at,
        ended_at=ended_at,
        attempt=attempt,
        steps=steps,
        error=error,
        parent_id=_text(parent_id),
        origin=_ORIGINS[origin],
        key=key,
        version=version,
        reason=reason,
        batch=batch,
        progress=_progress(name, *said),
    )


def _progress(status: str, at: int | None, fraction: float | None, text: str) -> Progress | None:
    """What a run has said last; of one that is completed, all of it is done."""
    if at is None:
        return None
    return Progress(1.0 if status == "COMPLETED" else fraction, text, at)


def finished_step(row: SqlRow) -> FinishedStep:
    key, name, kind, state, seq, started_at, ended_at, attempt = row
    return FinishedStep(
        key=key,
        name=key if name is None else name,
        kind=StepKind(kind).name.lower(),
        state=StepState(state).name.lower(),
        seq=seq,
        started_at=started_at,
        ended_at=ended_at,
        attempt=attempt,
    )


def attempt_view(row: SqlRow) -> AttemptView:
    _, attempt, started_at, ended_at, retry_at, error, given = row
    return AttemptView(attempt, started_at, ended_at, retry_at, _object(error), given)


def step_view(row: SqlRow, attempts: tuple[AttemptView, ...]) -> StepView:
    key, name, kind, state, seq, started_at, ended_at, attempt, due, data, error, asked = row
    return StepView(
        key=key,
        name=key if name is None else name,
        kind=StepKind(kind).name.lower(),
        state=StepState(state).name.lower(),
        seq=seq,
        started_at=started_at,
        ended_at=ended_at,
        attempt=attempt,
        due=due,
        data=data,
        error=None if error is None else _object(error),
        attempts=attempts,
        asked=asked,
    )


def log_view(row: SqlRow) -> LogView:
    at, level, message, step = row
    return LogView(at, next((name for floor, name in _LEVELS if level >= floor), "debug"), message, step)


def queue_view(
    row: SqlRow, position: int | None, *, more_ahead: bool = False, gate: GateView | None = None
) -> QueueView:
    _, state, due, lane, _, attempt, crashes = row
    return QueueView(ItemState(state).name.lower(), due, lane, position, attempt, crashes, more_ahead, gate)


def event_view(row: SqlRow) -> EventView:
    event_id, key, name, ts, received_at, data, meta, source = row
    internal_id = ulid_text(event_id)
    return EventView(
        internal_id=internal_id,
        id=internal_id if key is None else key,
        name=name,
        ts=ts,
        received_at=received_at,
        data=data,
        meta={} if meta is None else _object(meta),
        source_run=_text(source),
    )


def skip_view(row: SqlRow) -> SkipView:
    function, reason, run_id, at, detail, until, key = row
    return SkipView(function, reason, _text(run_id), at, detail, until, key)


def matched_wait_view(row: SqlRow) -> MatchedWaitView:
    run_id, function, key, at = row
    return MatchedWaitView(ulid_text(run_id), function, None if key.startswith(CANCEL_KEY) else key, at)


def letter_view(row: SqlRow) -> DeadLetterView:
    run_id, function, function_name, event_name, at, fingerprint, error, state, redriven_as, attempts = row
    return DeadLetterView(
        run_id=ulid_text(run_id),
        function=function,
        function_name=function_name,
        event_name=event_name,
        at=at,
        fingerprint=fingerprint,
        error=error,
        state=LETTER_STATES[state],
        redriven_as=_text(redriven_as),
        attempts=attempts,
    )


def cron_view(row: SqlRow) -> CronView:
    function, schedule, next_at, last_at, missed, paused = row
    return CronView(function, schedule, next_at, last_at, missed, bool(paused))


def wait_view(row: SqlRow) -> WaitView:
    run_id, function, step, lookup, expression, expires, created_at = row
    return WaitView(ulid_text(run_id), function, step, lookup, expression, expires, created_at)


def bulk_view(row: SqlRow) -> BulkView:
    bulk_id, action, where, actor, state, *rest = row
    return BulkView(ulid_text(bulk_id), action, _object(where), actor, BULK_STATES[state], *rest)


def audit_view(row: SqlRow) -> AuditView:
    return AuditView(*row)
