"""Plans: what one caller wants decided, as a pure function of rows and time.

A plan names the rows it reads; the store loads those of a whole group, runs the plans one after another over one
overlay, so that plans of a group see each other, and writes the outcome once (docs/architecture.md, "Commits").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any, ClassVar, Final, Generic, Protocol, TypeAlias, TypeVar

import msgspec

from holdfast.core.flow import Flow
from holdfast.core.rows import KEYS, BatchEventRow, EventRow, ItemRow, ItemState, LaneRow, Row, StepRow, WaitRow

A = TypeVar("A")
R = TypeVar("R", bound=Row)

Get: TypeAlias = tuple[type[Row], Any]
"""One row by its primary key."""


class Find(msgspec.Struct, frozen=True, gc=False):
    """Base of reads that find rows by something other than their primary key. Hashable: asked once per group."""


class WaitsFor(Find, frozen=True, gc=False):
    """Open waits with one of these lookups (WaitRow)."""

    lookups: tuple[str, ...]


class WaitsOf(Find, frozen=True, gc=False):
    """Open waits of one run (WaitRow)."""

    run_id: bytes


class StepsOf(Find, frozen=True, gc=False):
    """Recorded and pending steps of one run (StepRow)."""

    run_id: bytes


class ItemsOf(Find, frozen=True, gc=False):
    """Queue items of one run (ItemRow)."""

    run_id: bytes


class EventsSince(Find, frozen=True, gc=False):
    """Events of one name received at or after a moment, oldest first (EventRow)."""

    name: str
    since: int


class LanesAt(Find, frozen=True, gc=False):
    """Lanes that wait at a gate (LaneRow): of many those that have waited longest, at least as many as the group has plans."""

    gate: str


class EventsOfBatch(Find, frozen=True, gc=False):
    """The events of a batch in their order (BatchEventRow)."""

    run_id: bytes


class DueTimers(Find, frozen=True, gc=False):
    """TIMED items that are due (ItemRow), at most `limit`, oldest first."""

    limit: int


class ReadyItems(Find, frozen=True, gc=False):
    """READY items of the lanes whose turn it is, lane by lane (ItemRow). `functions` are those that can run here."""

    limit: int
    functions: frozenset[int]
    suspect: bool
    """Whether a suspect may be claimed: at most one at a time is."""


Read: TypeAlias = Get | Find
_NO_FLOWS: Mapping[int, Flow] = {}
_NO_PAUSED: Mapping[int, str] = {}


class Change(IntEnum):
    """What is to be written of a row."""

    INSERT = 1
    """It must not be there yet; if it is, the plan is refused."""
    PUT = 2
    DELETE = 3


class Refused(msgspec.Struct, frozen=True, gc=False):
    """A plan that came too late or twice: expected, and an answer, not an error."""

    reason: str


STALE: Final = Refused("stale")
"""The lease is held by somebody else, or the run has ended."""
DUPLICATE: Final = Refused("duplicate")
"""A row that must be unique was there already."""


class Arrival(Protocol):
    """An event that a plan accepts, as a store of several nodes sees it."""

    @property
    def event_name(self) -> str: ...
    def route_by(self, paths: set[str]) -> bool:
        """Look up waits by these paths too; whether that is more than before."""
        ...


class Plan(Generic[A]):
    """Something to be decided in the next group commit."""

    __slots__ = ("answer", "future", "then")

    size: ClassVar[int] = 256
    """Rough bytes it holds until its commit, for bounding groups."""
    parts: ClassVar[int] = 1
    """How many plans it stands for: each may give places back."""
    patient: ClassVar[bool] = True
    """Whether it waits for a full disk to have room again. False where a caller is told, who can try again."""
    then: Callable[[Any], None] | None
    """Called with the answer after the commit, before whoever awaits the plan."""
    future: Any
    answer: Any

    def reads(self) -> Iterable[Read]:
        """The rows `decide` will look at."""
        raise NotImplementedError

    def arrivals(self) -> Sequence[Arrival]:
        """The events it accepts, for which runs may wait."""
        return ()

    def awaits(self) -> Sequence[str]:
        """The lookups under which it registers waits for events."""
        return ()

    def excludes(self) -> Sequence[str]:
        """Names that only one plan at a time may be about, whichever node decides it, as no row stands for them yet."""
        return ()

    def decide(self, tx: Tx) -> A | Refused:
        """The pure decision: reads and writes rows through `tx` only. May run again if its group has to be retried."""
        raise NotImplementedError


class Tx:
    """The overlay that the plans of one group share."""

    __slots__ = (
        "_appended",
        "_dirty",
        "_found",
        "_rows",
        "backlog",
        "flows",
        "functions",
        "now",
        "owner",
        "paused",
        "room",
        "scanned",
        "size",
    )

    def __init__(
        self,
        now: int,
        owner: int,
        room: int = 0,
        backlog: bool = False,
        functions: frozenset[int] = frozenset(),
        flows: Mapping[int, Flow] = _NO_FLOWS,
        paused: Mapping[int, str] = _NO_PAUSED,
    ) -> None:
        self.now = now
        self.functions = functions
        """Ids of the functions whose runs may be executed on this node now."""
        self.flows = flows
        """The flow control of the functions that have any."""
        self.paused = paused
        """Functions that start no runs, and what becomes of their events: `skip` or `hold`."""
        self.owner = owner
        """The boot generation or node that decides."""
        self.room = room
        """How many more runs this node can take."""
        self.backlog = backlog
        """Whether ready items wait, so that new ones have to queue behind them."""
        self.size = 64
        """How many lanes at a gate are looked at: more than this group can give places back."""
        self.scanned: dict[str, bool] = {}
        """Lanes that a ReadyItems looked into, and whether they may hold more than was read."""
        self._rows: dict[type[Row], dict[Any, Any]] = {cls: {} for cls in KEYS}
        self._dirty: dict[type[Row], dict[Any, Change]] = {}
        self._appended: dict[type[Row], list[Row]] = {}
        self._found: dict[Find, list[Any]] = {}

    # -- reading -----------------------------------------------------------------------------------------------------

    def get(self, cls: type[R], key: Any) -> R | None:
        """A row that was named in `reads`, with what earlier plans of the group made of it."""
        row: R | None = self._rows[cls].get(key)
        return row

    def loaded(self, cls: type[R]) -> list[R]:
        """The rows of a table that were read or written so far."""
        return [row for row in self._rows[cls].values() if row is not None]

    def found_before(self, read: Find) -> list[Any]:
        """The rows of a find that were on disk before this group, with what the group has made of them."""
        cls, matches = _MATCHES[type(read)]
        rows = self._rows[cls]
        key_of = KEYS[cls]
        current = (rows.get(key_of(row)) for row in self._found.get(read, ()))
        return [row for row in current if row is not None and matches(read, row, self.now)]

    def find(self, read: Find) -> list[Any]:
        """The rows of a find, with what earlier plans of the group made of them."""
        cls, matches = _MATCHES[type(read)]
        rows = self._rows[cls]
        key_of = KEYS[cls]
        out = []
        seen = set()
        for row in self._found.get(read, ()):
            key = key_of(row)
            seen.add(key)
            current = rows.get(key)
            if current is not None and matches(read, current, self.now):
                out.append(current)
        for key in self._dirty.get(cls, ()):
            if key not in seen:
                current = rows.get(key)
                if current is not None and matches(read, current, self.now):
                    out.append(current)
        out.extend(row for row in self._appended.get(cls, ()) if matches(read, row, self.now))
        return out

    # -- writing -----------------------------------------------------------------------------------------------------

    def append(self, row: Row) -> None:
        """Add a row that no other plan of the group gets by its key; a taken key makes this plan's answer DUPLICATE."""
        cls = type(row)
        appended = self._appended.get(cls)
        if appended is None:
            self._appended[cls] = [row]
        else:
            appended.append(row)

    def insert(self, row: Row) -> None:
        """Add a row that later plans of the group may see; a taken key makes this plan's answer DUPLICATE."""
        cls = type(row)
        key = KEYS[cls](row)
        self._rows[cls][key] = row
        self._changes_of(cls)[key] = Change.INSERT

    def put(self, row: Row) -> None:
        """Add or replace a row."""
        cls = type(row)
        key = KEYS[cls](row)
        self._rows[cls][key] = row
        changes = self._changes_of(cls)
        if changes.get(key) is not Change.INSERT:
            changes[key] = Change.PUT

    def delete(self, cls: type[Row], key: Any) -> None:
        """Remove a row, if it is there."""
        changes = self._changes_of(cls)
        if changes.get(key) is Change.INSERT:
            del changes[key]
        else:
            changes[key] = Change.DELETE
        self._rows[cls][key] = None

    def _changes_of(self, cls: type[Row]) -> dict[Any, Change]:
        changes = self._dirty.get(cls)
        if changes is None:
            changes = self._dirty[cls] = {}
        return changes

    # -- what the store does with it -----------------------------------------------------------------------------------

    def provide(self, cls: type[Row], key: Any, row: Row | None) -> None:
        """A row as it is on disk, or None where there is none."""
        self._rows[cls].setdefault(key, row)

    def knows(self, cls: type[Row], key: Any) -> bool:
        """Whether the row was provided or written already."""
        return key in self._rows[cls]

    def provide_found(self, read: Find, rows: Sequence[Row]) -> None:
        """The result of a find as it is on disk."""
        self._found[read] = list(rows)
        cls = _MATCHES[type(read)][0]
        known = self._rows[cls]
        key_of = KEYS[cls]
        for row in rows:
            known.setdefault(key_of(row), row)

    def found(self, read: Find) -> bool:
        """Whether a find was provided already."""
        return read in self._found

    def changes(self) -> dict[type[Row], dict[Any, Change]]:
        """What is to be written, by table and key."""
        return self._dirty

    def appended(self) -> dict[type[Row], list[Row]]:
        """Rows that were only ever added, by table."""
        return self._appended

    def row(self, cls: type[Row], key: Any) -> Any:
        """The final state of a changed row."""
        return self._rows[cls][key]


_MATCHES: dict[type[Find], tuple[type[Row], Callable[[Any, Any, int], bool]]] = {
    WaitsFor: (WaitRow, lambda read, row, now: row.lookup in read.lookups),
    WaitsOf: (WaitRow, lambda read, row, now: row.run_id == read.run_id),
    StepsOf: (StepRow, lambda read, row, now: row.run_id == read.run_id),
    ItemsOf: (ItemRow, lambda read, row, now: row.run_id == read.run_id),
    LanesAt: (LaneRow, lambda read, row, now: row.blocked == 1 and row.gate == read.gate),
    EventsOfBatch: (BatchEventRow, lambda read, row, now: row.run_id == read.run_id),
    DueTimers: (ItemRow, lambda read, row, now: row.state == ItemState.TIMED and row.due <= now),
    ReadyItems: (ItemRow, lambda read, row, now: row.state == ItemState.READY),
    EventsSince: (EventRow, lambda read, row, now: row.name == read.name and row.received_at >= read.since),
}
