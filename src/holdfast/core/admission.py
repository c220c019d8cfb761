"""Admitting an event to a function: the rules that may keep it from starting a run, or put the start off. Pure.

In this order: pause, event id, idempotency, rate limit, then batch or debounce, then singleton; concurrency and throttle wait in
the queue (core/gates.py). Whatever doesn't start a run leaves a row that says why.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from holdfast.base.duration import duration_text
from holdfast.base.ids import ulid_text
from holdfast.core.flow import Flow, Gate, window_id
from holdfast.core.flow_config import MAX_PRIORITY
from holdfast.core.keys import Subject
from holdfast.core.plan import Read, Tx
from holdfast.core.rows import (
    AlarmKind,
    AlarmRow,
    BatchEventRow,
    DedupeRow,
    EventRow,
    GatherKind,
    GatherRow,
    RunRow,
    SingletonRow,
    SkipRow,
    WindowRow,
)

replace = msgspec.structs.replace

IDEMPOTENCY = "\x01idempotency:"
"""Begins a dedupe key that a rule made; event ids are any text a sender chooses."""
MAX_MOMENTS = 64
"""Moments a rate limit remembers; of larger limits neighbours are counted together at the later one, which errs towards fewer."""


class Watch(msgspec.Struct, frozen=True, gc=False):
    """An event that cancels the run, as it is waited for."""

    lookup: str
    expression: str | None
    context: bytes | None
    timeout: int | None


class Admission(msgspec.Struct, gc=False):
    """What a function's rules say about one event, worked out before the plan."""

    flow: Flow
    gates: tuple[Gate, ...] = ()
    lane: str = ""
    idempotency: str | None = None
    window: str | None = None
    debounce: str | None = None
    batch: str | None = None
    singleton: str | None = None
    watches: tuple[Watch, ...] = ()
    restarted: bool = False
    """A rerun, redrive or fired gather: the rules for events have been asked already."""
    recorded: bool = True
    """Whether a refusal leaves a row: of a rerun whoever asked for it is told."""


class Decision(msgspec.Struct, gc=False):
    """What is to become of an event for a function."""

    run_id: bytes | None
    """The run that starts, or that stands in its place."""
    start: bool
    due: int = 0
    event_id: bytes | None = None
    """The run's event, where it isn't the one that came: the first of a batch."""
    batch: int = 0
    refused: str | None = None
    """Why nothing starts."""
    skipped: bool = False
    """Whether that leaves a run with status SKIPPED."""
    lane: str = ""
    """The run's lane, where it isn't that of the event that came: that of the first of a batch."""
    after: bool = False
    """It starts once the run before it has been cancelled."""
    invoked: bool = False
    """Whether other runs wait for its result."""


def work_out(flow: Flow, lane: str, subject: Subject, watches: Sequence[Watch]) -> Admission:
    """The keys of all rules for an event."""
    out = Admission(flow, flow.gates(lane, started=False), lane, watches=tuple(watches))
    rule = flow.idempotency
    if rule is not None:
        key = rule.key.text(subject)
        out.idempotency = None if key is None else IDEMPOTENCY + key
    if flow.rate_limit is not None:
        key = "" if flow.rate_limit.key is None else flow.rate_limit.key.text(subject)
        out.window = None if key is None else window_id(flow, key)
    if flow.debounce is not None:
        out.debounce = "" if flow.debounce.key is None else flow.debounce.key.text(subject) or ""
    batch = flow.batch
    if batch is not None and (batch.condition is None or batch.condition.holds(subject)):
        out.batch = "" if batch.key is None else batch.key.text(subject) or ""
    if flow.singleton is not None:
        out.singleton = "" if flow.singleton.key is None else flow.singleton.key.text(subject)
    return out


def priority_of(flow: Flow, subject: Subject) -> int:
    """Seconds by which a run goes ahead, within its bounds."""
    wanted = 0 if flow.priority is None else flow.priority.integer(subject)
    return max(-MAX_PRIORITY, min(wanted, MAX_PRIORITY))


def admission_reads(function_id: int, admission: Admission, now: int) -> list[Read]:
    """The rows that `decide` looks at, besides those of the gates."""
    reads: list[Read] = []
    rule = admission.flow.idempotency
    if admission.idempotency is not None and rule is not None and not admission.restarted:
        reads.extend(
            (DedupeRow, (function_id, key)) for key in _idempotency_keys(admission.idempotency, rule.window, now)
        )
    if admission.window is not None:
        reads.append((WindowRow, admission.window))
    if admission.debounce is not None:
        reads.append((GatherRow, (function_id, int(GatherKind.DEBOUNCE), admission.debounce)))
    if admission.batch is not None:
        reads.append((GatherRow, (function_id, int(GatherKind.BATCH), admission.batch)))
    if admission.singleton is not None:
        reads.append((SingletonRow, (function_id, admission.singleton)))
    return reads


