"""What is on record of functions, applications and schedules: read and written at the start, and seldom after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import psycopg

from holdfast.base.clock import Clock
from holdfast.core.flow import FunctionState
from holdfast.core.rows import AlertRow, BulkRow, CronRow, Row
from holdfast.store.api import Signal
from holdfast.store.postgres import statements as sql
from holdfast.store.postgres.connection import Connection, Settings, connect, discard, translate
from holdfast.store.postgres.nodes import Membership
from holdfast.store.postgres.registry import (
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
from holdfast.store.postgres.statements import Statements
from holdfast.store.postgres.threads import DatabaseThread
from holdfast.store.sqlite.registry import AppRecord, Registration

T = TypeVar("T")


class Catalogue:
    """The part of a store that answers for what is registered. What isn't awaited blocks, and is for the start of a node."""

    settings: Settings
    clock: Clock
    membership: Membership
    _sql: Statements
    _reads: DatabaseThread

    async def set_function(self, function_id: int, *, paused: str | None, limits: Mapping[str, int]) -> None:
        """Record whether a function is paused, and the limits that were changed while it runs."""
        await self._reads.run(lambda conn: set_state(conn, self._sql, function_id, paused, limits))
        self.membership.tell(Signal(states=True))

    def function_states(self) -> dict[int, FunctionState]:
        """How functions are paused, and which of their limits were changed, where anything is. Before `start`."""
        return self._now(lambda conn: states(conn, self._sql))

    async def function_states_now(self) -> dict[int, FunctionState]:
        """How functions are paused, and which of their limits were changed, where anything is."""
        return await self._reads.run(lambda conn: states(conn, self._sql))

    def register(self, registrations: Sequence[Registration]) -> dict[str, tuple[int, int]]:
        """Record the functions of this process; their ids and versions by slug. Before `start`."""
        known = self._now(lambda conn: register(conn, self._sql, registrations, self.clock.now()))
        self.membership.tell(Signal(functions=True))
        return known

    async def register_app(
        self, record: AppRecord, registrations: Sequence[Registration]
    ) -> dict[str, tuple[int, int]]:
        """Record an application that is called over HTTP and its functions, while the store is at work; ids and versions by slug."""
        now = self.clock.now()
        known = await self._reads.run(lambda conn: register_app(conn, self._sql, record, registrations, now))
        self.membership.tell(Signal(functions=True))
        return known

    async def put_app(self, record: AppRecord) -> None:
        """Record what is known of such an application."""
        await self._reads.run(lambda conn: put_app(conn, self._sql, record))
        self.membership.tell(Signal(functions=True))

    async def delete_app(self, name: str) -> None:
        """Forget such an application."""
        await self._reads.run(lambda conn: delete_app(conn, self._sql, name))
        self.membership.tell(Signal(functions=True))

    def app_records(self) -> list[AppRecord]:
        """The applications that are called over HTTP. Before `start`."""
        return self._now(lambda conn: app_records(conn, self._sql))

    def cancelled_with_children(self) -> list[bytes]:
        """Cancelled runs of which a run that they invoked still lives. Blocks; for the start."""
        statement = self._sql.sql(sql.CANCELLED_WITH_CHILDREN)
        return self._now(lambda conn: [row[0] for row in conn.execute(statement)])

    def current_functions(self) -> list[tuple[int, int, bytes]]:
        """Id, version and registration document of every function that is not archived. Before `start`."""
        return self._now(lambda conn: current(conn, self._sql))

    def slugs(self) -> dict[int, str]:
        """The slug of every function there ever was. Before `start`."""
        return self._now(lambda conn: slugs(conn, self._sql))

    def cron_rows(self) -> list[CronRow]:
        """All schedules. Blocks; for the start."""
        return self._now(lambda conn: self._rows(conn, CronRow, "TRUE"))

    def running_bulks(self) -> list[BulkRow]:
        """Bulk operations that have not come to their end, oldest first. Blocks; for the start."""
        return self._now(lambda conn: self._rows(conn, BulkRow, "state = 0 ORDER BY id"))

    def alert_rows(self) -> list[AlertRow]:
        """The alerts that are on, oldest first. Blocks; for the start."""
        return self._now(lambda conn: self._rows(conn, AlertRow, "TRUE ORDER BY raised_at"))

    def _now(self, job: Callable[[Connection], T]) -> T:
        """Do something with a connection of its own, and wait for it: only while the node starts."""
        conn = connect(self.settings, "start")
        try:
            return job(conn)
        except psycopg.Error as error:
            raise translate(error, self.settings, conn) from error
        finally:
            discard(conn)

    def _rows(self, conn: Connection, cls: type[Row], condition: str, *parameters: object) -> list[Any]:
        table = self._sql[cls]
        return table.rows(conn.cursor(binary=True).execute(table.where(condition), parameters).fetchall())
