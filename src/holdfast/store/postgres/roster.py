"""The nodes on one database, as rows: coming, renewing, leaving, being declared dead, and who they are.

A node that has ended stays on record for a day, so that whoever looks sees that it has, and when.
"""

from __future__ import annotations

import os
import socket
from zlib import crc32

import msgspec

from holdfast.base.version import __version__
from holdfast.store.postgres.connection import Connection, Settings
from holdfast.store.postgres.statements import Statements
from holdfast.store.reads import NodeView

_ENROL = """
WITH n AS (INSERT INTO {s}nodes (name, host, pid, version) VALUES (%s, %s, %s, %s) RETURNING id)
INSERT INTO {s}node_leases (node_id, expires) SELECT id, clock_timestamp() + make_interval(secs => %s) FROM n RETURNING node_id
"""
_RENEW = """
UPDATE {s}node_leases l SET expires = clock_timestamp() + make_interval(secs => %s), seen = clock_timestamp(),
  in_flight = %s, capacity = %s, watching = %s
FROM {s}nodes n WHERE l.node_id = %s AND n.id = l.node_id AND NOT n.dead
"""
_LEAD = """
INSERT INTO {s}duties AS d (name, node_id, expires) VALUES ('leader', %s, clock_timestamp() + make_interval(secs => %s))
ON CONFLICT (name) DO UPDATE SET node_id = excluded.node_id, expires = excluded.expires
WHERE d.node_id = excluded.node_id OR d.expires < clock_timestamp()
"""
# a node in the middle of a group is passed over: the server ends its transaction, and the next look finds it
_BURY = """
UPDATE {s}nodes SET dead = true, ended_at = clock_timestamp() WHERE id IN (
  SELECT n.id FROM {s}nodes n JOIN {s}node_leases l ON l.node_id = n.id
  WHERE NOT n.dead AND l.expires < clock_timestamp() FOR UPDATE OF n SKIP LOCKED)
"""
# The server ends a transaction that is idle. One whose node was stopped in the middle of sending is not idle for it: it waits
# for the rest, with all its locks, for as long as the connection is there.
_CUT_OFF = """
SELECT pg_terminate_backend(a.pid) FROM {s}nodes n JOIN {s}node_leases l ON l.node_id = n.id
JOIN pg_stat_activity a ON a.application_name = %s || n.id AND a.datname = current_database()
WHERE NOT n.dead AND l.expires < clock_timestamp()
"""
NAME_SESSION = "SELECT set_config('application_name', %s, false)"
_STATE = """
SELECT count(*) FILTER (WHERE NOT n.dead), count(*) FILTER (WHERE n.dead AND NOT n.settled),
  coalesce(bool_or(l.watching) FILTER (WHERE NOT n.dead AND n.id <> %s), false)
FROM {s}nodes n JOIN {s}node_leases l ON l.node_id = n.id
"""
_SETTLE = """
UPDATE {s}nodes n SET settled = true WHERE dead AND NOT settled
  AND NOT EXISTS (SELECT 1 FROM {s}queue q WHERE q.owner = n.id AND q.state = 2)
"""
_FORGET = "DELETE FROM {s}nodes WHERE settled AND coalesce(ended_at, started_at) < clock_timestamp() - interval '1 day'"
_RETIRE = "UPDATE {s}nodes SET dead = true, stopped = true, ended_at = clock_timestamp() WHERE id = %s"
_RESIGN = "DELETE FROM {s}duties WHERE node_id = %s"
_NODES = """
SELECT n.id, n.name, n.host, n.pid, n.version, {ms:n.started_at}, {ms:l.seen}, {ms:n.ended_at}, l.in_flight, l.capacity,
  CASE WHEN n.stopped THEN 'stopped' WHEN n.dead THEN 'dead' WHEN l.expires < clock_timestamp() THEN 'silent' ELSE 'alive' END,
  d.node_id IS NOT NULL AND NOT n.dead AND d.expires >= clock_timestamp(),
  n.id = %s
FROM {s}nodes n JOIN {s}node_leases l ON l.node_id = n.id LEFT JOIN {s}duties d ON d.node_id = n.id AND d.name = 'leader'
ORDER BY n.dead, n.id DESC LIMIT %s
"""


class Load(msgspec.Struct, frozen=True):
    """What a node says of itself with each renewal."""

    in_flight: int = 0
    """Runs it executes."""
    capacity: int = 0
    """Runs it has room for in all."""
    watching: bool = False
    """Whether somebody there looks at what other nodes do."""


class State(msgspec.Struct, frozen=True):
    """How things stand among the nodes."""

    alive: int
    unsettled: int
    """Nodes that have ended, and may have left something leased."""
    watched: bool
    """Whether another node wants to be told of each change."""


def enrol(conn: Connection, statements: Statements, settings: Settings) -> int:
    """Become a node; the number under which it leases, never given twice."""
    host, pid = socket.gethostname(), os.getpid()
    name = f"{host} process {pid}"
    row = conn.execute(statements.sql(_ENROL), (name, host, pid, __version__, settings.lease_seconds)).fetchone()
    assert row is not None
    return int(row[0])


def renew(conn: Connection, statements: Statements, settings: Settings, node: int, load: Load) -> bool:
    """Renew a lease; False when the others have declared the node dead."""
    parameters = (settings.lease_seconds, load.in_flight, load.capacity, load.watching, node)
    return conn.execute(statements.sql(_RENEW), parameters).rowcount == 1


def lead(conn: Connection, statements: Statements, settings: Settings, node: int) -> bool:
    """Take or keep the duties of the leader; whether they are this node's."""
    return conn.execute(statements.sql(_LEAD), (node, settings.lease_seconds)).rowcount == 1


def bury(conn: Connection, statements: Statements) -> None:
    """Declare the nodes dead whose leases have run out; what one is in the middle of is broken off, and it is dead at the next look."""
    conn.execute(statements.sql(_BURY))
    conn.execute(statements.sql(_CUT_OFF), [session_name(statements.schema, "")])


def session_name(schema: str, node: object) -> str:
    """What the session is called in which a node commits its groups."""
    return f"holdfast groups {crc32(schema.encode()):08x}/{node}"


def state(conn: Connection, statements: Statements, node: int) -> State:
    """How things stand, as this node sees it."""
    row = conn.execute(statements.sql(_STATE), [node]).fetchone()
    assert row is not None
    return State(*row)


def settle(conn: Connection, statements: Statements) -> None:
    """Note that what these nodes left has been taken up, where nothing is leased to them any more."""
    conn.execute(statements.sql(_SETTLE))


def forget(conn: Connection, statements: Statements) -> None:
    """Forget nodes that ended long ago."""
    conn.execute(statements.sql(_FORGET))


def retire(conn: Connection, statements: Statements, node: int) -> None:
    """Leave: what this node still leases is up to the others at once."""
    conn.execute(statements.sql(_RETIRE), [node])
    conn.execute(statements.sql(_RESIGN), [node])


def nodes(conn: Connection, statements: Statements, node: int, limit: int) -> list[NodeView]:
    """The nodes, those that are alive first, the newest first."""
    found = conn.execute(statements.sql(_in_ms(_NODES)), [node, limit]).fetchall()
    return [NodeView(*row) for row in found]


def _in_ms(text: str) -> str:
    for name in ("n.started_at", "l.seen", "n.ended_at"):
        text = text.replace(f"{{ms:{name}}}", f"(extract(epoch FROM {name}) * 1000)::int8")
    return text
