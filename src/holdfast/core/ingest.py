"""Accepting events: which runs they start, which waits they end, and why some start nothing. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from holdfast.base.codec import decode_json
from holdfast.base.duration import duration_text
from holdfast.base.ids import ulid_text
from holdfast.base.limits import EVENT_ID_WINDOW_MS
from holdfast.core.admission import Admission, Decision, admission_reads, decide
from holdfast.core.expressions import compile_expression
from holdfast.core.flow import key_of_lane
from holdfast.core.gates import NO_GATES, gate_reads, shut, take
from holdfast.core.plan import Plan, Read, Tx, WaitsFor
from holdfast.core.progress import NEW_REMOTE, step_settled
from holdfast.core.queue import Leased, line_up, set_alarms, set_going
from holdfast.core.rows import (
    AlarmKind,
    AlarmRow,
    DedupeRow,
    EventRow,
    ItemRow,
    ItemState,
    LaneRow,
    MatchedWaitRow,
    RunRow,
    RunStatus,
    SkipRow,
    StepRow,
    StepState,
    WaitRow,
)

replace = msgspec.structs.replace

NO_RUN = b""
"""Stands in a dedupe row for the run of an event that started none."""
PAUSED = "the function is paused"
"""Why nothing starts of a function that is paused with `skip`."""
CANCEL_KEY = "\x01cancel:"
"""Begins the key of a wait that cancels its run instead of resolving a step; step ids don't begin so."""


class Match(msgspec.Struct, gc=False):
    """A function that an event is to start."""

    run_id: bytes
    function_id: int
    version: int
    lane: str
    priority: int = 0
    origin: int = 0
    parent_id: bytes | None = None
    parent_step: str | None = None
    admission: Admission | None = None
    """What the function's flow control says about the event; None where it has none."""
    remote: bool = False
    """Whether the run is executed by calling an application."""

    def watched(self) -> list[str]:
        """The lookups under which the run waits for events that cancel it."""
        return [] if self.admission is None else [watch.lookup for watch in self.admission.watches]


class Incoming(msgspec.Struct, gc=False):
    """An event with everything routing found out about it beforehand."""

    event: EventRow
    matches: Sequence[Match] = ()
    filtered: Sequence[int] = ()
    """Functions whose trigger's expression did not hold."""
    lookups: tuple[str, ...] = ()
    """What waits for it would be registered under; empty when certainly none is."""
    seeded: bool = False
    """Its internal id is the client's choice, so it may be here already."""
    deduplicated: bool = True
    """Whether its key starts each function once within the window."""

    @property
    def event_name(self) -> str:
        return self.event.name

    def route_by(self, paths: set[str]) -> bool:
        """See `Arrival.route_by`."""
        lookups = lookups_of(self.event, sorted(paths)) if paths else ()
        if set(lookups) <= set(self.lookups):
            return False
        self.lookups = lookups
        return True


class Resolved(msgspec.Struct, gc=False):
    """A step that got its result from outside while its run was in memory."""

    run_id: bytes
    step: StepRow
    epoch: int
    """The lease under which it was resolved."""
    woken: int
    """How many have been resolved in that lease, with this one."""


class Accepted(msgspec.Struct, gc=False):
    """What became of the events of one call."""

    duplicates: list[bool]
    leased: list[Leased]
    resolved: list[Resolved]
    runs: list[bytes]
    """The runs started or, for duplicates, those that stand in their place; in the order of the matches."""

    due: int | None = None
    """When the earliest of the runs that are to start later is due."""
    refused: list[str] = msgspec.field(default_factory=list)
    """Why runs were not started, in words."""

    def arm(self, due: int) -> None:
        """Something is due at this moment."""
        self.due = due if self.due is None else min(due, self.due)

    @classmethod
    def empty(cls) -> Accepted:
        return cls([], [], [], [])


class Ingest(Plan[Accepted]):
    """Accept events."""

    __slots__ = ("incoming", "size")
    patient = False

    def __init__(self, incoming: Sequence[Incoming], size: int) -> None:
        self.then = None
        self.incoming = incoming
        self.size = size  # type: ignore[misc]

    def arrivals(self) -> Sequence[Incoming]:
        return self.incoming

    def awaits(self) -> Sequence[str]:
        return watched(self.incoming)

    def reads(self) -> Iterable[Read]:
        return reads_of(self.incoming)

    def decide(self, tx: Tx) -> Accepted:
        out = Accepted.empty()
        for incoming in self.incoming:
            accept(tx, incoming, out)
        return out


