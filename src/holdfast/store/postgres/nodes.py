"""The nodes on one database: who is alive, who has the background duties, and what they tell each other.

A node's lease is renewed from a thread with a connection of its own, so that a blocked loop or a long transaction doesn't
lose it. Notifications only save time: whoever misses one finds out by looking a little later.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable

import msgspec
import psycopg

from holdfast.base.clock import monotonic
from holdfast.base.errors import StoreError
from holdfast.store.api import MANY_CHANGED, Signal
from holdfast.store.postgres import roster
from holdfast.store.postgres import statements as sql
from holdfast.store.postgres.connection import Connection, Settings, connect, discard
from holdfast.store.postgres.statements import Statements

_log = logging.getLogger("holdfast")

_RECONNECT_SECONDS = 1.0
_LOOK_SECONDS = 0.5
NOTIFY = "SELECT pg_notify(%s, %s)"


class Said(msgspec.Struct, gc=False):
    """A notification."""

    node: int
    """Who says it."""
    signal: Signal


def _everything(node: int) -> Signal:
    changed = {MANY_CHANGED}
    return Signal(
        work=True, alarms=True, ended=True, states=True, functions=True, nodes=True, changed=changed, woken={node}, outbox=True
    )


def said(node: int, signal: Signal) -> str:
    """What a node tells, as it travels."""
    return msgspec.json.encode(Said(node, signal)).decode()


class Membership:
    """A thread that renews this node's lease, takes over the duties of a leader when there is none, and tells other nodes.

    Args:
        settings: Where the database is.
        statements: Those of the schema.
        node: This node's number.
        looked: Called in the thread after each renewal, with this object up to date.
        fenced: Called in the thread when the others have declared this node dead.
        timed: Called in the thread with the database's time in ms, and the monotonic moments between which it was read.
    """

    def __init__(
        self,
        settings: Settings,
        statements: Statements,
        node: int,
        *,
        looked: Callable[[], None],
        fenced: Callable[[], None],
        timed: Callable[[float, float, float], None],
    ) -> None:
        self._settings = settings
        self._sql = statements
        self.node = node
        self._looked = looked
        self._fenced = fenced
        self._timed = timed
        self.leads = False
        """Whether the background duties are this node's."""
        self.others = 0
        """Other nodes alive."""
        self.accompanied = False
        """Whether there were any at the last look but one: what they said last may have been missed."""
        self.dead = 0
        """Nodes declared dead whose items may not have been recovered yet."""
        self.watched = False
        """Whether somebody at another node looks at what happens."""
        self.load: Callable[[], roster.Load] = roster.Load
        """What this node says of itself; called in the thread."""
        self._conn: Connection | None = None
        self._outbox = Signal()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._next = 0.0
        self._thread = threading.Thread(target=self._run, name="holdfast-lease", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; the lease is left as it is."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        discard(self._conn)

    def tell(self, signal: Signal) -> None:
        """Tell the other nodes, soon, together with what else there is to tell."""
        # a node that has just come has not been counted yet; it looks by itself for what is common
        if self.others or signal.states or signal.woken or signal.functions or signal.nodes:
            with self._lock:
                self._outbox.add(signal)
            self._wake.set()

    def look_soon(self) -> None:
        """Renew and look now; from any thread."""
        self._next = 0.0
        self._wake.set()

    def look(self, conn: Connection) -> None:
        """Renew the lease, and see how things stand."""
        settings, statements, node = self._settings, self._sql, self.node
        if not roster.renew(conn, statements, settings, node, self.load()):
            self._fenced()
            return
        self.leads = roster.lead(conn, statements, settings, node)
        if self.leads:
            roster.bury(conn, statements)
            roster.forget(conn, statements)
        state = roster.state(conn, statements, node)
        known, self.accompanied = self.others, self.others > 0
        self.others, self.dead, self.watched = max(0, state.alive - 1), state.unsettled, state.watched
        if self.others > known:
            # what was not told while nobody seemed to be there
            self.tell(Signal(work=True, alarms=True, states=True, functions=True))
        before = monotonic()
        row = conn.execute(sql.DATABASE_TIME).fetchone()
        assert row is not None
        self._timed(float(row[0]), before, monotonic())

    # -- in the thread -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        every = self._settings.lease_seconds / 3
        if self._settings.pooled:  # nobody tells: what other nodes do is only found by looking
            every = min(every, _LOOK_SECONDS)
        self._next = monotonic() + every
        while not self._stopping:
            self._wake.wait(max(0.0, self._next - monotonic()))
            self._wake.clear()
            try:
                if self._conn is None:
                    self._conn = connect(self._settings, "lease")
                # what the others are told to look at is written by then
                if monotonic() >= self._next and not self._stopping:
                    self._next = monotonic() + every
                    self.look(self._conn)
                    self._looked()
                self._send(self._conn)
            except Exception as error:
                expected = isinstance(error, psycopg.Error | StoreError)
                said = str(error).partition("\n")[0]
                _log.warning("node %d could not renew its lease: %s", self.node, said, exc_info=not expected)
                discard(self._conn)
                self._conn = None
                self._next = monotonic() + _RECONNECT_SECONDS

    def _send(self, conn: Connection) -> None:
        with self._lock:
            signal, self._outbox = self._outbox, Signal()
        if not signal.says_something:
            return
        try:
            conn.execute(NOTIFY, (channel(self._settings), said(self.node, signal)))
        except psycopg.Error:
            self.tell(signal)  # over the next connection
            raise


def channel(settings: Settings) -> str:
    """The notification channel of a schema."""
    return f"holdfast_{settings.schema}"


class Listener:
    """A thread that hears what other nodes tell. Not behind a pooler in transaction mode: there, nodes only look.

    Args:
        settings: Where the database is.
        node: This node's number, now.
        heard: Called in the thread.
    """

    def __init__(self, settings: Settings, node: Callable[[], int], heard: Callable[[Signal], None]) -> None:
        self._settings = settings
        self._node = node
        self._heard = heard
        self._conn: Connection | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="holdfast-listen", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        conn = self._conn
        if conn is not None:
            # the thread waits for this socket: shutting it down wakes it
            with contextlib.suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(conn.fileno())) as sock:
                sock.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive():
            self._thread.join()
        discard(self._conn)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                conn = self._conn = connect(self._settings, "listen")
                if self._stopping.is_set():
                    return
                conn.execute(f'LISTEN "{channel(self._settings)}"'.encode())
                self._heard(_everything(self._node()))  # whatever was said meanwhile
                for notification in conn.notifies():
                    self._take(notification.payload)
            except (psycopg.Error, StoreError) as error:
                if not self._stopping.is_set():
                    _log.info("listening is interrupted, looking goes on: %s", str(error).partition("\n")[0])
            discard(self._conn)
            self._conn = None
            self._stopping.wait(_RECONNECT_SECONDS)

    def _take(self, payload: str) -> None:
        try:
            told = msgspec.json.decode(payload, type=Said)
        except msgspec.DecodeError:  # from a newer node: whatever it says, there is something to look at
            told = Said(0, _everything(self._node()))
        if told.node != self._node():
            self._heard(told.signal)
