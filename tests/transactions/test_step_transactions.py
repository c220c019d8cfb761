"""A step in a transaction of the application's database happens exactly once, whatever dies when."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

import psycopg_pool
import pytest
from callers import Rollback, django_alias, make_orders, rows, sqlalchemy_url, write
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from holdfast import App, ConfigurationError, Context, Database, Event, Middleware, StepError, SyncContext
from holdfast.base.ids import ulid_text
from holdfast.sdk.step_transactions import TransactionBody
from holdfast.testing import Harness, assert_durable

pytestmark = pytest.mark.anyio

RUN = ulid_text(bytes(16))


class Placed(Event, name="shop/order.placed"):
    order: str = "o1"


class Charged(Event, name="shop/charged"):
    order: str


@dataclass
class Receipt:
    order: str
    at: date


KINDS = {"session", "async_session", "engine", "async_engine", "database", "pool", "async_pool", "django"}
ASYNC = {"async_session", "async_engine", "async_pool"}
CONNECTION = {  # what the body gets, as callers.write knows it
    "session": "session", "async_session": "async_session", "engine": "connection", "async_engine": "async_connection",
    "database": "raw", "pool": "raw", "async_pool": "raw", "django": "django",
}  # fmt: skip


@asynccontextmanager
async def source_of(kind: str, url: str) -> AsyncIterator[Any]:
    """What `step.transaction` makes its transactions with."""
    if kind == "database":
        yield Database(url)
    elif kind == "django":
        yield django_alias(url)
    elif kind == "pool":
        with psycopg_pool.ConnectionPool(url, min_size=1, open=True) as pool:
            yield pool
    elif kind == "async_pool":
        async with psycopg_pool.AsyncConnectionPool(url, min_size=1, open=False) as pool:
            yield pool
    elif kind in ASYNC:
        engine = create_async_engine(sqlalchemy_url(url, asynchronous=True))
        yield async_sessionmaker(engine) if kind == "async_session" else engine
        await engine.dispose()
    else:
        engine = create_engine(sqlalchemy_url(url, asynchronous=False))
        yield sessionmaker(engine) if kind == "session" else engine
        engine.dispose()


MATRIX = [
    *[("sqlite with sqlite", kind) for kind in sorted(KINDS - {"pool", "async_pool"})],
    *[("postgres with same", kind) for kind in sorted(KINDS)],
    ("postgres with sqlite", "async_session"),
]
EVERYWHERE = pytest.mark.parametrize(("place", "kind"), MATRIX, indirect=["place"], ids=lambda value: value.replace(" ", "-"))


@EVERYWHERE
async def test_effect_result_and_mark_are_one(place: str, kind: str) -> None:
    """The first try fails after its effect, the second succeeds; async functions and plain ones alike."""
    app = App("shop", databases=[place])
    tries: list[str] = []

    async with source_of(kind, place) as source:

        async def charge(connection: Any, order: str, *, at: date) -> Receipt:
            await write(CONNECTION[kind], connection, f"{order}, charged")
            tries.append(order)
            if len(tries) == 1:
                raise OSError("the line is dead")
            return Receipt(order, at)

        @app.function(Placed)
        async def handle(ctx: Context[Placed]) -> Receipt:
            return await ctx.step.transaction("charge", source, charge, ctx.event.data.order, at=date(2030, 1, 2))

        async with Harness(app) as h:
            run = await h.run(handle, Placed())
            assert run.output == Receipt("o1", date(2030, 1, 2))
            assert [len(step.failed_attempts) for step in run.steps] == [1]
        assert tries == ["o1", "o1"]
        assert rows(place) == [("o1, charged",)]
        assert rows(place, "SELECT run_id, step, type FROM holdfast_steps") == [(run.id, "charge", None)]


@pytest.mark.parametrize(
    ("place", "kind"),
    [("sqlite with sqlite", "database"), ("sqlite with sqlite", "session"), ("postgres with same", "database"), ("postgres with same", "engine")],
    indirect=["place"],
)
async def test_in_plain_functions(place: str, kind: str) -> None:
    app = App("shop", databases=[place])
    threads: list[int] = []

    async with source_of(kind, place) as source:

        def charge(connection: Any, order: str) -> int:
            threads.append(threading.get_ident())
            asyncio.run(write(CONNECTION[kind], connection, order))
            return len(order)

        @app.function(Placed)
        def handle(ctx: SyncContext[Placed]) -> tuple[int, int]:
            return threading.get_ident(), ctx.step.transaction("charge", source, charge, ctx.event.data.order)

        @app.function(Placed, id="on-the-loop")
        async def on_the_loop(ctx: Context[Placed]) -> int:
            return await ctx.step.transaction("charge", source, charge, "from the loop")

        async with Harness(app) as h:
            run = await h.run(handle, Placed())
            assert run.output == [threads[0], 2] or run.output == (threads[0], 2)  # the function's own thread
            assert (await h.run(on_the_loop, Placed())).output == 13
            assert threads[1] != threading.get_ident()
        assert rows(place) == [("from the loop",), ("o1",)]


class DiesAfter(Middleware):
    """The process dies after a step's transaction has committed, before the step is recorded."""

    def __init__(self) -> None:
        self.committed = asyncio.Event()
        self.times = 1

    async def around_step(self, ctx, step_id, call):
        value = await call()
        if self.times:
            self.times -= 1
            self.committed.set()
            await asyncio.Event().wait()
        return value


