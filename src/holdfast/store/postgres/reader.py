"""The reading side of the PostgreSQL store: answers off the loop, from transactions that can't write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from holdfast.base.clock import Clock
from holdfast.store.flow_reads import NOTHING_LEASED, FlowView, Leased
from holdfast.store.postgres.connection import parse_url
from holdfast.store.postgres.reading.pool import PostgresReadPool
from holdfast.store.reads import Overview, RunDetail
from holdfast.store.sqlite.reader import SqliteReader
from holdfast.store.sqlite.reading.detail import run_detail
from holdfast.store.sqlite.reading.flow import flow_views

_NO_FILE = Path("/nonexistent/holdfast")
_SIZE = """
SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::int8 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ? AND c.relkind = 'r'
"""


_GATES = "SELECT gate, used FROM lease_counts"
_FUNCTIONS = "SELECT r.function_id, count(*) FROM queue q JOIN runs r ON r.id = q.run_id WHERE q.state = 2 GROUP BY 1"


def _executing(conn: Any) -> Leased:
    """What all nodes execute now."""
    return Leased(dict(conn.execute(_GATES).fetchall()), dict(conn.execute(_FUNCTIONS).fetchall()))


class PostgresReader(SqliteReader):
    """Implements `holdfast.store.reads.Reader` over a schema: the same questions, asked of another database.

    Args:
        url: The store's URL; its schema must be there.
        clock: Where `now` comes from.
        connections: How many reads go on at once.
        time_limit: Seconds a read may take, waiting for its turn included.
    """

    def __init__(self, url: str, clock: Clock, *, connections: int = 2, time_limit: float = 5.0) -> None:
        self.settings = parse_url(url)
        self.clock = clock
        self.path = _NO_FILE
        self._leased = lambda: NOTHING_LEASED
        self._pool = PostgresReadPool(self.settings, connections=connections, time_limit=time_limit)

    async def run(self, run_id: str) -> RunDetail | None:
        """See `Reader.run`."""
        return await self._of_id(run_id, lambda conn, raw: run_detail(conn, raw, _executing(conn)))

    async def flow(self, function: str | None = None) -> Sequence[FlowView]:
        """See `Reader.flow`."""
        now = self.clock.now()
        return await self._pool.run(lambda conn: flow_views(conn, _executing(conn), now, function))

    async def overview(self, *, since: int, now: int, slices: int = 60) -> Overview:
        """See `Reader.overview`."""
        found = await super().overview(since=since, now=now, slices=slices)
        size = (await self._all(_SIZE, self.settings.schema))[0][0]
        return msgspec.structs.replace(found, store_bytes=size)
