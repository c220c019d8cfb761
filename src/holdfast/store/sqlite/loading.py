"""Reading the rows that plans ask for: from what is kept of live runs, else from a connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any, Protocol, cast

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
    BatchEventRow,
    EventRow,
    ItemRow,
    LaneRow,
    LeaseCountRow,
    Row,
    RunRow,
    StepRow,
    WaitRow,
)
from holdfast.store.sqlite import statements as sql
from holdfast.store.sqlite.lanes import Lanes

_LAST = b"\xff" * 24
CLOCK_SKEW_MS = 600_000
"""How far the clocks of clients may be behind."""
MAX_ROWS = 500
"""Rows per statement at most."""


class RowCache(Protocol):
    """Rows that are in memory as they are on disk."""

    @property
    def lanes(self) -> Lanes: ...
    def cached(self, cls: type[Row], key: Any) -> Row | None: ...


class Loader:
    """Provides an overlay with rows, over one connection."""

    __slots__ = ("_cache", "_conn")

    def __init__(self, conn: sqlite3.Connection, cache: RowCache) -> None:
        self._conn = conn
        self._cache = cache

    def load(self, tx: Tx, reads: Iterable[Read]) -> None:
        """Provide the rows of these reads."""
        missing: dict[type[Row], list[Any]] = {}
        steps_of: dict[StepsOf, list[StepRow]] = {}
        for read in reads:
            if type(read) is tuple:
                cls, key = read
                if not tx.knows(cls, key):
                    cached = self._cache.cached(cls, key)
                    if cached is not None:
                        tx.provide(cls, key, cached)
                    else:
                        missing.setdefault(cls, []).append(key)
            elif tx.found(read):  # type: ignore[arg-type]
                continue
            elif type(read) is StepsOf:
                steps_of[read] = []
            else:
                self._find(tx, read)  # type: ignore[arg-type]
        if steps_of:
            self._steps(tx, steps_of)
        for cls, keys in missing.items():
            self._select(tx, cls, list(dict.fromkeys(keys)))

    def _steps(self, tx: Tx, wanted: dict[StepsOf, list[StepRow]]) -> None:
        """The steps of many runs at once."""
        runs = [read.run_id for read in wanted]
        for start in range(0, len(runs), MAX_ROWS):
            part = runs[start : start + MAX_ROWS]
            for row in self._conn.execute(sql.STEPS_OF.format(marks=", ".join("?" * len(part))), part):
                step = StepRow(*row)
                wanted[StepsOf(step.run_id)].append(step)
        for read, rows in wanted.items():
            tx.provide_found(read, rows)

    def _select(self, tx: Tx, cls: type[Row], keys: list[Any]) -> None:
        if cls is LaneRow or cls is LeaseCountRow:
            for key in keys:
                tx.provide(cls, key, None)
            return
        composite = len(sql.PRIMARY_KEYS[cls]) > 1
        key_of = KEYS[cls]
        for start in range(0, len(keys), MAX_ROWS):
            part = keys[start : start + MAX_ROWS]
            parameters = [value for key in part for value in key] if composite else part
            rows = [cls(*row) for row in self._conn.execute(sql.select(cls, len(part)), parameters)]
            if cls is RunRow:
                self._complete_runs(rows)  # type: ignore[arg-type]
            for row in rows:
                tx.provide(cls, key_of(row), row)
            for key in part:
                tx.provide(cls, key, None)

    def _complete_runs(self, rows: list[RunRow]) -> None:
        """A live run's step counter is not written with each step: it is the highest sequence number there is."""
        live = {row.id: row for row in rows if row.ended_at is None}
        if live:
            marks = ", ".join("?" * len(live))
            for run_id, seq in self._conn.execute(sql.MAX_SEQ.format(marks=marks), list(live)):
                live[run_id].steps = max(seq, live[run_id].steps)

    def _find(self, tx: Tx, read: Find) -> None:
        execute = self._conn.execute
        rows: list[Any]
        match read:
            case WaitsFor():
                marks = ", ".join("?" * len(read.lookups))
                rows = [WaitRow(*r) for r in execute(sql.select_where(WaitRow, f"lookup IN ({marks})"), read.lookups)]
            case WaitsOf():
                rows = [WaitRow(*r) for r in execute(sql.WAITS_OF, (read.run_id,))]
            case ItemsOf():
                # an item's id begins with its run's
                rows = [ItemRow(*r) for r in execute(sql.ITEMS_OF, (read.run_id, read.run_id + _LAST))]
            case EventsSince():
                # an id that a client has chosen carries the time of its clock
                floor = max(0, read.since - CLOCK_SKEW_MS).to_bytes(6, "big") + bytes(10)
                rows = [EventRow(*r) for r in execute(sql.EVENTS_SINCE, (read.name, floor, read.since))]
            case LanesAt():
                rows = self._cache.lanes.waiting(read.gate, tx.size, tx.functions)
            case EventsOfBatch():
                rows = [BatchEventRow(*r) for r in execute(sql.EVENTS_OF_BATCH, (read.run_id,))]
            case DueTimers():
                rows = [ItemRow(*r) for r in execute(sql.DUE_TIMERS, (tx.now, read.limit))]
            case ReadyItems():
                rows = self._ready(tx, read)
            case _:
                raise StoreError(f"no statement for {type(read).__name__}")
        tx.provide_found(read, rows)
        if isinstance(read, DueTimers | ReadyItems):
            self.load(tx, [(RunRow, item.run_id) for item in cast("list[ItemRow]", rows)])
        elif isinstance(read, WaitsFor) and rows:
            waits = cast("list[WaitRow]", rows)
            self.load(tx, [(cls, wait.run_id) for wait in waits for cls in (ItemRow, RunRow)])
            self.load(tx, [(StepRow, (wait.run_id, wait.key)) for wait in waits])

    def _ready(self, tx: Tx, read: ReadyItems) -> list[ItemRow]:
        rows: list[ItemRow] = []
        lanes = self._cache.lanes.ready(read.functions, suspect=read.suspect, count=read.limit + 1)
        share = max(1, read.limit // max(1, len(lanes))) + 1
        for lane in lanes:
            if len(rows) > read.limit:
                break
            found = self._conn.execute(sql.READY_IN_LANE, (lane.lane, share)).fetchall()
            rows.extend(ItemRow(*row) for row in found)
            tx.provide(LaneRow, lane.lane, lane)
            tx.scanned[lane.lane] = len(found) == share
        return rows
