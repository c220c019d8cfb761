"""Counting places: what leases and runs hold is written beside each of them, and the counts can be checked against it.

Both are written in one transaction, so they only ever differ if a part of the database was lost or changed by hand. A count
that is too high would hold runs up for ever, and nobody would see why: so the leader counts after each death of a node.
"""

from __future__ import annotations

import logging

from holdfast.store.postgres.connection import Connection
from holdfast.store.postgres.statements import Statements

_log = logging.getLogger("holdfast")

# one statement, and so one moment: no transaction is seen by halves
_DIFFERENT = """
WITH held AS (
  SELECT gate, count(*) AS used FROM {s}queue, unnest(string_to_array(held, E'\\n')) AS gate WHERE held <> '' GROUP BY gate
), counted AS (SELECT gate, used FROM {s}lease_counts UNION ALL SELECT gate, used FROM {s}run_counts)
SELECT gate, coalesce(held.used, 0), coalesce(counted.used, 0) FROM held FULL JOIN counted USING (gate)
WHERE coalesce(held.used, 0) <> coalesce(counted.used, 0) ORDER BY gate
"""
# whoever has looked at a count writes it before this is granted, and whoever looks afterwards sees what was set right
_ALONE = "LOCK TABLE {s}lease_counts, {s}run_counts IN EXCLUSIVE MODE"
_SET = "INSERT INTO {s}{table} (gate, used) VALUES (%s, %s) ON CONFLICT (gate) DO UPDATE SET used = excluded.used"
_DELETE = "DELETE FROM {s}{table} WHERE gate = %s"
_WAKE = "UPDATE {s}lanes SET blocked = 0, gate = '' WHERE blocked = 1 AND gate = ANY(%s::text[])"
_TABLES = {"l": "lease_counts", "r": "run_counts"}


def differences(conn: Connection, sql: Statements) -> list[tuple[str, int, int]]:
    """Gates whose count is not what is held: (gate, held, counted)."""
    return [(gate, held, counted) for gate, held, counted in conn.execute(sql.sql(_DIFFERENT))]


def audit(conn: Connection, sql: Statements) -> list[str]:
    """Set counts right that differ from what is held, and let those who wait there look again; the gates."""
    if not differences(conn, sql):
        return []
    with conn.transaction():
        conn.execute(sql.sql(_ALONE))
        found = differences(conn, sql)
        for gate, held, counted in found:
            _log.error("limit %s counted %d places, and %d are held: the count was set right", gate, counted, held)
            table = _TABLES[gate[0]]
            if held:
                conn.execute(sql.sql(_SET.replace("{table}", table)), (gate, held))
            else:
                conn.execute(sql.sql(_DELETE.replace("{table}", table)), (gate,))
    gates = [gate for gate, _, _ in found]
    if gates:
        conn.execute(sql.sql(_WAKE), [gates])
    return gates