def reads_of(incoming: Sequence[Incoming]) -> list[Read]:
    """The rows that accepting these events looks at."""
    reads: list[Read] = []
    for one in incoming:
        event = one.event
        if event.key is not None and one.deduplicated:
            reads.extend((DedupeRow, (match.function_id, event.key)) for match in one.matches)
        for match in one.matches:
            reads.append((LaneRow, match.lane))
            if match.admission is not None:
                reads.extend(match_reads(match, event.received_at))
        if one.seeded:
            reads.append((EventRow, event.id))
        if one.lookups:
            reads.append(WaitsFor(one.lookups))
    return reads


def watched(incoming: Iterable[Incoming]) -> list[str]:
    """The lookups under which runs that these events start wait for events that cancel them."""
    return [lookup for one in incoming for match in one.matches for lookup in match.watched()]


def match_reads(match: Match, now: int) -> list[Read]:
    """The rows that the flow control of a match looks at."""
    admission = match.admission
    if admission is None:
        return [(LaneRow, match.lane)]
    reads = admission_reads(match.function_id, admission, now)
    reads.extend(gate_reads(admission.gates))
    reads.append((LaneRow, match.lane))
    return reads


def accept(tx: Tx, incoming: Incoming, out: Accepted) -> None:
    """Accept one event within a plan."""
    event = incoming.event
    if incoming.seeded and tx.get(EventRow, event.id) is not None:
        out.duplicates.append(True)
        return
    if incoming.seeded:
        tx.insert(event)
    else:
        tx.append(event)
    now = tx.now
    deduplicated = 0
    for match in incoming.matches:
        if tx.paused and tx.paused.get(match.function_id) == "skip":
            _skip_run(tx, match, event, "paused", PAUSED, None, out)
            continue
        if event.key is not None and incoming.deduplicated:
            known = tx.get(DedupeRow, (match.function_id, event.key))
            if known is not None and known.expires > now:
                _answer_duplicate(tx, match, event, known.run_id, out)
                deduplicated += 1
                continue
        known_runs = len(out.runs)
        admit(tx, match, event, out)
        if event.key is not None and incoming.deduplicated:
            # a duplicate is answered with the run that it became, or became part of
            standing = out.runs[-1] if len(out.runs) > known_runs else NO_RUN
            tx.put(DedupeRow(match.function_id, event.key, standing, now + EVENT_ID_WINDOW_MS))
    for function_id in incoming.filtered:
        tx.put(SkipRow(event.id, function_id, "trigger expression did not hold", None, now))
    out.duplicates.append(deduplicated > 0 and deduplicated == len(incoming.matches))
    if incoming.lookups:
        _resolve_waits(tx, event, incoming.lookups, out)


def _answer_duplicate(tx: Tx, match: Match, event: EventRow, standing: bytes, out: Accepted) -> None:
    tx.put(SkipRow(event.id, match.function_id, "duplicate event id", standing or None, tx.now))
    if standing == NO_RUN:
        out.refused.append("an event with the same id came before, and a rule kept it from starting a run")
    else:
        out.runs.append(standing)


def admit_invoked(tx: Tx, match: Match, event: EventRow, out: Accepted) -> None:
    """Start a run that another run invokes, unless its function is paused so that nothing starts."""
    if tx.paused and tx.paused.get(match.function_id) == "skip":
        _skip_run(tx, match, event, "paused", PAUSED, None, out)
    else:
        admit(tx, match, event, out)


def admit(tx: Tx, match: Match, event: EventRow, out: Accepted) -> None:
    """Start a run for an event, unless the function's rules put it off or refuse it."""
    due = event.ts if event.ts > tx.now else 0
    admission = match.admission
    if admission is None:
        if due and (out.due is None or due < out.due):
            out.due = due
        start_run(tx, match, event, due, out.leased)
        out.runs.append(match.run_id)
        return
    invoked = match.origin == 1
    decision = decide(tx, match.function_id, match.run_id, event, due, admission, invoked=invoked)
    if decision.start:
        _start_admitted(tx, match, event, decision, out)
    elif decision.refused is not None:
        out.refused.append(decision.refused)
        if decision.skipped and admission.recorded:
            _skip_run(tx, match, event, "", decision.refused, decision.run_id, out)
            return
    if decision.run_id is not None:
        out.runs.append(decision.run_id)


def admit_gathered(tx: Tx, match: Match, event: EventRow, batch: int, out: Accepted) -> str | None:
    """Start the run of a debounce or a batch: what asks about single events has been asked. Why it doesn't start, if it doesn't."""
    admission = match.admission
    if admission is None:  # the function has no rules any more, or isn't part of this node
        start_run(tx, match, event, 0, out.leased, batch=batch)
        out.runs.append(match.run_id)
        return None
    admission.restarted = True
    decision = decide(tx, match.function_id, match.run_id, event, 0, admission)
    if decision.start:
        decision.batch = batch
        _start_admitted(tx, match, event, decision, out)
        out.runs.append(match.run_id)
        return None
    words = decision.refused or "refused"
    _skip_run(tx, match, event, "", words, decision.run_id, out)
    return words


