"""The PostgreSQL store: any number of equal nodes on one database, each with one writing connection in a thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import psycopg

from holdfast.base.clock import Clock, FollowingClock
from holdfast.base.errors import StoreError
from holdfast.core.flow import Flow
from holdfast.core.plan import Plan, Read, Tx
from holdfast.core.rows import (
    AlarmRow,
    GatherRow,
    ItemRow,
    LaneRow,
    OutboxRow,
)
from holdfast.store.api import SharedStore, Signal
from holdfast.store.group import Attempt, GroupCommit
from holdfast.store.postgres import statements as sql
from holdfast.store.postgres.catalogue import Catalogue
from holdfast.store.postgres.connection import Connection, connect, discard, parse_url, settle, translate
from holdfast.store.postgres.groups import GroupThread, GroupTx, value_of
from holdfast.store.postgres.loading import Loader
from holdfast.store.postgres.memory import Memory
from holdfast.store.postgres.migrating import check_version, migrate_postgres
from holdfast.store.postgres.neighbours import Neighbours
from holdfast.store.postgres.nodes import NOTIFY, Listener, Membership, channel, said
from holdfast.store.postgres.registry import (
    bind,
)
from holdfast.store.postgres.retention import Pruner
from holdfast.store.postgres.roster import bury, enrol, retire
from holdfast.store.postgres.statements import Statements
from holdfast.store.postgres.threads import DatabaseThread, tell
from holdfast.store.postgres.values import from_text, to_text

T = TypeVar("T")
_log = logging.getLogger("holdfast")
_NO_PATHS: frozenset[str] = frozenset()
_RECOVERED_AT_ONCE = 500
_RETRY_SECONDS = 0.25
_CLAIM_AGAIN_SECONDS = 0.05


class PostgresStore(Catalogue, Neighbours, Memory):
    """All state of a holdfast in one schema of a PostgreSQL database, shared by any number of nodes.

    Args:
        url: `postgresql://user:password@host/database?schema=holdfast`; see `connection.parse_url`.
        clock: Where `now` comes from; None follows the database's time.
        apps: Ids of the applications that open it; the schema stays bound to them.

    Raises:
        StoreError: the server can't be reached or refuses, or the schema is newer than this holdfast or somebody else's.
        ConfigurationError: the URL is not understood.
    """

    def __init__(self, url: str, clock: Clock | None = None, apps: tuple[str, ...] = ()) -> None:
        self.settings = parse_url(url)
        self.url = self.settings.shown
        self._followed = FollowingClock() if clock is None else None
        self.clock: Clock = clock or self._followed  # type: ignore[assignment]
        self._sql = Statements(self.settings.schema)
        Memory.__init__(self)
        self.flows: dict[int, Flow] = {}
        """The flow control of the functions that have any."""
        """How functions were paused, and their limits changed, when this node began."""
        self.paused: dict[int, str] = {}
        """Functions that are paused, and how."""
        self._room: Callable[[], int] = lambda: 0
        self._signalled: Callable[[Signal], None] | None = None
        self._looked: Callable[[], None] | None = None
        self._pruner = Pruner(self._sql)
        self._closed = False
        self.boot = 0
        conn = connect(self.settings, "groups")
        try:
            self._open(conn, apps)
        except psycopg.Error as error:
            discard(conn)
            raise translate(error, self.settings, conn) from error
        except BaseException:
            discard(conn)
            raise
        self._groups = GroupThread(self.settings, conn, self._sql, self, self, self._rejoin, self.clock.now)
        self._reads = DatabaseThread(self.settings, "reads")
        self._listener = Listener(self.settings, lambda: self.boot, self._heard)
        self.group: GroupCommit
        self.membership.start()

    def _open(self, conn: Connection, apps: tuple[str, ...]) -> None:
        migrate_postgres(conn, self.settings, self.clock.now())
        settle(conn, self.settings)
        bind(conn, self._sql, self.settings, apps)
        bury(conn, self._sql)
        self.boot = enrol(conn, self._sql, self.settings)
        try:
            check_version(conn, self.settings)
        except BaseException:
            retire(conn, self._sql, self.boot)
            raise
        self.membership = Membership(
            self.settings, self._sql, self.boot, looked=self._on_look, fenced=self._on_fenced, timed=self._timed
        )
        self.membership.look(conn)
        lanes = self._sql[LaneRow]
        for row in lanes.rows(conn.execute(self._sql.sql(sql.ALL_LANES.replace("{lanes}", lanes.columns))).fetchall()):
            self._lanes.put(row)
        for name, path in conn.execute(self._sql.sql(sql.ALL_PATHS)):
            self._know_path(from_text(name), from_text(path))
        self._next_timer = value_of(conn.execute(self._sql.sql(sql.NEXT_TIMER)))
        self._next_alarm = value_of(conn.execute(self._sql.sql(sql.NEXT_ALARM)))

    def _timed(self, ms: float, before: float, after: float) -> None:
        if self._followed is not None:
            self._followed.set(ms, before, after)

    # -- life --------------------------------------------------------------------------------------------------------------

    def start(self, room: Callable[[], int], functions: frozenset[int]) -> None:
        """Begin to take plans on the running loop.

        Args:
            room: How many more runs this node can execute now.
            functions: Ids of the functions it can execute now.
        """
        self.functions = functions
        self._room = room
        self._loop = asyncio.get_running_loop()
        self.group = GroupCommit(self)
        self._groups.start()
        self._reads.start()
        if not self.settings.pooled:
            self._listener.start()

    @property
    def shared(self) -> SharedStore:
        """This store: other nodes may share it."""
        return self

    def follow(self, signalled: Callable[[Signal], None] | None, looked: Callable[[], None] | None) -> None:
        """Be told, on the loop, what other nodes say, and when it is time to look what they did not say."""
        self._signalled = signalled
        self._looked = looked

    def submit(self, plan: Plan[Any]) -> asyncio.Future[Any]:
        """Queue a plan for the next group."""
        return self.group.submit(plan)

    async def close(self) -> None:
        """Finish what was submitted, and leave the other nodes what is not."""
        await self.group.drain()
        self.group.close()
        await self.abandon()

    async def abandon(self) -> None:
        """Leave; what is not committed is lost, and what this node still leases is recovered by others at once."""
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._leave)

    def _leave(self) -> None:
        self._listener.stop()
        self.membership.stop()
        self._reads.stop()
        if self._loop is None:
            self._retire()
        else:
            self._groups.put(self._retire)
        self._groups.stop()

    def _retire(self) -> None:
        try:
            conn = self._groups.connection()
            retire(conn, self._sql, self.boot)
            leaving = said(self.boot, Signal(work=True, nodes=True))
            conn.execute(NOTIFY, (channel(self.settings), leaving))
        except (psycopg.Error, StoreError) as error:
            _log.warning("node %d leaves without a word, its lease runs out: %s", self.boot, error)

    # -- before it starts, and seldom --------------------------------------------------------------------------------------

    def leased_by_others(self) -> list[ItemRow]:
        """Items that dead nodes left leased. Blocks; for the start."""
        return self._now(lambda conn: self._left_behind(conn, b""))

    async def outbox(self, after: bytes, limit: int) -> list[OutboxRow]:
        """Events that transactions of the application have sent, by rising id, from after one on."""
        return await self._reads.run(lambda conn: self._rows(conn, OutboxRow, sql.OUTBOX, after, limit))

    async def left_behind(self) -> list[ItemRow]:
        """Some of the items that dead nodes left leased."""
        return await self._reads.run(lambda conn: self._left_behind(conn, b"", _RECOVERED_AT_ONCE))

    def _left_behind(self, conn: Connection, after: bytes, limit: int = 1_000_000) -> list[ItemRow]:
        statement = self._sql.sql(sql.LEASED_BY_DEAD).decode()
        return self._rows(conn, ItemRow, statement, after, limit)

    async def due_alarms(self, now: int, limit: int) -> list[AlarmRow]:
        """Alarms that are due, oldest first."""
        found, self._next_alarm = await self._reads.run(
            lambda conn: (
                self._rows(conn, AlarmRow, sql.DUE_ALARMS, now, limit),
                value_of(conn.execute(self._sql.sql(sql.NEXT_ALARM))),
            )
        )
        return found

    async def due_gathers(self, now: int, limit: int) -> list[GatherRow]:
        """Debounces and batches whose time has come, oldest first."""
        return await self._reads.run(lambda conn: self._rows(conn, GatherRow, sql.DUE_GATHERS, now, limit))

    async def gathers_of(self, function_id: int, limit: int = 1000, key: str | None = None) -> list[GatherRow]:
        """The debounces and batches of a function that wait, of one key if it is given; those that are due first."""
        wanted = None if key is None else to_text(key)
        return await self._reads.run(
            lambda conn: self._rows(conn, GatherRow, sql.GATHERS_OF, function_id, wanted, wanted, limit)
        )

    async def gather_of(self, run_id: bytes) -> GatherRow | None:
        """The debounce or batch that will be this run."""
        found = await self._reads.run(lambda conn: self._rows(conn, GatherRow, "run_id = %s", run_id))
        return found[0] if found else None

    async def prune(self, runs_ms: int, dead_letters_ms: int) -> bool:
        """Go through one slice of what is old, if that is this node's duty; whether there is more to go through."""
        if not self.membership.leads:
            return False
        now = self.clock.now()
        return await self._reads.run(lambda conn: self._pruner.prune(conn, now, runs_ms, dead_letters_ms))

    @property
    def problem(self) -> str | None:
        """What keeps the database from being written to, if something does that may pass."""
        hindered = self.group.hindered
        return None if hindered is None else str(hindered)

    # -- group commit ------------------------------------------------------------------------------------------------------

    def attempt(self, group: list[Plan[Any]], then: Callable[[Attempt], None], *, hold: bool) -> None:
        loop = self._loop
        assert loop is not None
        self._lanes.promote(self.clock.now())
        room, backlog, functions, paused = self._room(), self.backlog(), self.functions, dict(self.paused)

        def overlay() -> GroupTx:
            return GroupTx(self.clock.now(), self.boot, room, backlog, functions, self.flows, paused)

        def work() -> None:
            tell(loop, then, self._groups.attempt(group, overlay, hold=hold))

        self._groups.put(work)

    def rollback(self) -> None:
        self._groups.put(self._groups.rollback)

    def commit(self, attempt: Attempt, done: Callable[[BaseException | None], None]) -> None:
        loop = self._loop
        assert loop is not None
        self._groups.put(lambda: tell(loop, done, self._groups.commit(attempt.token)))

    def translate(self, error: BaseException) -> BaseException:
        return translate(error, self.settings)

    # -- reading outside groups --------------------------------------------------------------------------------------------

    async def read(self, reads: Sequence[Read]) -> Tx:
        """Committed rows, for the engine's own use between groups."""
        return await self._reads.run(lambda conn: self._committed_rows(conn, reads))

    def fetch_then(self, reads: Sequence[Read], then: Callable[[Tx], None]) -> None:
        """Read committed rows, and call back with them on the loop, however long the server is away."""
        loop = self._loop
        assert loop is not None

        def work() -> None:
            while True:
                try:
                    tx = self._committed_rows(self._reads.connection(), reads)
                except (psycopg.Error, StoreError) as error:
                    gone = self._reads.failed(error)
                    _log.warning("reading runs back failed and is tried again: %s", translate(error, self.settings))
                    if self._reads.stopping.wait(_RETRY_SECONDS if gone else 4 * _RETRY_SECONDS):
                        return
                else:
                    tell(loop, then, tx)
                    return

        self._reads.put(work)

    def _committed_rows(self, conn: Connection, reads: Sequence[Read]) -> Tx:
        tx = Tx(self.clock.now(), self.boot)
        Loader(self._sql, tx, lock=False).load(conn, reads)
        return tx

    # -- other nodes -------------------------------------------------------------------------------------------------------

    def _rejoin(self, conn: Connection) -> None:
        _log.warning(
            "node %d did not renew its lease in time and was declared dead: what it executed is recovered by others; it goes on "
            "as a new node",
            self.boot,
        )
        self.boot = self.membership.node = enrol(conn, self._sql, self.settings)

    def _on_fenced(self) -> None:
        if self._loop is not None:
            self._groups.put(self._rejoin_if_dead)

    def _rejoin_if_dead(self) -> None:
        try:
            conn = self._groups.connection()
            row = conn.execute(self._sql.sql(sql.CHECK_NODE), [self.boot]).fetchone()
            if row is None or not row[0]:
                self._rejoin(conn)
        except (psycopg.Error, StoreError) as error:
            self._groups.failed(error)

    def _on_look(self) -> None:
        if self._loop is not None and self._looked is not None:
            tell(self._loop, self._looked)

    def _heard(self, signal: Signal) -> None:
        if self._loop is not None and self._signalled is not None:
            tell(self._loop, self._signalled, signal)
