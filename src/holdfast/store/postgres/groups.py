"""One group on PostgreSQL: begun, loaded, decided, written and committed in a thread, with one wake-up of the loop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Protocol
from zlib import crc32

import psycopg

from holdfast.base.errors import StoreBusyError, StoreUnreachableError
from holdfast.core.completion import complete
from holdfast.core.plan import Arrival, Plan, Tx
from holdfast.core.rows import AlarmRow, GatherRow, ItemRow
from holdfast.store.group import Attempt, decide_all
from holdfast.store.postgres import statements as sql
from holdfast.store.postgres.connection import (
    TRANSACTION_SETTINGS,
    Connection,
    Cursor,
    Settings,
    conflicting,
    translate,
)
from holdfast.store.postgres.loading import Loader, Round, RunCache
from holdfast.store.postgres.migrating import lock_key
from holdfast.store.postgres.roster import NAME_SESSION, session_name
from holdfast.store.postgres.statements import Statements
from holdfast.store.postgres.threads import DatabaseThread
from holdfast.store.postgres.values import Ints, Texts, from_text
from holdfast.store.postgres.writing import ConflictError, Writing

_log = logging.getLogger("holdfast")

MAX_TRIES = 30
"""How often a group is decided anew because other nodes were in between."""
_ASK_SECONDS = 0.25
_BUCKETS = 64


class FencedError(Exception):
    """The other nodes have declared this one dead: it goes on as a new one."""


class GroupTx(Tx):
    """The overlay of a group, with what the store has to remember of it after the commit."""

    __slots__ = ("loader", "moments", "paths")

    loader: Loader
    moments: dict[str, int | None]
    """When the first `timer` and the first `alarm` are due, where the group has changed or looked at some."""
    paths: set[tuple[str, str]]
    """Paths by which runs wait for events, as far as this group has met them."""


class Paths(Protocol):
    """What is known of the paths by which runs wait for events."""

    def known(self, name: str) -> set[str] | frozenset[str]: ...
    def missing(self, name: str, path: str) -> bool: ...


class GroupThread(DatabaseThread):
    """The thread that commits groups.

    Args:
        settings: Where the database is.
        conn: A connection to begin with.
        statements: Those of the schema.
        cache: What is in memory of runs leased here.
        paths: What is known of wait paths.
        rejoin: Makes this process a new node, and returns nothing; called in the thread.
        now: Reads the clock.
    """

    def __init__(
        self,
        settings: Settings,
        conn: Connection,
        statements: Statements,
        cache: RunCache,
        paths: Paths,
        rejoin: Callable[[Connection], None],
        now: Callable[[], int],
    ) -> None:
        super().__init__(settings, "groups", conn)
        self._sql = statements
        self._cache = cache
        self._paths = paths
        self._rejoin = rejoin
        self._now = now
        self._named: tuple[Connection, int] | None = None
        self._space = lock_key(settings.schema) & 0xFFFFFFFF

    def connection(self) -> Connection:
        """The connection, under the name of this node, so that the others can end it should the node hang in a group."""
        conn = super().connection()
        named = conn, self._cache.boot
        if self._named != named and not self.settings.pooled:
            conn.execute(NAME_SESSION, [session_name(self.settings.schema, self._cache.boot)])
            self._named = named
        return conn

    def attempt(self, group: list[Plan[Any]], overlay: Callable[[], GroupTx], *, hold: bool) -> Attempt:
        """Bring a group as far as it gets.

        Args:
            group: Its plans.
            overlay: Makes an empty overlay.
            hold: Whether to stop before the commit.
        """
        tries = 0
        while True:
            tries += 1
            try:
                return self._once(group, overlay(), hold=hold)
            except FencedError:
                self.rollback()
                try:
                    self._rejoin(self.connection())
                except Exception as error:
                    self.failed(error)
                    return Attempt(error=translate(error, self.settings, self._conn))
            except Exception as error:
                again = isinstance(error, ConflictError) or conflicting(error)
                found = translate(error, self.settings, self._conn)
                if not self.failed(error):
                    self.rollback()
                if not again:
                    return Attempt(error=found)
            if tries >= MAX_TRIES:
                return Attempt(
                    error=StoreBusyError("other nodes keep changing what is being decided; it is tried again")
                )

    def rollback(self) -> None:
        """Give up what was begun."""
        conn = self._conn
        if conn is not None:
            try:
                conn.execute("ROLLBACK")
            except psycopg.Error as error:
                self.failed(error)

    # -- one try -----------------------------------------------------------------------------------------------------------

    def _once(self, group: list[Plan[Any]], tx: GroupTx, *, hold: bool) -> Attempt:
        conn = self.connection()
        tx.loader = loader = Loader(self._sql, tx, self._cache)
        tx.moments, tx.paths = {}, set()
        self._load(conn, group, tx, loader)
        broken = decide_all(group, tx)
        if broken is not None:
            self.rollback()
            return Attempt(broken=broken)
        xid = self._write(conn, group, tx, loader)
        if xid is None:
            self.rollback()
            return Attempt(unique=False)
        if hold:
            return Attempt(tx=tx, token=xid)
        error = self.commit(xid)
        return Attempt(tx=tx, error=error, committed=error is None)

    def _load(self, conn: Connection, group: list[Plan[Any]], tx: GroupTx, loader: Loader) -> None:
        step = Round()
        step.add(sql.BEGIN)
        if self.settings.pooled:
            step.add(*TRANSACTION_SETTINGS)
        step.add(self._sql.sql(sql.CHECK_NODE), [tx.owner], _check_node)
        arrivals = [arrival for plan in group for arrival in plan.arrivals()]
        self._lock_names(step, arrivals, group, tx)
        loader.load(conn, [read for plan in group for read in plan.reads()], step)
        # a run on another node may have begun to wait by a path nobody here knew of: look again by that one
        late = [arrival for arrival in arrivals if arrival.route_by(self._all_paths(arrival.event_name, tx))]
        if late:
            loader.load(conn, [read for plan in group for read in plan.reads()])
        tx.size = sum(plan.parts for plan in group) + 64
        # rows may have been waited for: what others have decided meanwhile must not lie in this group's future
        tx.now = max(tx.now, self._now())
        complete(tx, lambda _, reads: loader.load(conn, reads))

    def _all_paths(self, name: str, tx: GroupTx) -> set[str]:
        return {path for known, path in tx.paths if known == name} | set(self._paths.known(name))

    def _lock_names(self, step: Round, arrivals: list[Arrival], group: list[Plan[Any]], tx: GroupTx) -> None:
        """An event that comes, and a wait for it that is being registered, take turns: one of them sees the other."""
        names = {arrival.event_name for arrival in arrivals}
        waited = {lookup.partition("\0")[0] for plan in group for lookup in plan.awaits()}
        excluded = {name for plan in group for name in plan.excludes()}
        if not (names or waited or excluded):
            return
        alone = {self._bucket(name): 0 for name in names}
        alone.update((self._bucket(name), 1) for name in (*waited, *excluded))
        buckets = sorted(alone)
        step.add(sql.LOCK_NAMES, [Ints(buckets), Ints([alone[bucket] for bucket in buckets])])
        if names:
            step.add(self._sql.sql(sql.PATHS_OF), [Texts(sorted(names))], lambda cursor: _take_paths(cursor, tx))

    def _bucket(self, name: str) -> int:
        return (self._space << 8) | (crc32(name.encode()) % _BUCKETS)

    def _write(self, conn: Connection, group: list[Plan[Any]], tx: GroupTx, loader: Loader) -> str | None:
        """Write what was decided; the transaction's id, or None when a row that must be new was there already."""
        step = Round()
        self._add_paths(step, group, tx)
        writing = Writing(self._sql, tx, loader)
        writing.go(conn, step)
        if not writing.unique:
            return None
        xid: list[str] = []
        step.add(sql.TRANSACTION_ID, (), lambda cursor: xid.extend(row[0] for row in cursor.fetchall()))
        changes = tx.changes()
        if loader.claimed or not loader.timed.isdisjoint(changes.get(ItemRow, ())):
            step.add(
                self._sql.sql(sql.NEXT_TIMER), (), lambda cursor: tx.moments.__setitem__("timer", value_of(cursor))
            )
        if changes.get(AlarmRow) or changes.get(GatherRow):
            step.add(
                self._sql.sql(sql.NEXT_ALARM), (), lambda cursor: tx.moments.__setitem__("alarm", value_of(cursor))
            )
        step.go(conn)
        return xid[0]

    def _add_paths(self, step: Round, group: Iterable[Plan[Any]], tx: GroupTx) -> None:
        fresh = []
        for plan in group:
            for lookup in plan.awaits():
                name, _, rest = lookup.partition("\0")
                path = rest.partition("\0")[0]
                tx.paths.add((name, path))
                if self._paths.missing(name, path):
                    fresh.append((name, path))
        if fresh:
            fresh = sorted(set(fresh))
            step.add(
                self._sql.sql(sql.ADD_PATHS), [Texts([name for name, _ in fresh]), Texts([path for _, path in fresh])]
            )

    # -- the commit --------------------------------------------------------------------------------------------------------

    def commit(self, xid: str) -> BaseException | None:
        """Commit; None once it is durable, else why it certainly is not."""
        conn = self._conn
        if conn is None:
            return StoreUnreachableError("the connection was lost before the commit; nothing of it was kept")
        try:
            conn.execute("COMMIT")
        except psycopg.Error as error:
            found = translate(error, self.settings, conn)
            if not self.failed(error):
                self.rollback()
                return found
            return self._outcome(xid, found)
        return None

    def _outcome(self, xid: str, found: BaseException) -> BaseException | None:
        """The connection was lost over a commit: ask until the server says what became of it."""
        _log.warning("the connection was lost during a commit; asking what became of it: %s", found)
        while True:
            try:
                row = self.connection().execute(sql.OUTCOME, [xid]).fetchone()
                status = row[0] if row is not None else None
            except Exception as error:
                if (
                    getattr(error, "sqlstate", None) == "22023"
                ):  # no such transaction yet: its server never wrote it down
                    status = "aborted"
                else:
                    self.failed(error)
                    status = "unknown"
            if status == "committed":
                return None
            if status in {"aborted", None}:
                return found
            if self.stopping.wait(_ASK_SECONDS):
                return found


def _check_node(cursor: Cursor) -> None:
    row = cursor.fetchone()
    if row is None or not row[0]:
        raise FencedError


def _take_paths(cursor: Cursor, tx: GroupTx) -> None:
    tx.paths.update((from_text(name), from_text(path)) for name, path in cursor.fetchall())


def value_of(cursor: Cursor) -> Any:
    """The one value that a statement gives; None when it gives no row."""
    row = cursor.fetchone()
    return None if row is None else row[0]
