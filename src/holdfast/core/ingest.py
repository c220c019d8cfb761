"""Accepting events: which runs they start, which waits they end, and why some start nothing. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from holdfast.base.codec import decode_json
from holdfast.base.ids import ulid_text
from holdfast.base.limits import EVENT_ID_WINDOW_MS
from holdfast.core.expressions import compile_expression
from holdfast.core.plan import Plan, Read, Tx, WaitsFor
from holdfast.core.queue import Leased, lease, line_up
from holdfast.core.rows import (
    DedupeRow,
    EventRow,
    ItemRow,
    ItemState,
    RunRow,
    RunStatus,
    SkipRow,
    StepRow,
    StepState,
    WaitRow,
)

replace = msgspec.structs.replace


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


class Accepted(msgspec.Struct, gc=False):
    """What became of the events of one call."""

    duplicates: list[bool]
    leased: list[Leased]
    resolved: list[Resolved]
    runs: list[bytes]
    """The runs started or, for duplicates, those that stand in their place; in the order of the matches."""

    due: int | None = None
    """When the earliest of the runs that are to start later is due."""

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
        if event.key is not None:
            reads.extend((DedupeRow, (match.function_id, event.key)) for match in one.matches)
        if one.seeded:
            reads.append((EventRow, event.id))
        if one.lookups:
            reads.append(WaitsFor(one.lookups))
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
    due = event.ts if event.ts > now else 0
    if due and incoming.matches and (out.due is None or due < out.due):
        out.due = due
    deduplicated = 0
    for match in incoming.matches:
        if event.key is not None:
            known = tx.get(DedupeRow, (match.function_id, event.key))
            if known is not None and known.expires > now:
                tx.put(SkipRow(event.id, match.function_id, "duplicate event id", known.run_id, now))
                out.runs.append(known.run_id)
                deduplicated += 1
                continue
            tx.put(DedupeRow(match.function_id, event.key, match.run_id, now + EVENT_ID_WINDOW_MS))
        start_run(tx, match, event, due, out.leased)
        out.runs.append(match.run_id)
    for function_id in incoming.filtered:
        tx.put(SkipRow(event.id, function_id, "trigger expression did not hold", None, now))
    out.duplicates.append(deduplicated > 0 and deduplicated == len(incoming.matches))
    if incoming.lookups:
        _resolve_waits(tx, event, incoming.lookups, out)


def start_run(tx: Tx, match: Match, event: EventRow, due: int, leased: list[Leased]) -> RunRow:
    """Make a run and its item; leased at once where there is room."""
    now = tx.now
    direct = due <= now and tx.room > 0 and not tx.backlog and match.function_id in tx.functions
    run = RunRow(
        match.run_id,
        match.function_id,
        event.id,
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
    rank = now - match.priority * 1000
    if direct:
        # the insert is the claim
        tx.room -= 1
        item = ItemRow(run.id, run.id, ItemState.LEASED, match.lane, rank, due, tx.owner, 1)
        leased.append(Leased(run, item, event))
        tx.insert(item)
    else:
        item = ItemRow(run.id, run.id, ItemState.TIMED if due > now else ItemState.READY, match.lane, rank, due)
        tx.insert(item)
        if due <= now:
            line_up(tx, item)
    tx.insert(run)
    return run


def event_json(event: EventRow) -> bytes:
    """The event as functions on the wire and waits see it: `{name, data, id, ts}`."""
    return msgspec.json.encode(
        {"name": event.name, "data": msgspec.Raw(event.data), "id": event.key or ulid_text(event.id), "ts": event.ts}
    )


def _resolve_waits(tx: Tx, event: EventRow, lookups: tuple[str, ...], out: Accepted) -> None:
    body: bytes | None = None
    for wait in tx.find(WaitsFor(lookups)):
        if wait.expires is not None and wait.expires <= tx.now:
            continue
        body = body or event_json(event)
        if matches(wait, body):
            resolve(tx, wait, body, None, out)


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
    if item.state == ItemState.LEASED:
        item.woken += 1
        out.resolved.append(Resolved(run.id, done))
    elif item.state != ItemState.READY:
        item = replace(item, rank=tx.now - run.priority * 1000, due=0)
        if tx.room > 0 and not tx.backlog and not item.crashes and run.function_id in tx.functions:
            lease(tx, run, item, out.leased)
        else:
            line_up(tx, item)
            tx.put(run)


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