def decide(
    tx: Tx, function_id: int, run_id: bytes, event: EventRow, due: int, admission: Admission, *, invoked: bool = False
) -> Decision:
    """Ask the rules, and record what they say. `run_id` is the id of the run, should there be a new one."""
    decision = _ask(tx, function_id, run_id, event, due, admission, invoked=invoked)
    if admission.idempotency is not None and decision.run_id != run_id and not admission.restarted:
        _correct_claim(tx, function_id, run_id, event, admission, decision)
    return decision


def _ask(
    tx: Tx, function_id: int, run_id: bytes, event: EventRow, due: int, admission: Admission, *, invoked: bool
) -> Decision:
    if not admission.restarted:
        decision = _idempotency(tx, function_id, run_id, event, admission) or _rate(tx, function_id, event, admission)
        if decision is not None:
            if not decision.start:
                return decision
            due = max(due, decision.due)
        if admission.batch is not None:
            return _gather_batch(tx, function_id, run_id, event, admission, admission.batch, invoked=invoked)
        if admission.debounce is not None:
            return _debounce(tx, function_id, run_id, event, due, admission, admission.debounce, invoked=invoked)
    return _singleton(tx, function_id, run_id, event, due, admission)


def _skip(tx: Tx, function_id: int, event: EventRow, reason: str, run_id: bytes | None, detail: str) -> None:
    tx.put(SkipRow(event.id, function_id, reason, run_id, tx.now, detail))


# -- idempotency ---------------------------------------------------------------------------------------------------------


def _idempotency_keys(key: str, window: int, now: int) -> tuple[str, str, str]:
    bucket = now // window
    return key, f"{key}\x01{bucket}", f"{key}\x01{bucket + 1}"