@pytest.mark.parametrize("place", ["sqlite with sqlite", "postgres with same"], indirect=True)
async def test_a_death_between_the_commit_and_the_record(place: str) -> None:
    dies, calls = DiesAfter(), []
    app = App("shop", databases=[place], middleware=[dies])
    database = Database(place)

    async def charge(connection: Any, order: str) -> Receipt:
        calls.append(order)
        await write("raw", connection, order)
        await app.send(Charged(order=order), connection=connection)
        return Receipt(order, date(2030, 1, 2))

    @app.function(Placed)
    async def handle(ctx: Context[Placed]) -> Receipt:
        return await ctx.step.transaction("charge", database, charge, "o1")

    async with Harness(app) as h:
        started = asyncio.create_task(h.start(handle, Placed()))
        async with asyncio.timeout(60):
            await dies.committed.wait()
        started.cancel()
        await h.restart()
        await h.settle()
        (run,) = await h.runs(handle)
        assert (run.status, run.output) == ("COMPLETED", Receipt("o1", date(2030, 1, 2)))
        assert len(await h.events("shop/charged")) == 1
    assert calls == ["o1"]
    assert rows(place) == [("o1",)]


@pytest.mark.parametrize("place", ["sqlite with sqlite", "postgres with same"], indirect=True)
async def test_one_who_was_taken_for_dead_finds_the_mark(place: str) -> None:
    """Two processes do the same step of the same run at the same time."""
    app = App("shop", databases=[place])
    inside, go_on = threading.Event(), threading.Event()
    calls: list[str] = []

    def charge(connection: Any, who: str) -> str:
        calls.append(who)
        connection.execute("INSERT INTO orders VALUES ('charged')")
        inside.set()
        assert go_on.wait(60)
        return who

    def body() -> TransactionBody:
        made = TransactionBody(RUN, Database(place), charge)
        made.key = "charge"
        return made

    async with Harness(app):
        first = asyncio.create_task(asyncio.to_thread(body(), "first"))
        assert await asyncio.to_thread(inside.wait, 60)
        second = asyncio.create_task(asyncio.to_thread(body(), "second"))
        if place.startswith("postgres"):
            await until(lambda: rows(place, "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"))
        go_on.set()
        assert [await first, await second] == ["first", "first"]
    assert calls == ["first"]
    assert rows(place) == [("charged",)]


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.01)


