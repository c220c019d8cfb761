"""A real store with rows put into it by its own write path, and the reader beside it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from holdfast.base.ids import IdFactory, ulid_text
from holdfast.core.plan import Plan, Tx
from holdfast.core.rows import (
    DeadLetterRow,
    EventRow,
    ItemRow,
    ItemState,
    Row,
    RunRow,
    RunStatus,
)
from holdfast.store.postgres import PostgresStore
from holdfast.store.postgres.connection import connect, parse_url
from holdfast.store.postgres.reader import PostgresReader
from holdfast.store.postgres.statements import Statements
from holdfast.store.sqlite import SqliteStore, statements
from holdfast.store.sqlite.reader import SqliteReader

NOW = 1_800_000_000_000
POSTGRES_URL: str | None = None
"""Where shelves are put that go into PostgreSQL; a file in the folder unless set."""
MINUTE = 60_000
HOUR = 60 * MINUTE


class SetClock:
    """A clock that stands where it is put."""

    def __init__(self, ms: int = NOW) -> None:
        self.ms = ms

    def now(self) -> int:
        return self.ms

    def call_at(self, when: int, callback: Callable[[], None]) -> object:
        raise AssertionError("nothing here waits for a moment")


class Put(Plan[None]):
    """Rows to be written as they are, in one commit."""

    __slots__ = ("rows",)

    def __init__(self, *rows: Row) -> None:
        self.then = None
        self.rows = rows

    def reads(self):
        return ()

    def decide(self, tx: Tx) -> None:
        for row in self.rows:
            tx.put(row)


class Shelf:
    """The store, its reader, and short ways of putting rows in."""

    def __init__(self, path: Path, room: int = 0, functions: frozenset[int] = frozenset()) -> None:
        self.clock = SetClock()
        self.ids = IdFactory(seed=7)
        self.path = path
        self.url = POSTGRES_URL
        if self.url is None:
            self.store = SqliteStore(f"sqlite:///{path}", self.clock, ("shop",), synchronous="OFF")
            self.reader = SqliteReader(path, self.clock, leased=self.store.leased)
        else:
            self.store = PostgresStore(self.url, self.clock, ("shop",))
            self.reader = PostgresReader(self.url, self.clock)
        self.store.start(lambda: room, functions)

    def function(self, function_id: int, slug: str, app: str = "shop", **more: object) -> None:
        values = {
            "id": function_id, "app": app, "slug": slug, "name": slug.title(), "version": 1, "config": json.dumps({"id": slug}),
            "archived": 0, "paused": 0, "created_at": NOW, **more,
        }
        if self.url is not None:
            settings = parse_url(self.url)
            with connect(settings, "test") as conn:
                names, marks = ", ".join(values), ", ".join(["%s"] * len(values))
                conn.execute(f'INSERT INTO "{settings.schema}".functions ({names}) VALUES ({marks})', list(values.values()))
            return
        with contextlib.closing(sqlite3.connect(self.path)) as conn, conn:
            conn.execute(f"INSERT INTO functions ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})", list(values.values()))

    async def write(self, *rows: Row) -> None:
        for start in range(0, len(rows), 1000):
            await self.store.submit(Put(*rows[start : start + 1000]))

    def event(self, name: str = "shop/order.paid", at: int = NOW, **more: object) -> EventRow:
        return EventRow(**{"id": self.ids.new(at), "name": name, "ts": at, "received_at": at, "data": b"{}", **more})

    def run(self, event: EventRow, function_id: int = 1, status: int = RunStatus.COMPLETED, at: int = NOW, **more: object) -> RunRow:
        started = at + 5 if status >= RunStatus.RUNNING else None
        ended = at + 105 if status >= RunStatus.COMPLETED else None
        return RunRow(**{
            "id": self.ids.new(at + 1), "function_id": function_id, "event_id": event.id, "status": status, "queued_at": at,
            "started_at": started, "ended_at": ended, "lane": str(function_id), **more,
        })

    def item(self, run: RunRow, state: ItemState, **more: object) -> ItemRow:
        return ItemRow(**{
            "id": run.id, "run_id": run.id, "state": state, "lane": run.lane, "rank": run.queued_at, "due": 0,
            "epoch": 0 if run.started_at is None else 1, **more,
        })

    def letter(self, run: RunRow, at: int | None = None, error: str = "ValueError: no", **more: object) -> DeadLetterRow:
        return DeadLetterRow(**{
            "run_id": run.id, "function_id": run.function_id, "at": run.ended_at if at is None else at, "fingerprint": "f1",
            "error": error, **more,
        })

    async def close(self) -> None:
        await self.reader.close()
        await self.store.close()


@contextlib.asynccontextmanager
async def shelf(folder: Path, **options: object) -> AsyncIterator[Shelf]:
    one = Shelf(folder / "store.db", **options)
    try:
        yield one
    finally:
        await one.close()


def insert_all(path: Path, rows: list[Row]) -> None:
    """Many rows at once, without the store."""
    if POSTGRES_URL is not None:
        settings = parse_url(POSTGRES_URL)
        table = Statements(settings.schema)[type(rows[0])]
        with connect(settings, "test") as pg:
            pg.execute(table.insert, table.values(rows))
        return
    with contextlib.closing(sqlite3.connect(path)) as conn, conn:
        conn.executemany(statements.insert(type(rows[0]), 1), [msgspec.structs.astuple(row) for row in rows])


def text(raw: bytes) -> str:
    return ulid_text(raw)