def _idempotency(tx: Tx, function_id: int, run_id: bytes, event: EventRow, admission: Admission) -> Decision | None:
    rule = admission.flow.idempotency
    if rule is None or admission.idempotency is None:
        return None
    now = event.received_at  # as when the plan named what it reads
    plain, this, following = _idempotency_keys(admission.idempotency, rule.window, now)
    shown = admission.idempotency.removeprefix(IDEMPOTENCY)
    if not rule.bucketed:
        return _claim_key(
            tx, function_id, plain, run_id, event, now + rule.window, f"once in 24 hours for key {shown!r}"
        )
    end = (now // rule.window + 1) * rule.window
    detail = f"once in {duration_text(rule.window)} for key {shown!r}"
    known = tx.get(DedupeRow, (function_id, this))
    if known is None or known.expires <= now or not rule.trailing:
        return _claim_key(tx, function_id, this, run_id, event, end, detail)
    standing = tx.get(RunRow, known.run_id)
    if standing is not None and standing.started_at is None and standing.ended_at is None:
        return _claim_key(
            tx, function_id, this, run_id, event, end, detail
        )  # it has not begun: it will see this event's effect
    refused = _claim_key(tx, function_id, following, run_id, event, end + rule.window, detail)
    return refused or Decision(run_id, start=True, due=end)


def _claim_key(
    tx: Tx, function_id: int, key: str, run_id: bytes, event: EventRow, expires: int, detail: str
) -> Decision | None:
    known = tx.get(DedupeRow, (function_id, key))
    if known is not None and known.expires > event.received_at:
        _skip(tx, function_id, event, "idempotency", known.run_id, detail)
        return Decision(known.run_id, start=False, refused="a run with the same idempotency key exists")
    tx.put(DedupeRow(function_id, key, run_id, expires))
    return None


def _correct_claim(
    tx: Tx, function_id: int, run_id: bytes, event: EventRow, admission: Admission, decision: Decision
) -> None:
    """A key names the run that its event has become part of; an event that starts nothing has not used its key up."""
    rule = admission.flow.idempotency
    assert rule is not None
    assert admission.idempotency is not None
    for key in _idempotency_keys(admission.idempotency, rule.window, event.received_at):
        claim = tx.get(DedupeRow, (function_id, key))
        if claim is None or claim.run_id != run_id:
            continue
        if decision.run_id is None or decision.refused is not None:
            tx.delete(DedupeRow, (function_id, key))
        else:
            tx.put(replace(claim, run_id=decision.run_id))


# -- rate limit ------------------------------------------------------------------------------------------------------------


def _rate(tx: Tx, function_id: int, event: EventRow, admission: Admission) -> Decision | None:
    rule = admission.flow.rate_limit
    if rule is None or admission.window is None:
        return None
    now = tx.now
    limit = admission.flow.limits.get(rule.name, rule.limit)
    row = tx.get(WindowRow, admission.window)
    moments = [] if row is None else msgspec.json.decode(row.moments, type=list[tuple[int, int]])
    moments = [(moment, count) for moment, count in moments if moment > now - rule.period]
    if sum(count for _, count in moments) >= limit:
        key = admission.window.partition(":")[2]
        detail = f"{limit} in {duration_text(rule.period)}" + (f" for key {key!r}" if key else "")
        _skip(tx, function_id, event, "rate limited", None, detail)
        return Decision(None, start=False, refused="rate limited")
    moments.append((now, 1))
    if len(moments) > MAX_MOMENTS:
        moments = _merge(moments)
    tx.put(WindowRow(admission.window, msgspec.json.encode(moments), now + rule.period))
    return None


def _merge(moments: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Count the two neighbours that are closest to each other together, at the later moment."""
    at = min(range(len(moments) - 1), key=lambda i: moments[i + 1][0] - moments[i][0])
    joined = (moments[at + 1][0], moments[at][1] + moments[at + 1][1])
    return [*moments[:at], joined, *moments[at + 2 :]]


# -- batch and debounce ------------------------------------------------------------------------------------------------------


def _gather_batch(
    tx: Tx, function_id: int, run_id: bytes, event: EventRow, admission: Admission, key: str, *, invoked: bool
) -> Decision:
    rule = admission.flow.batch
    assert rule is not None
    kind = int(GatherKind.BATCH)
    open_batch = tx.get(GatherRow, (function_id, kind, key))
    now = tx.now
    if open_batch is None:
        lane = admission.lane
        open_batch = GatherRow(
            function_id, kind, key, run_id, event.id, event.ts, now, now + rule.timeout, 0, 0, lane=lane
        )
    batch = replace(
        open_batch,
        count=open_batch.count + 1,
        bytes=open_batch.bytes + len(event.data),
        invoked=int(open_batch.invoked or invoked),
    )
    tx.append(BatchEventRow(batch.run_id, batch.count, event.id))
    if batch.count < rule.max_size and batch.bytes < rule.max_bytes:
        tx.put(batch)
        return Decision(batch.run_id, start=False, due=batch.due)
    tx.delete(GatherRow, (function_id, kind, key))
    return Decision(
        batch.run_id,
        start=True,
        event_id=batch.event_id,
        batch=batch.count,
        lane=batch.lane,
        invoked=bool(batch.invoked),
    )


def _debounce(
    tx: Tx, function_id: int, run_id: bytes, event: EventRow, due: int, admission: Admission, key: str, *, invoked: bool
) -> Decision:
    rule = admission.flow.debounce
    assert rule is not None
    kind = int(GatherKind.DEBOUNCE)
    now = tx.now
    due = max(due, now + rule.period)
    waiting = tx.get(GatherRow, (function_id, kind, key))
    detail = f"{duration_text(rule.period)} of quiet" + (f" for key {key!r}" if key else "")
    if waiting is None:
        if rule.timeout is not None:
            due = min(due, now + rule.timeout)
        size = len(event.data)
        tx.put(GatherRow(function_id, kind, key, run_id, event.id, event.ts, now, due, 1, size, int(invoked)))
        _skip(tx, function_id, event, "debounced", run_id, detail)
        return Decision(run_id, start=False, due=due)
    if rule.timeout is not None:
        due = min(due, waiting.first_at + rule.timeout)
    count = waiting.count + 1
    invoked = invoked or bool(waiting.invoked)
    if event.ts < waiting.ts:
        _skip(tx, function_id, event, "debounced away", waiting.run_id, f"a newer event waits; {detail}")
        tx.put(replace(waiting, count=count, invoked=int(invoked)))
        return Decision(waiting.run_id, start=False, due=waiting.due)
    tx.put(
        SkipRow(
            waiting.event_id,
            function_id,
            "debounced away",
            waiting.run_id,
            now,
            f"a later event took its place; {detail}",
        )
    )
    _skip(tx, function_id, event, "debounced", waiting.run_id, detail)
    tx.put(
        replace(
            waiting, event_id=event.id, ts=event.ts, due=due, count=count, bytes=len(event.data), invoked=int(invoked)
        )
    )
    return Decision(waiting.run_id, start=False, due=due)


# -- singleton ---------------------------------------------------------------------------------------------------------------


def _singleton(tx: Tx, function_id: int, run_id: bytes, event: EventRow, due: int, admission: Admission) -> Decision:
    rule = admission.flow.singleton
    if rule is None or admission.singleton is None:
        return Decision(run_id, start=True, due=due)
    key = (function_id, admission.singleton)
    row = tx.get(SingletonRow, key)
    holder = _live(tx, None if row is None else row.run_id)
    if holder is not None and rule.mode == "skip":
        if admission.recorded:
            detail = f"key {admission.singleton!r}" if admission.singleton else ""
            _skip(tx, function_id, event, "singleton", holder.id, detail)
        return Decision(holder.id, start=False, refused="another run of this singleton is live", skipped=True)
    # a holder that hasn't begun waits for the one before it, and so does whoever takes the holder's place
    first = _live(tx, None if row is None else row.before) or holder
    reason = f"a newer run of the singleton took its place: {ulid_text(run_id)}"
    if first is not None:
        tx.put(AlarmRow(first.id, AlarmKind.CANCEL, tx.now, reason, run_id))
    if holder is not None and holder is not first:
        tx.put(AlarmRow(holder.id, AlarmKind.CANCEL, tx.now, reason))
    tx.put(SingletonRow(*key, run_id, None if first is None else first.id))
    return Decision(run_id, start=True, due=due, after=first is not None)


def _live(tx: Tx, run_id: bytes | None) -> RunRow | None:
    run = None if run_id is None else tx.get(RunRow, run_id)
    return run if run is not None and run.ended_at is None else None