@pytest.mark.slow
async def test_every_moment_at_which_the_process_can_die(tmp_path) -> None:
    """Each death leaves one row, one event, one result: as without any."""
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    make_orders(url)
    app = App("shop", databases=[url])
    database = Database(url)

    async def charge(connection: Any, order: str) -> str:
        await write("raw", connection, order)
        await app.send(Charged(order=order), connection=connection)
        return f"receipt of {order}"

    @app.function(Placed)
    async def handle(ctx: Context[Placed]) -> list[str]:
        await ctx.step.sleep("nap", "1h")
        return [await ctx.step.transaction("charge", database, charge, "a")]

    @app.function(Charged)
    async def ship(ctx: Context[Charged]) -> str:
        return ctx.event.data.order

    def empty() -> None:
        import sqlite3

        conn = sqlite3.connect(url.removeprefix("sqlite:///"))
        for table in ("orders", *(name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE name LIKE 'holdfast%'"))):
            conn.execute(f"DELETE FROM {table}")
        conn.commit()
        conn.close()

    async def check(h: Any) -> None:
        assert rows(url) == [("a",)]
        assert [event.data for event in await h.events("shop/charged")] == [{"order": "a"}]
        assert rows(url, "SELECT count(*) FROM holdfast_outbox") == [(0,)]

    assert await assert_durable(app, Placed(), setup=empty, check=check) > 12


async def test_marks_are_deleted_once_they_are_old_and_of_no_use(tmp_path) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    make_orders(url)
    app = App("shop", databases=[url])
    database = Database(url)

    async def charge(connection: Any, order: str) -> None:
        await write("raw", connection, order)

    @app.function(Placed)
    async def handle(ctx: Context[Placed]) -> None:
        await ctx.step.transaction("charge", database, charge, "a")

    @app.function(Charged)
    async def waits(ctx: Context[Charged]) -> None:
        await ctx.step.transaction("charge", database, charge, "b")
        await ctx.step.sleep("long", "30d")

    def marks() -> list[Any]:
        return rows(url, "SELECT run_id, step FROM holdfast_steps ORDER BY run_id")

    async with Harness(app) as h:
        ended = await h.run(handle, Placed())
        waiting = await h.start(waits, Charged(order="b"))
        unknown = (waiting.id, "not on record")
        conn = __import__("sqlite3").connect(url.removeprefix("sqlite:///"))
        conn.execute("INSERT INTO holdfast_steps (run_id, step, at) VALUES (?, ?, 0)", unknown)
        conn.execute("INSERT INTO holdfast_steps (run_id, step, at) VALUES ('somebody else''s', 'x', 0)")
        conn.commit()
        conn.close()
        assert len(marks()) == 4
        await h.engine.relays.forget_steps(h.engine, 7 * 86_400_000)
        assert {step for _, step in marks()} == {"charge", "not on record", "x"}  # as young as they are, two stay
        await h.advance("8d")
        await h.engine.relays.forget_steps(h.engine, 7 * 86_400_000)
        assert sorted(marks()) == sorted([unknown, ("somebody else's", "x")])
        assert ended.id not in {run for run, _ in marks()}


async def test_results_that_need_a_tag_are_read_back(tmp_path) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    async with Harness(App("shop", databases=[url])):
        def untyped(connection):
            return Receipt("o1", date(2030, 1, 2))

        def body() -> Any:
            made = TransactionBody(RUN, Database(url), untyped)
            made.key = "untyped"
            return made()

        assert [await asyncio.to_thread(body), await asyncio.to_thread(body)] == [Receipt("o1", date(2030, 1, 2))] * 2


async def test_a_result_that_can_not_be_kept_undoes_the_effect(tmp_path) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    make_orders(url)
    app = App("shop", databases=[url], retries=0)

    async def charge(connection: Any) -> Any:
        await write("raw", connection, "x")
        return object()

    @app.function(Placed)
    async def handle(ctx: Context[Placed]) -> None:
        await ctx.step.transaction("charge", Database(url), charge)

    async with Harness(app) as h:
        run = await h.run(handle, Placed())
        assert run.error is not None
        assert "object" in run.error.message
    assert rows(url) == []
    assert rows(url, "SELECT * FROM holdfast_steps") == []


@pytest.mark.parametrize("place", ["sqlite with sqlite", "postgres with sqlite"], indirect=True)
async def test_a_database_without_the_table_says_what_to_do(place: str) -> None:
    app = App("shop", retries=0)

    async def charge(connection: Any) -> None:
        raise AssertionError("never called")

    @app.function(Placed)
    async def handle(ctx: Context[Placed]) -> None:
        await ctx.step.transaction("charge", Database(place), charge)

    async with Harness(app) as h:
        run = await h.run(handle, Placed())
        assert run.error is not None
        assert "has no table holdfast_steps" in run.error.message
        assert "database_schema" in run.error.message


async def test_misuse_is_refused_in_words(tmp_path) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    engine = create_async_engine(sqlalchemy_url(url, asynchronous=True))

    def plain(connection: Any) -> None: ...
    def nothing() -> None: ...
    def keywords(*, connection: Any) -> None: ...

    with pytest.raises(ConfigurationError, match="its first argument is the connection"):
        TransactionBody(RUN, engine, nothing)
    with pytest.raises(ConfigurationError, match="its first argument is the connection"):
        TransactionBody(RUN, engine, keywords)
    with pytest.raises(ConfigurationError, match="make the body `async def`"):
        TransactionBody(RUN, engine, plain)()
    with pytest.raises(ConfigurationError, match=r"42 is no database that a step can use; pass a holdfast.Database"):
        TransactionBody(RUN, 42, plain)()


async def test_the_input_of_a_failed_step_can_be_edited(tmp_path) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    make_orders(url)
    app = App("shop", databases=[url], retries=0)

    async def charge(connection: Any, order: str, on: date) -> Receipt:
        if order == "bad":
            raise Rollback(order)
        await write("raw", connection, order)
        return Receipt(order, on)

    @app.function(Placed)
    async def handle(ctx: Context[Placed]) -> Receipt:
        try:
            return await ctx.step.transaction("charge", Database(url), charge, "bad", date(2030, 1, 2))
        except StepError as error:
            assert error.matches(Rollback)
            raise

    async with Harness(app) as h:
        run = await h.run(handle, Placed())
        assert run.status == "FAILED"
        from holdfast.sdk.sender import Edit

        again = await h.engine.rerun(run.id, Edit(from_step="charge", input=["good", "2031-02-03"]))
        await h.settle()
        (found,) = [one for one in await h.runs(handle) if one.id == again]
        assert found.output == Receipt("good", date(2031, 2, 3))
    assert rows(url) == [("good",)]