def _start_admitted(tx: Tx, match: Match, event: EventRow, decision: Decision, out: Accepted) -> None:
    if decision.run_id is not None and decision.run_id != match.run_id:
        match = replace(match, run_id=decision.run_id)
    if decision.invoked:
        match = replace(match, origin=1)
    due = decision.due
    if due > tx.now and (out.due is None or due < out.due):
        out.due = due
    if decision.lane:
        match = _in_lane(match, decision.lane)
    start_run(tx, match, event, due, out.leased, event_id=decision.event_id, batch=decision.batch, after=decision.after)


def _in_lane(match: Match, lane: str) -> Match:
    """The match of a batch that is full: its keys are those of its first event, not of the one that filled it."""
    admission = match.admission
    assert admission is not None
    gates = admission.flow.gates(lane, started=False)
    return replace(match, lane=lane, admission=replace(admission, gates=gates))


def _skip_run(
    tx: Tx, match: Match, event: EventRow, reason: str, words: str, standing: bytes | None, out: Accepted
) -> None:
    """A run that is skipped is there to be seen (protocol section 2.5)."""
    now = tx.now
    if reason:
        tx.put(SkipRow(event.id, match.function_id, reason, match.run_id, now))
        out.refused.append(words)
    tx.append(
        RunRow(
            match.run_id, match.function_id, event.id, RunStatus.SKIPPED, now, None, now, match.lane, match.priority,
            match.version, match.parent_id, match.parent_step, match.origin, reason=words,
        )
    )  # fmt: skip
    if standing is not None:
        out.runs.append(standing)


def start_run(
    tx: Tx,
    match: Match,
    event: EventRow,
    due: int,
    leased: list[Leased],
    *,
    event_id: bytes | None = None,
    batch: int = 0,
    after: bool = False,
) -> RunRow:
    """Make a run and its item; leased at once where there is room.

    Args:
        tx: The overlay.
        match: The function, and the run's id.
        event: The event that came.
        due: When it is to start; the past for now.
        leased: Where it is added, if it is leased.
        event_id: The run's event, where it isn't that one.
        batch: How many events it has, if it is a batch.
        after: Whether it has to wait until the run before it has been cancelled.
    """
    now = tx.now
    admission = match.admission
    gates = NO_GATES if admission is None else admission.gates
    direct = due <= now and tx.room > 0 and not tx.backlog and match.function_id in tx.functions and not after
    if direct and gates:
        direct = tx.get(LaneRow, match.lane) is None and shut(tx, gates) is None
    run = RunRow(
        match.run_id,
        match.function_id,
        event.id if event_id is None else event_id,
        RunStatus.RUNNING if direct else RunStatus.QUEUED,
        now,
        now if direct else None,
        None,
        match.lane,
        match.priority,
        match.version,
        match.parent_id,
        match.parent_step,
        match.origin,
    )
    rank = max(now, due) - match.priority * 1000
    if direct:
        # the insert is the claim
        tx.room -= 1
        held = take(tx, gates) if gates else ""
        item = ItemRow(run.id, run.id, ItemState.LEASED, match.lane, rank, due, tx.owner, 1, held=held)
        leased.append(Leased(run, item, None if batch else event))
        tx.insert(item)
    else:
        state = ItemState.PARKED if after else ItemState.TIMED if due > now else ItemState.READY
        item = ItemRow(run.id, run.id, state, match.lane, rank, due)
        tx.insert(item)
        if state == ItemState.READY:
            line_up(tx, item, run)
    run.batch = batch
    if match.remote:
        run.remote = NEW_REMOTE
    if admission is not None:
        run.key = key_of_lane(match.lane)
        _watch_over(tx, run, admission, max(now, due), direct=direct)
    tx.insert(run)
    return run


def _watch_over(tx: Tx, run: RunRow, admission: Admission, due: int, *, direct: bool) -> None:
    """What may cancel the run: events, and its timeouts, which count from when it is due."""
    for number, watch in enumerate(admission.watches):
        expires = None if watch.timeout is None else due + watch.timeout
        key = f"{CANCEL_KEY}{number}"
        tx.insert(WaitRow(run.id, key, watch.lookup, expires, watch.expression, watch.context, tx.now))
    flow = admission.flow
    if direct:
        set_alarms(tx, run)
    elif flow.start_timeout is not None:
        reason = f"timed out: it did not start within {duration_text(flow.start_timeout)}"
        tx.put(AlarmRow(run.id, AlarmKind.START, due + flow.start_timeout, reason))


