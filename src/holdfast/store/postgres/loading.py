"""Reading the rows that plans ask for, locked so that what is decided on them still holds when it is written.

Nodes lock in one order: first the names of events, then queue items by id, then other rows by table and key, then what a
claim finds, which never waits. The rows of a run (itself, its steps, its waits) are covered by the lock of its item.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import msgspec

from holdfast.base.errors import StoreError
from holdfast.core.plan import (
    DueTimers,
    EventsOfBatch,
    EventsSince,
    Find,
    ItemsOf,
    LanesAt,
    Read,
    ReadyItems,
    StepsOf,
    Tx,
    WaitsFor,
    WaitsOf,
)
from holdfast.core.rows import (
    KEYS,
    SUSPECT_LANE,
    BatchEventRow,
    EventRow,
    ItemRow,
    ItemState,
    LaneRow,
    Row,
    RunRow,
    StepRow,
    WaitRow,
)
from holdfast.store.postgres import statements as sql
from holdfast.store.postgres.connection import Connection, Cursor, Query, pipelined
from holdfast.store.postgres.statements import Statements
from holdfast.store.postgres.values import Blobs, Texts
from holdfast.store.sqlite.loading import CLOCK_SKEW_MS

replace = msgspec.structs.replace

RUN_ID_BYTES = 16
_LAST = b"\xff" * 24
_COVERED: frozenset[type[Row]] = frozenset({RunRow, StepRow, WaitRow, EventRow})
"""Tables whose rows need no lock of their own: the lock of the run's item covers them, or they never change."""
_ORDER: tuple[type[Row], ...] = (
    ItemRow,
    *(cls for cls in KEYS if cls not in {ItemRow, LaneRow} and cls not in _COVERED),
    *(cls for cls in KEYS if cls in _COVERED),
    LaneRow,
)
"""In which tables are locked and read."""

Take = Callable[[Cursor], None]


class RunCache(Protocol):
    """What is in memory of runs leased to this node."""

    boot: int

    def leased_item(self, item_id: bytes) -> ItemRow | None: ...
    def leased_run(self, run_id: bytes) -> RunRow | None: ...
    @property
    def lanes_in_doubt(self) -> bool:
        """Whether lanes may not be as remembered, so that a claim looks at all of them."""
        ...


class Round:
    """Statements sent in one go, each with what is done with its result."""

    __slots__ = ("_queries", "_takes")

    def __init__(self) -> None:
        self._queries: list[Query] = []
        self._takes: list[Take | None] = []

    def add(self, statement: bytes, parameters: Sequence[Any] = (), take: Take | None = None) -> None:
        """Another statement of the round."""
        self._queries.append((statement, parameters))
        self._takes.append(take)

    def go(self, conn: Connection) -> None:
        """Send them, then deal with the results in order."""
        if not self._queries:
            return
        queries, takes = self._queries, self._takes
        self._queries, self._takes = [], []
        for cursor, take in zip(pipelined(conn, queries), takes, strict=True):
            if take is not None:
                take(cursor)


