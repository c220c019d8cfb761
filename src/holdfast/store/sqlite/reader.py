"""The reading side of the SQLite store: answers off the loop, from connections that can't write."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from holdfast.base.clock import Clock
from holdfast.base.ids import ulid_text
from holdfast.store.flow_reads import NOTHING_LEASED, FlowView, Leased, TimerView
from holdfast.store.reads import (
    AuditView,
    Backlog,
    BulkView,
    CronView,
    DeadLetterView,
    EventView,
    FinishedStep,
    FunctionStats,
    FunctionView,
    LetterGroup,
    MatchedWaitView,
    Overview,
    RunDetail,
    RunFilter,
    RunProgress,
    RunView,
    SkipView,
    WaitView,
)
from holdfast.store.sqlite.reading import flow_statements as flow_sql
from holdfast.store.sqlite.reading import statements as sql
from holdfast.store.sqlite.reading import views
from holdfast.store.sqlite.reading.detail import run_detail
from holdfast.store.sqlite.reading.figures import backlog, function_stats, overview
from holdfast.store.sqlite.reading.flow import flow_views
from holdfast.store.sqlite.reading.letters import LetterFilter, letter, letter_groups, list_letters
from holdfast.store.sqlite.reading.listing import MAX_LIMIT, EventFilter, count_runs, list_events, list_runs, runs_by_id
from holdfast.store.sqlite.reading.pool import ReadPool
from holdfast.store.sqlite.reading.progress import run_progress
from holdfast.store.sqlite.reading.views import SqlRow, raw_id

T = TypeVar("T")


class SqliteReader:
    """Implements `holdfast.store.reads.Reader` over a store's file. Usable at once; close it before the store.

    Ids are ULID text; text that can't be an id finds nothing. Pages hold at most 1,000 rows.

    Args:
        path: The database file, with its schema; `SqliteStore.path`.
        clock: Where `now` comes from.
        connections: How many reads go on at once.
        time_limit: Seconds a read may take, waiting for its turn included.
        leased: What executes now; it isn't in the file, so whoever executes tells it.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        connections: int = 2,
        time_limit: float = 5.0,
        leased: Callable[[], Leased] = lambda: NOTHING_LEASED,
    ) -> None:
        self.path = path
        self.clock = clock
        self._leased = leased
        self._pool = ReadPool(path, connections=connections, time_limit=time_limit)

    async def close(self) -> None:
        """End the threads and close the connections, once running reads have ended or met their limit."""
        await asyncio.to_thread(self._pool.close)

    # -- runs --------------------------------------------------------------------------------------------------------

    async def runs(
        self, where: RunFilter, *, limit: int = 50, cursor: str | None = None
    ) -> tuple[list[RunView], str | None]:
        """See `Reader.runs`."""
        return await self._pool.run(lambda conn: list_runs(conn, where, limit, cursor))

    async def count_runs(self, where: RunFilter, *, cap: int = 10_000) -> int:
        """See `Reader.count_runs`."""
        return await self._pool.run(lambda conn: count_runs(conn, where, cap))

    async def run(self, run_id: str) -> RunDetail | None:
        """See `Reader.run`."""
        leased = self._leased()
        return await self._of_id(run_id, lambda conn, raw: run_detail(conn, raw, leased))

    async def progress(self, run_id: str) -> RunProgress | None:
        """See `Reader.progress`."""
        return await self._of_id(run_id, run_progress)

    async def run_view(self, run_id: str) -> RunView | None:
        """See `Reader.run_view`."""
        found = await self._of_id(run_id, lambda conn, raw: runs_by_id(conn, [raw]))
        return found[0] if found else None

    async def finished_steps(self, run_id: str, *, after: int = 0, limit: int = 100) -> Sequence[FinishedStep]:
        """See `Reader.finished_steps`."""

        def read(conn: sqlite3.Connection, raw: bytes) -> list[SqlRow]:
            return conn.execute(sql.FINISHED_STEPS, (raw, after, max(1, min(limit, MAX_LIMIT)))).fetchall()

        return [views.finished_step(row) for row in await self._of_id(run_id, read) or ()]

    # -- events ------------------------------------------------------------------------------------------------------

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
        """See `Reader.events`."""
        where = EventFilter(name, internal, received_after, received_before)
        return await self._pool.run(lambda conn: list_events(conn, where, limit, cursor))

    async def event(self, internal_id: str) -> EventView | None:
        """See `Reader.event`."""
        row = await self._of_id(internal_id, lambda conn, raw: conn.execute(sql.EVENT, (raw,)).fetchone())
        return None if row is None else views.event_view(row)

    async def event_runs(self, internal_id: str) -> Sequence[RunView]:
        """See `Reader.event_runs`."""

        def read(conn: sqlite3.Connection, raw: bytes) -> list[SqlRow]:
            return conn.execute(sql.RUNS_OF_EVENT, (raw, MAX_LIMIT)).fetchall()

        return [views.run_view(row) for row in await self._of_id(internal_id, read) or ()]

    async def event_skips(self, internal_id: str) -> Sequence[SkipView]:
        """See `Reader.event_skips`."""

        def read(conn: sqlite3.Connection, raw: bytes) -> list[SqlRow]:
            return [*conn.execute(sql.SKIPS, (raw,)), *conn.execute(flow_sql.BATCHED, (raw, MAX_LIMIT))]

        return [views.skip_view(row) for row in await self._of_id(internal_id, read) or ()]

    async def matched_waits(self, internal_id: str) -> Sequence[MatchedWaitView]:
        """See `Reader.matched_waits`."""

        def read(conn: sqlite3.Connection, raw: bytes) -> list[SqlRow]:
            return conn.execute(sql.MATCHED_WAITS, (raw, MAX_LIMIT)).fetchall()

        return [views.matched_wait_view(row) for row in await self._of_id(internal_id, read) or ()]

    async def event_names(self, *, limit: int = 200) -> Sequence[str]:
        """See `Reader.event_names`."""
        return [row[0] for row in await self._all(sql.EVENT_NAMES, limit)]

    # -- dead letters ------------------------------------------------------------------------------------------------

    async def dead_letters(
        self,
        *,
        state: str | None = "dead",
        function: str | None = None,
        fingerprint: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> tuple[list[DeadLetterView], str | None]:
        """See `Reader.dead_letters`."""
        where = LetterFilter(state, function, fingerprint)
        return await self._pool.run(lambda conn: list_letters(conn, where, limit, cursor))

    async def dead_letter(self, run_id: str) -> DeadLetterView | None:
        """See `Reader.dead_letter`."""
        return await self._of_id(run_id, letter)

    async def letter_groups(
        self, *, state: str = "dead", function: str | None = None, limit: int = 100
    ) -> Sequence[LetterGroup]:
        """See `Reader.letter_groups`."""
        return await self._pool.run(lambda conn: letter_groups(conn, LetterFilter(state, function, None), limit))

    # -- bulk operations ---------------------------------------------------------------------------------------------

    async def bulks(self, *, limit: int = 50, running: bool = False) -> Sequence[BulkView]:
        """See `Reader.bulks`."""
        statement = sql.RUNNING_BULKS if running else sql.BULKS
        return [views.bulk_view(row) for row in await self._all(statement, max(1, min(limit, MAX_LIMIT)))]

    async def bulk(self, bulk_id: str) -> BulkView | None:
        """See `Reader.bulk`."""
        row = await self._of_id(bulk_id, lambda conn, raw: conn.execute(sql.BULK, (raw,)).fetchone())
        return None if row is None else views.bulk_view(row)

    # -- the rest ----------------------------------------------------------------------------------------------------

    async def functions(self) -> Sequence[FunctionView]:
        """See `Reader.functions`."""
        return [views.function_view(row) for row in await self._all(sql.FUNCTIONS)]

    async def crons(self) -> Sequence[CronView]:
        """See `Reader.crons`."""
        return [views.cron_view(row) for row in await self._all(sql.CRONS)]

    async def waits(self, *, limit: int = 200) -> Sequence[WaitView]:
        """See `Reader.waits`."""
        return [views.wait_view(row) for row in await self._all(sql.WAITS, limit)]

    async def timers(self, *, limit: int = 100) -> Sequence[TimerView]:
        """See `Reader.timers`."""
        rows = await self._all(flow_sql.TIMERS, max(1, min(limit, MAX_LIMIT)))
        return [TimerView(ulid_text(run_id), slug, name, due, bool(started)) for run_id, slug, name, due, started in rows]

    async def audit(self, *, limit: int = 100) -> Sequence[AuditView]:
        """See `Reader.audit`."""
        return [views.audit_view(row) for row in await self._all(sql.AUDIT, limit)]

    async def stats(self, *, since: int) -> Sequence[FunctionStats]:
        """See `Reader.stats`."""
        return await self._pool.run(lambda conn: function_stats(conn, since))

    async def flow(self, function: str | None = None) -> Sequence[FlowView]:
        """See `Reader.flow`."""
        leased, now = self._leased(), self.clock.now()
        return await self._pool.run(lambda conn: flow_views(conn, leased, now, function))

    async def backlogs(self, function_ids: Sequence[int]) -> Mapping[int, Backlog]:
        """See `Reader.backlogs`."""
        if not function_ids:
            return {}
        return await self._pool.run(lambda conn: {one: backlog(conn, one) for one in function_ids})

    async def overview(self, *, since: int, now: int, slices: int = 60) -> Overview:
        """See `Reader.overview`."""
        return await self._pool.run(lambda conn: overview(conn, self.path, since, now, slices))

    # -- plumbing ----------------------------------------------------------------------------------------------------

    async def _all(self, statement: str, *values: object) -> list[SqlRow]:
        return await self._pool.run(lambda conn: conn.execute(statement, values).fetchall())

    async def _of_id(self, text: str, read: Callable[[sqlite3.Connection, bytes], T | None]) -> T | None:
        raw = raw_id(text)
        return None if raw is None else await self._pool.run(lambda conn: read(conn, raw))