def event_json(event: EventRow) -> bytes:
    """The event as functions on the wire and waits see it: `{name, data, id, ts}`, with `user` and `v` where it has them."""
    seen = {"name": event.name, "data": msgspec.Raw(event.data), "id": event.key or ulid_text(event.id), "ts": event.ts}
    if event.meta:
        meta = msgspec.json.decode(event.meta)
        seen |= {name: meta[name] for name in ("user", "v", "meta") if meta.get(name)}
    return msgspec.json.encode(seen)


def _resolve_waits(tx: Tx, event: EventRow, lookups: tuple[str, ...], out: Accepted) -> None:
    body: bytes | None = None
    for wait in tx.find(WaitsFor(lookups)):
        if wait.expires is not None and wait.expires <= tx.now:
            continue
        body = body or event_json(event)
        if not matches(wait, body):
            continue
        if wait.key.startswith(CANCEL_KEY):
            _cancel_soon(tx, wait, event)
        elif resolve(tx, wait, body, None, out):
            note_match(tx, wait, event)


def note_match(tx: Tx, wait: WaitRow, event: EventRow) -> None:
    """Keep on record whose wait an event ended."""
    tx.append(MatchedWaitRow(event.id, wait.run_id, wait.key, tx.now))


def _cancel_soon(tx: Tx, wait: WaitRow, event: EventRow) -> None:
    """An event cancels a run: not the one it has just started (protocol section 2.5)."""
    run = tx.get(RunRow, wait.run_id)
    if run is None or run.ended_at is not None or run.event_id == event.id:
        return
    tx.delete(WaitRow, (wait.run_id, wait.key))
    note_match(tx, wait, event)
    reason = f"cancelled by event {event.name} ({event.key or ulid_text(event.id)})"
    set_already = tx.get(AlarmRow, (run.id, int(AlarmKind.CANCEL)))
    follower = None if set_already is None else set_already.by
    tx.put(AlarmRow(run.id, AlarmKind.CANCEL, tx.now, reason, follower))


def matches(wait: WaitRow, body: bytes) -> bool:
    """Whether an event's JSON satisfies the part of a wait that isn't indexed."""
    if wait.expression is None:
        return True
    context = decode_json(wait.context) if wait.context else {}
    return compile_expression(wait.expression).matches(**{"event": context, "async": decode_json(body)})


def resolve(tx: Tx, wait: WaitRow, data: bytes | None, error: bytes | None, out: Accepted) -> bool:
    """Give a waiting step its result, once, and wake its run.

    Reads the run's RunRow, ItemRow and the StepRow, which a `WaitsFor` provides.
    """
    tx.delete(WaitRow, (wait.run_id, wait.key))
    step = tx.get(StepRow, (wait.run_id, wait.key))
    run = tx.get(RunRow, wait.run_id)
    if step is None or step.state != StepState.PENDING or run is None or run.ended_at is not None:
        return False
    run.steps += 1
    state = StepState.DONE if error is None else StepState.FAILED
    done = replace(step, state=state, seq=run.steps, ended_at=tx.now, due=None, data=data, error=error)
    tx.put(done)
    wake(tx, run, done, out)
    return True


def wake(tx: Tx, run: RunRow, done: StepRow, out: Accepted) -> None:
    """Let a run go on: tell its owner if it is leased, else give it a place."""
    item = tx.get(ItemRow, run.id)
    if item is None:
        return
    if run.remote is not None:
        step_settled(tx, run, item, done.key, out)
    elif item.state == ItemState.LEASED:
        item.woken += 1
        out.resolved.append(Resolved(run.id, done, item.epoch, item.woken))
    elif item.state != ItemState.READY:
        set_going(tx, run, replace(item, rank=tx.now - run.priority * 1000, due=0), out)


def lookups_of(event: EventRow, paths: Iterable[str]) -> tuple[str, ...]:
    """The lookups under which waits for an event would be registered, given the paths in use for its name."""
    out = []
    data = None
    for path in paths:
        if not path:
            out.append(event.name)
            continue
        if data is None:
            data = msgspec.json.decode(event.data)
        value = data
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is None or isinstance(value, str | int | float | bool):
            out.append(wait_lookup(event.name, path, value))
    return tuple(out)


def wait_lookup(name: str, path: str, value: object) -> str:
    """The lookup of a wait for an event whose data has a value at a path. 1 and 1.0 are the same value."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"{name}\0{path}\0{msgspec.json.encode(value).decode()}"