class Loader:
    """Provides one overlay with rows, over one connection.

    Args:
        statements: Those of the schema.
        cache: What needn't be read, as the lease that is checked vouches for it; None reads everything.
        lock: Whether rows are to be locked.
    """

    def __init__(self, statements: Statements, tx: Tx, cache: RunCache | None = None, *, lock: bool = True) -> None:
        self._sql = statements
        self._tx = tx
        self._cache = cache
        self._lock = lock
        self._wanted: dict[type[Row], dict[Any, None]] = {}
        self._parts = False
        """Whether items of single steps are among what is read: those of one run don't exclude each other, its row does."""
        self._trusted: list[bytes] = []
        """Runs taken from memory, if their items turn out to be as remembered."""
        self.absent: set[tuple[type[Row], Any]] = set()
        """Rows that were asked for and are not there: who adds one must be the first."""
        self.woken: dict[bytes, int] = {}
        """The wake-ups of each item as loaded: they rise in place, and are to be written when they have."""
        self.owners: dict[bytes, int] = {}
        """Who leases each item as loaded."""
        self.timed: set[bytes] = set()
        """Items that were timed as loaded: when one is not any more, another may be the next to be due."""
        self.lanes: list[LaneRow] | None = None
        """All lanes, when a claim looked at them."""
        self.claimed = False
        """Whether it was looked for ready items."""

    def load(self, conn: Connection, reads: Iterable[Read], first: Round | None = None) -> None:
        """Provide the rows of these reads.

        Args:
            conn: Where from.
            reads: What is wanted.
            first: Statements to be sent before, in the same go where possible.
        """
        tx = self._tx
        finds: dict[Find, None] = {}
        for read in reads:
            if type(read) is tuple:
                self._want(read[0], read[1])
            elif not tx.found(read):  # type: ignore[arg-type]
                finds[read] = None  # type: ignore[index]
        step = first or Round()
        waits = [find for find in finds if isinstance(find, WaitsFor)]
        if waits:
            # which runs they wake has to be known before items are locked in order
            self._waits_for(step, waits)
            step.go(conn)
        self._rows(step)
        for find in finds:
            if not isinstance(find, WaitsFor):
                self._find(step, find)
        step.go(conn)
        self._distrust(step)
        self._rows(step)
        step.go(conn)

    def _want(self, cls: type[Row], key: Any) -> None:
        if not self._tx.knows(cls, key):
            self._wanted.setdefault(cls, {})[key] = None
            self._parts = self._parts or (cls is ItemRow and len(key) > RUN_ID_BYTES)

    # -- by key ------------------------------------------------------------------------------------------------------------

    def _rows(self, step: Round) -> None:
        wanted, self._wanted = self._wanted, {}
        for cls in _ORDER:
            keys = wanted.get(cls)
            if not keys:
                continue
            if cls is RunRow:
                keys = self._from_memory(keys)
                if not keys:
                    continue
            self._select(step, cls, sorted(keys))

    def _select(self, step: Round, cls: type[Row], keys: list[Any]) -> None:
        table = self._sql[cls]

        def take(cursor: Cursor) -> None:
            rows = table.rows(cursor.fetchall())
            for row in rows:
                self._provide(cls, table.key_of(row), row)
            for key in keys:
                if not self._tx.knows(cls, key):
                    self.absent.add((cls, key))
                    self._tx.provide(cls, key, None)

        if cls is RunRow:
            # a live run's step counter is not written with each step: it is the highest sequence number there is
            found: list[RunRow] = []
            step.add(
                table.select(self._lock_of(cls)),
                table.keys(keys),
                lambda cursor: found.extend(table.rows(cursor.fetchall())),
            )
            step.add(
                self._sql.sql(sql.MAX_SEQ),
                [Blobs(keys)],
                lambda cursor: self._take_runs(keys, found, dict(cursor.fetchall())),
            )
        else:
            step.add(table.select(self._lock_of(cls)), table.keys(keys), take)

    def _lock_of(self, cls: type[Row]) -> str:
        if not self._lock or (cls in _COVERED and not (cls is RunRow and self._parts)):
            return ""
        # a lane is kept from being deleted by those who let items wait in it, and they don't keep others from it
        return "KEY SHARE" if cls is LaneRow else "UPDATE"

    def _take_runs(self, keys: list[bytes], found: list[RunRow], highest: dict[bytes, int]) -> None:
        for row in found:
            if row.ended_at is None:
                row.steps = max(row.steps, highest.get(row.id, 0))
            self._tx.provide(RunRow, row.id, row)
        for key in keys:
            self._tx.provide(RunRow, key, None)

    def _provide(self, cls: type[Row], key: Any, row: Any) -> None:
        if cls is ItemRow and key not in self.woken:
            self.woken[key] = row.woken
            if row.state == ItemState.LEASED:
                self.owners[key] = row.owner
            elif row.state == ItemState.TIMED:
                self.timed.add(key)
        elif cls is LaneRow:
            row = self._promoted(row)
        self._tx.provide(cls, key, row)

    def _promoted(self, lane: LaneRow) -> LaneRow:
        """A lane whose time has come is ready."""
        return replace(lane, blocked=0) if lane.blocked == 2 and lane.until <= self._tx.now else lane

    # -- runs from memory --------------------------------------------------------------------------------------------------

    def _from_memory(self, keys: dict[Any, None]) -> dict[Any, None]:
        """Leave out the runs this node has in memory, whose items are read and locked in the same go."""
        cache = self._cache
        if cache is None or self._parts:
            return keys
        rest: dict[Any, None] = {}
        for key in keys:
            if cache.leased_run(key) is not None and not self._tx.knows(RunRow, key):
                self._trusted.append(key)
            else:
                rest[key] = None
        return rest

    def _distrust(self, step: Round) -> None:
        """Take runs from memory whose items are as remembered; ask for the others after all.

        Another node that resolved something of the run has counted a wake-up, and used a sequence number.
        """
        trusted, self._trusted = self._trusted, []
        cache, tx = self._cache, self._tx
        for run_id in trusted:
            assert cache is not None
            item = tx.get(ItemRow, run_id)
            known, run = cache.leased_item(run_id), cache.leased_run(run_id)
            if (
                item is not None
                and known is not None
                and run is not None
                and item.state == ItemState.LEASED
                and (item.owner, item.epoch, item.woken) == (known.owner, known.epoch, known.woken)
            ):
                tx.provide(RunRow, run_id, run)
            else:
                self._select(step, RunRow, [run_id])

    # -- finds -------------------------------------------------------------------------------------------------------------

    def _waits_for(self, step: Round, finds: list[WaitsFor]) -> None:
        table = self._sql[WaitRow]
        lookups = sorted({lookup for find in finds for lookup in find.lookups})

        def take(cursor: Cursor) -> None:
            by_lookup: dict[str, list[WaitRow]] = {}
            for wait in table.rows(cursor.fetchall()):
                by_lookup.setdefault(wait.lookup, []).append(wait)
                self._want(ItemRow, wait.run_id)
                self._want(RunRow, wait.run_id)
                self._want(StepRow, KEYS[WaitRow](wait))
            for find in finds:
                self._tx.provide_found(find, [wait for lookup in find.lookups for wait in by_lookup.get(lookup, ())])

        step.add(table.where("lookup = ANY(%s::text[]) ORDER BY run_id, key"), [Texts(lookups)], take)

    def _find(self, step: Round, find: Find) -> None:
        match find:
            case WaitsOf():
                self._found(step, find, WaitRow, "run_id = %s", [find.run_id])
            case StepsOf():
                self._found(step, find, StepRow, "run_id = %s", [find.run_id])
            case ItemsOf():
                # an item's id begins with its run's
                self._found(
                    step,
                    find,
                    ItemRow,
                    "id >= %s AND id < %s ORDER BY id",
                    [find.run_id, find.run_id + _LAST],
                    lock=True,
                )
            case EventsSince():
                # an id that a client has chosen carries the time of its clock
                floor = max(0, find.since - CLOCK_SKEW_MS).to_bytes(6, "big") + bytes(10)
                self._found(step, find, EventRow, sql.EVENTS_SINCE, [find.name, floor, find.since])
            case EventsOfBatch():
                self._found(step, find, BatchEventRow, "run_id = %s ORDER BY position", [find.run_id])
            case LanesAt():
                self._lanes_at(step, find)
            case DueTimers():
                condition = "state = 1 AND due <= %s ORDER BY due LIMIT %s"
                self._found(step, find, ItemRow, condition, [self._tx.now, find.limit], lock=True, skip=True)
            case ReadyItems():
                self._ready(step, find)
            case _:
                raise StoreError(f"no statement for {type(find).__name__}")

    def _found(
        self,
        step: Round,
        find: Find,
        cls: type[Row],
        condition: str,
        parameters: Sequence[Any],
        *,
        lock: bool = False,
        skip: bool = False,
    ) -> None:
        table = self._sql[cls]
        strength = "NO KEY UPDATE" if cls is LaneRow else "UPDATE"
        locking = f" FOR {strength}{' SKIP LOCKED' if skip else ''}" if lock and self._lock else ""

        def take(cursor: Cursor) -> None:
            rows = table.rows(cursor.fetchall())
            if cls is ItemRow:
                self._items(rows, implied=skip)
            self._tx.provide_found(find, rows)

        step.add(table.where(condition + locking), parameters, take)

    def _lanes_at(self, step: Round, find: LanesAt) -> None:
        size = self._tx.size
        parameters = [find.gate, size, find.gate, SUSPECT_LANE, _texts_of(self._tx.functions), size]
        self._found(step, find, LaneRow, self._sql.sql(sql.LANES_AT).decode(), parameters, lock=True)

    def _items(self, rows: list[ItemRow], *, implied: bool) -> None:
        for row in rows:
            self._provide(ItemRow, row.id, row)
            if implied:
                self._want(RunRow, row.run_id)
                self._want(LaneRow, row.lane)

    def _ready(self, step: Round, find: ReadyItems) -> None:
        lanes, queue = self._sql[LaneRow], self._sql[ItemRow]
        statement = (
            sql.READY.replace("{lanes}", lanes.columns)
            .replace("{turn}", ", ".join(f"turn.{name}" for name in lanes.columns.split(", ")))
            .replace("{queue}", ", ".join(f"q.{name}" for name in queue.columns.split(", ")))
        )
        width = len(LaneRow.__struct_fields__)
        functions = _texts_of(find.functions)
        suspect = SUSPECT_LANE if find.suspect else ""

        def take(cursor: Cursor) -> None:
            rows: list[ItemRow] = []
            counts: dict[str, int] = {}
            shares: dict[str, int] = {}
            for values in cursor.fetchall():
                lane = self._promoted(lanes.row(values[:width]))
                self._tx.provide(LaneRow, lane.lane, lane)
                shares[lane.lane] = values[width]
                if values[width + 1] is not None:
                    rows.append(queue.row(values[width + 1 :]))
                    counts[lane.lane] = counts.get(lane.lane, 0) + 1
            for name, share in shares.items():
                self._tx.scanned[name] = counts.get(name, 0) == share
            self._items(rows, implied=True)
            self._tx.provide_found(find, rows)

        step.add(self._sql.sql(statement), [self._tx.now, suspect, functions, sql.MAX_LANES, find.limit], take)
        self.claimed = True
        if self._cache is not None and self._cache.lanes_in_doubt:
            step.add(self._sql.sql(sql.ALL_LANES.replace("{lanes}", lanes.columns)), (), self._take_lanes)

    def _take_lanes(self, cursor: Cursor) -> None:
        self.lanes = self._sql[LaneRow].rows(cursor.fetchall())


def _texts_of(functions: Iterable[int]) -> Texts:
    """Function ids as lanes begin with them."""
    return Texts([str(function_id) for function_id in sorted(functions)])
