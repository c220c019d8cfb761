"""The SQLite store: one writer, statements on the loop's thread, commits in another (decision 3)."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import msgspec

from holdfast.base.clock import Clock
from holdfast.base.errors import StoreBusyError, StoreError, StoreFailedError, StoreFullError
from holdfast.core.flow import Flow, FunctionState
from holdfast.core.plan import (
    Change,
    Plan,
    Read,
    Tx,
)
from holdfast.core.rows import (
    AlarmRow,
    AlertRow,
    BulkRow,
    CronRow,
    GatherRow,
    ItemRow,
    ItemState,
    LaneRow,
    LeaseCountRow,
    Row,
    RunRow,
    WaitRow,
)
from holdfast.core.waiting import CHILD_LOOKUP
from holdfast.store.flow_reads import Leased
from holdfast.store.group import Attempt, GroupCommit, attempt_here
from holdfast.store.sqlite import statements as sql
from holdfast.store.sqlite.checkpoint import Checkpointer
from holdfast.store.sqlite.connection import (
    Ownership,
    close_without_checkpoint,
    database_path,
    open_reader,
    open_writer,
    prepare,
)
from holdfast.store.sqlite.lanes import Lanes
from holdfast.store.sqlite.loading import MAX_ROWS, Loader
from holdfast.store.sqlite.registry import (
    AppRecord,
    Registration,
    app_records,
    current,
    delete_app,
    put_app,
    register,
    register_app,
    set_state,
    slugs,
    states,
)
from holdfast.store.sqlite.retention import Pruner

astuple = msgspec.structs.astuple
_NO_PATHS: frozenset[str] = frozenset()


class SqliteStore:
    """All state of a holdfast on one machine, in one file.

    Args:
        url: `sqlite:///path`, or `sqlite://` for a temporary database that vanishes with the process.
        clock: Where `now` comes from.
        apps: Ids of the applications that open it; the file stays bound to them.
        synchronous: `FULL` always, except in the test that proves why.
        shared: Whether the process lets others of its application work through it (`holdfast.neighbours`), and says so.
    """

    def __init__(
        self, url: str, clock: Clock, apps: tuple[str, ...] = (), *, synchronous: str = "FULL", shared: bool = False
    ) -> None:
        self.url = url
        self.clock = clock
        path = database_path(url)
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if path is None:
            shared_memory = Path("/dev/shm")  # noqa: S108 - private directory below it
            self._temporary = tempfile.TemporaryDirectory(
                prefix="holdfast-", dir=shared_memory if shared_memory.is_dir() else None
            )
            path = Path(self._temporary.name) / "holdfast.db"
            synchronous = "OFF"
        self.path = path
        self.offered = shared and self._temporary is None
        """Whether other processes are told that they can work through this one."""
        self._ownership = Ownership(path, apps, shared=self.offered)
        try:
            self._conn = open_writer(path, synchronous=synchronous)
            self.boot = prepare(self._conn, path, apps, clock.now())
            self._committed = open_reader(path)
        except BaseException:
            self._ownership.release()
            raise
        self._items: dict[bytes, ItemRow] = {}
        self._runs: dict[bytes, RunRow] = {}
        self._lanes = Lanes(LaneRow(*row) for row in self._conn.execute(sql.ALL_LANES))
        self._leases: dict[str, LeaseCountRow] = {}
        self.flows: dict[int, Flow] = {}
        """The flow control of the functions that have any."""
        self.paused: dict[int, str] = {}
        """Functions that are paused, and how."""
        self.on_alarm: Callable[[int], None] | None = None
        """Called after a commit that set alarms, or let events gather, with the moment when the first of them is due."""
        self.on_lanes: Callable[[], None] | None = None
        """Called after a commit that changed lanes: something may be ready, or wait for a moment."""
        self._pruner = Pruner(self._conn)
        self._loader = Loader(self._conn, self)
        self._reading = Loader(self._committed, self)
        self._wait_paths: dict[str, set[str]] = {}
        for (lookup,) in self._conn.execute(sql.WAIT_LOOKUPS):
            self.expect(lookup)
        self._room: Callable[[], int] = lambda: 0
        self.functions: frozenset[int] = frozenset()
        """Ids of the functions whose runs may be executed here now."""
        self._commits: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._commit_loop, name="holdfast-commit", daemon=True)
        self.checkpointer = Checkpointer(path, self._checkpoint_failed)
        self.group: GroupCommit

    @property
    def shared(self) -> None:
        """None: a file has one owner."""

    # -- life --------------------------------------------------------------------------------------------------------

    def start(self, room: Callable[[], int], functions: frozenset[int]) -> None:
        """Begin to take plans on the running loop.

        Args:
            room: How many more runs this node can execute now.
            functions: Ids of the functions it can execute now.
        """
        self.functions = functions
        self._loop = asyncio.get_running_loop()
        self._room = room
        self._thread.start()
        self.checkpointer.start()
        self.group = GroupCommit(self)

    def submit(self, plan: Plan[Any]) -> asyncio.Future[Any]:
        """Queue a plan for the next group."""
        return self.group.submit(plan)

    async def close(self) -> None:
        """Finish what was submitted, checkpoint, and give the file up."""
        await self.group.drain()
        self.group.close()
        await self.abandon()

    async def abandon(self) -> None:
        """Give the file up as it is; what is not committed is lost. After `group.kill`, for fault tests."""
        self._commits.put(None)
        started = self._thread.is_alive()
        if started:
            await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self.checkpointer.stop)
        if started and isinstance(self.group.closed, StoreFailedError):
            close_without_checkpoint(self.path, self._committed, self._conn)
        else:
            self._committed.close()
            self._conn.close()
        self._ownership.release()
        if self._temporary is not None:
            self._temporary.cleanup()

    def leased_by_others(self) -> list[ItemRow]:
        """Items that an earlier boot left leased: it died while executing them."""
        return [ItemRow(*row) for row in self._conn.execute(sql.LEASED_BY_OTHERS, (self.boot,))]

    def next_timer(self) -> int | None:
        """When the earliest TIMED item, or lane that waits for a moment, is due."""
        due: int | None = self._conn.execute(sql.NEXT_TIMER).fetchone()[0]
        until = self._lanes.next_until()
        return until if due is None or (until is not None and until < due) else due

    def next_alarm(self) -> int | None:
        """When the earliest alarm, debounce or batch is due."""
        due: int | None = self._committed.execute(sql.NEXT_ALARM).fetchone()[0]
        return due

    async def due_alarms(self, now: int, limit: int) -> list[AlarmRow]:
        """Alarms that are due, oldest first."""
        return [AlarmRow(*row) for row in self._committed.execute(sql.DUE_ALARMS, (now, limit))]

    async def due_gathers(self, now: int, limit: int) -> list[GatherRow]:
        """Debounces and batches whose time has come, oldest first."""
        return [GatherRow(*row) for row in self._committed.execute(sql.DUE_GATHERS, (now, limit))]

    async def gathers_of(self, function_id: int, limit: int = 1000, key: str | None = None) -> list[GatherRow]:
        """The debounces and batches of a function that wait, of one key if it is given; those that are due first."""
        return [GatherRow(*row) for row in self._committed.execute(sql.GATHERS_OF, (function_id, key, limit))]

    async def gather_of(self, run_id: bytes) -> GatherRow | None:
        """The debounce or batch that will be this run."""
        row = self._committed.execute(sql.GATHER_OF_RUN, (run_id,)).fetchone()
        return None if row is None else GatherRow(*row)

    @property
    def lease_counts(self) -> dict[str, int]:
        """Places of concurrency limits that leases hold now, by gate."""
        return {gate: row.used for gate, row in self._leases.items()}

    def leased(self) -> Leased:
        """What this process executes now."""
        return Leased(self.lease_counts, Counter(run.function_id for run in self._runs.values()))

    async def set_function(self, function_id: int, *, paused: str | None, limits: Mapping[str, int]) -> None:
        """Record whether a function is paused, and the limits that were changed while it runs."""
        await self.group.between_groups(lambda: set_state(self._conn, function_id, paused, limits))

    def register(self, registrations: Sequence[Registration]) -> dict[str, tuple[int, int]]:
        """Record the functions of this process; their ids and versions by slug. Before `start`."""
        return register(self._conn, registrations, self.clock.now())

    async def register_app(
        self, record: AppRecord, registrations: Sequence[Registration]
    ) -> dict[str, tuple[int, int]]:
        """Record an application that is called over HTTP and its functions, while the store is at work; ids and versions by slug."""
        return await self.group.between_groups(
            lambda: register_app(self._conn, record, registrations, self.clock.now())
        )

    async def put_app(self, record: AppRecord) -> None:
        """Record what is known of such an application."""
        await self.group.between_groups(lambda: put_app(self._conn, record))

    async def delete_app(self, name: str) -> None:
        """Forget such an application."""
        await self.group.between_groups(lambda: delete_app(self._conn, name))

    def app_records(self) -> list[AppRecord]:
        """The applications that are called over HTTP."""
        return app_records(self._conn)

    def current_functions(self) -> list[tuple[int, int, bytes]]:
        """Id, version and registration document of every function that is not archived."""
        return current(self._conn)

    def function_states(self) -> dict[int, FunctionState]:
        """How functions are paused, and which of their limits were changed, where anything is."""
        return states(self._conn)

    def slugs(self) -> dict[int, str]:
        """The slug of every function there ever was."""
        return slugs(self._conn)

    def cron_rows(self) -> list[CronRow]:
        """All schedules."""
        return [CronRow(*row) for row in self._conn.execute(sql.ALL_CRONS)]

    def running_bulks(self) -> list[BulkRow]:
        """Bulk operations that have not come to their end, oldest first."""
        return [BulkRow(*row) for row in self._conn.execute(sql.RUNNING_BULKS)]

    def alert_rows(self) -> list[AlertRow]:
        """The alerts that are on, oldest first."""
        return [AlertRow(*row) for row in self._committed.execute(sql.ALL_ALERTS)]

    def cancelled_with_children(self) -> list[bytes]:
        """Cancelled runs of which a run that they invoked still lives."""
        return [run_id for (run_id,) in self._conn.execute(sql.CANCELLED_WITH_CHILDREN)]

    async def prune(self, runs_ms: int, dead_letters_ms: int) -> bool:
        """Go through one slice of what is old, while no group is being committed; whether there is more to go through."""
        return await self.group.between_groups(lambda: self._pruner.prune(self.clock.now(), runs_ms, dead_letters_ms))

    def cached_item(self, item_id: bytes) -> ItemRow | None:
        """An item leased by this process, as it counts wake-ups."""
        return self._items.get(item_id)

    def cached_run(self, run_id: bytes) -> RunRow | None:
        """A run leased by this process."""
        return self._runs.get(run_id)

    @property
    def problem(self) -> str | None:
        """What keeps the disk from being written to, if something does that may pass."""
        hindered = self.group.hindered
        return str(hindered) if hindered is not None else self.checkpointer.problem

    @property
    def lanes(self) -> Lanes:
        """Lanes that have items waiting."""
        return self._lanes

    def wait_paths(self, event_name: str) -> frozenset[str] | set[str]:
        """The data paths by which runs may wait for this event, "" for any; empty when certainly none waits."""
        return self._wait_paths.get(event_name, _NO_PATHS)

    # -- group commit ------------------------------------------------------------------------------------------------

    def begin(self) -> Tx:
        self._conn.execute("BEGIN IMMEDIATE")
        now = self.clock.now()
        self._lanes.promote(now)
        return Tx(now, self.boot, self._room(), self.backlog(), self.functions, self.flows, self.paused)

    def load(self, tx: Tx, reads: Iterable[Read]) -> None:
        self._loader.load(tx, reads)

    def cached(self, cls: type[Row], key: Any) -> Row | None:
        if cls is ItemRow:
            return self._items.get(key)
        if cls is RunRow:
            return self._runs.get(key)
        if cls is LaneRow:
            return self._lanes.get(key)
        if cls is LeaseCountRow:
            return self._leases.get(key)
        return None

    def backlog(self) -> bool:
        """Whether items that could run here wait for a place."""
        return self._lanes.backlog(self.functions)

    def write(self, tx: Tx) -> bool:
        for cls, rows in tx.appended().items():
            if not self._insert(cls, rows):
                return False
        for cls, changes in tx.changes().items():
            if changes and cls not in sql.IN_MEMORY and not self._write_changes(tx, cls, changes):
                return False
        return True

    def _write_changes(self, tx: Tx, cls: type[Row], changes: dict[Any, Change]) -> bool:
        inserts: list[Row] = []
        puts: list[Row] = []
        deletes: list[Any] = []
        row_of = tx.row
        for key, change in changes.items():
            if change is Change.INSERT:
                inserts.append(row_of(cls, key))
            elif change is Change.PUT:
                puts.append(row_of(cls, key))
            else:
                deletes.append(key)
        if inserts and not self._insert(cls, inserts):
            return False
        if puts:
            self._put(cls, puts)
        if deletes:
            self._delete(cls, deletes)
        return True

    def _insert(self, cls: type[Row], rows: list[Row]) -> bool:
        for start in range(0, len(rows), MAX_ROWS):
            part = rows[start : start + MAX_ROWS]
            if self._conn.execute(sql.insert(cls, len(part)), _flat(part)).rowcount != len(part):
                return False
        return True

    def _put(self, cls: type[Row], rows: list[Row]) -> None:
        if cls in sql.FIXED:
            self._update(cls, rows)
            return
        for start in range(0, len(rows), MAX_ROWS):
            part = rows[start : start + MAX_ROWS]
            self._conn.execute(sql.put(cls, len(part)), _flat(part))

    def _update(self, cls: type[Row], rows: list[Row]) -> None:
        values_of = _CHANGING[cls]
        for start in range(0, len(rows), MAX_ROWS):
            part = rows[start : start + MAX_ROWS]
            values = [value for row in part for value in values_of(row)]
            if self._conn.execute(sql.update(cls, len(part)), values).rowcount != len(part):
                # some of them are new
                self._conn.execute(sql.insert(cls, len(part)), _flat(part))

    def _delete(self, cls: type[Row], keys: list[Any]) -> None:
        for start in range(0, len(keys), MAX_ROWS):
            part = keys[start : start + MAX_ROWS]
            self._conn.execute(sql.delete(cls, len(part)), sql.delete_values(cls, part))

    def rollback(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            if self._conn.in_transaction:
                self._conn.execute("ROLLBACK")

    def attempt(self, group: list[Plan[Any]], then: Callable[[Attempt], None], *, hold: bool) -> None:
        then(attempt_here(self, group))

    def commit(self, attempt: Attempt, done: Callable[[BaseException | None], None]) -> None:
        self._commits.put(lambda: self._commit_now(done))

    def _commit_now(self, done: Callable[[BaseException | None], None]) -> None:
        error: BaseException | None = None
        try:
            self._conn.execute("COMMIT")
        except Exception as caught:
            error = caught
            if isinstance(self.translate(caught), StoreFailedError):
                self.checkpointer.give_up()
        with contextlib.suppress(RuntimeError):  # the loop was closed over a running commit: nobody is left to tell
            self._loop.call_soon_threadsafe(done, error)

    def _checkpoint_failed(self, error: sqlite3.Error) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nothing is accepted any more anyway
            self._loop.call_soon_threadsafe(self.group.close, self.translate(error))

    def _commit_loop(self) -> None:
        while (job := self._commits.get()) is not None:
            job()

    def committed(self, tx: Tx) -> None:
        changes = tx.changes()
        items, runs = self._items, self._runs
        for run_id, change in changes.get(RunRow, {}).items():
            row = tx.row(RunRow, run_id)
            if change is not Change.DELETE and row.ended_at is None:
                runs[run_id] = row
            else:
                runs.pop(run_id, None)
        for item_id, change in changes.get(ItemRow, {}).items():
            item = tx.row(ItemRow, item_id)
            if change is not Change.DELETE and item.state == ItemState.LEASED:
                items[item_id] = item
                if item.run_id not in runs:
                    run = tx.get(RunRow, item.run_id)
                    if run is not None:
                        runs[item.run_id] = run
            else:
                items.pop(item_id, None)
                runs.pop(item_id[:16], None)
        for gate, change in changes.get(LeaseCountRow, {}).items():
            if change is Change.DELETE:
                self._leases.pop(gate, None)
            else:
                self._leases[gate] = tx.row(LeaseCountRow, gate)
        lanes = changes.get(LaneRow)
        if lanes:
            self._apply_lanes(tx, lanes)
        if AlarmRow in changes or GatherRow in changes:
            self._announce_alarms(tx, changes)
        for key, change in changes.get(WaitRow, {}).items():
            if change is not Change.DELETE:
                self.expect(tx.row(WaitRow, key).lookup)
        self.checkpointer.wrote()

    def _announce_alarms(self, tx: Tx, changes: dict[type[Row], dict[Any, Change]]) -> None:
        due = [
            tx.row(AlarmRow, key).at for key, change in changes.get(AlarmRow, {}).items() if change is not Change.DELETE
        ]
        due += [
            tx.row(GatherRow, key).due
            for key, change in changes.get(GatherRow, {}).items()
            if change is not Change.DELETE
        ]
        if due and self.on_alarm is not None:
            self._loop.call_soon(self.on_alarm, min(due))

    def _apply_lanes(self, tx: Tx, changes: dict[Any, Change]) -> None:
        for lane, change in changes.items():
            if change is Change.DELETE:
                self._lanes.remove(lane)
            else:
                self._lanes.put(tx.row(LaneRow, lane))
        if self.on_lanes is not None:
            self._loop.call_soon(self.on_lanes)

    def expect(self, lookup: str) -> None:
        """From now on somebody may wait under this lookup. Said before the wait is written, not after: an event that comes
        while its group is being synced must look for it already.
        """
        if lookup.startswith(CHILD_LOOKUP):
            return  # ended by the run itself, not by an event
        name, _, rest = lookup.partition("\0")
        self._wait_paths.setdefault(name, set()).add(rest.partition("\0")[0])

    def translate(self, error: BaseException) -> BaseException:
        if isinstance(error, StoreError) or not isinstance(error, sqlite3.Error):
            return error
        code = getattr(error, "sqlite_errorname", "") or ""
        # the -shm file is scratch: where it can't grow, the disk is full and nothing is lost
        if code in {"SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"} or "disk is full" in str(error):
            return StoreFullError(
                f"the disk that holds {self.path} is full; free some space, writing resumes by itself"
            )
        if code.startswith("SQLITE_IOERR"):
            return StoreFailedError(
                f"the disk that holds {self.path} failed ({code}): holdfast stopped accepting work, because what a failed "
                "sync left behind can't be known; check the disk and restart"
            )
        if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return StoreBusyError(
                f"another process holds {self.path} locked; end its transaction, writing resumes by itself"
            )
        return StoreError(f"{self.path}: {error}")

    # -- reading outside groups --------------------------------------------------------------------------------------

    async def read(self, reads: Sequence[Read]) -> Tx:
        """Committed rows, for the engine's own use between groups."""
        return self.fetch(reads)

    def fetch_then(self, reads: Sequence[Read], then: Callable[[Tx], None]) -> None:
        """Read committed rows, and call back with them on the loop: here at once."""
        then(self.fetch(reads))

    def fetch(self, read: Sequence[Read]) -> Tx:
        """Committed rows, for the engine's own use between groups: what a run needs when it enters memory."""
        tx = Tx(self.clock.now(), self.boot)
        self._reading.load(tx, read)
        return tx


_CHANGING = {cls: attrgetter(*sql.changing(cls)) for cls in sql.FIXED}


def _flat(rows: list[Row]) -> list[Any]:
    if len(rows) == 1:
        return astuple(rows[0])  # type: ignore[return-value]
    flat: list[Any] = []
    for row in rows:
        flat.extend(astuple(row))
    return flat
