"""An event that is sent in a transaction exists if, and only if, that commits: on every kind of connection and store."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from typing import Any

import psycopg
import pytest
from callers import ASYNC, POSTGRES, SQLITE, Rollback, django_alias, make_orders, path_of, rows, transaction_of, write

from django.db import connections, transaction

from holdfast import (
    App,
    ConfigurationError,
    Context,
    Database,
    Event,
    EventInvalidError,
    Middleware,
    UnknownEventError,
    database_schema,
)
from holdfast.base.ids import ulid_bytes
from holdfast.testing import Harness

pytestmark = pytest.mark.anyio

MATRIX = [
    *[("sqlite with sqlite", kind) for kind in SQLITE],
    *[("sqlite with postgres", kind) for kind in ("sqlite3", "async_session")],
    *[("postgres with same", kind) for kind in POSTGRES],
    *[("postgres with sqlite", kind) for kind in ("psycopg_async", "session")],
    ("postgres with postgres", "psycopg"),
]
EVERYWHERE = pytest.mark.parametrize(("place", "kind"), MATRIX, indirect=["place"], ids=lambda value: value.replace(" ", "-"))


class Placed(Event, name="shop/order.placed"):
    order: str


class Noted(Event, name="shop/noted"):
    text: str = ""


def shop(databases: list[Any] = [], **settings: Any) -> tuple[App, list[str]]:
    app = App("shop", events=[Placed, Noted], databases=databases, **settings)
    seen: list[str] = []

    @app.function(Placed)
    async def handle(ctx: Context[Placed]) -> str:
        seen.append(ctx.event.data.order)
        return ctx.event.data.order

    return app, seen


def waiting(url: str) -> list[Any]:
    """What is in an outbox of the database, holdfast's own or the application's."""
    found = rows(url, "SELECT id FROM holdfast_outbox")
    if url.startswith("postgres") and rows(url, "SELECT to_regclass('holdfast.outbox')") != [(None,)]:
        found += rows(url, "SELECT id FROM holdfast.outbox")
    return found


@EVERYWHERE
async def test_the_event_exists_if_and_only_if_the_transaction_commits(place: str, kind: str) -> None:
    app, seen = shop([place])
    async with Harness(app) as h:
        with pytest.raises(Rollback):
            async with transaction_of(kind, place) as conn:
                await write(kind, conn, "first")
                await app.send(Placed(order="first"), connection=conn)
                raise Rollback
        async with transaction_of(kind, place) as conn:
            await write(kind, conn, "second")
            sent = await app.send(Placed(order="second"), connection=conn, id="second")
            many = await app.send_many([Placed(order="third"), Noted()], connection=conn)
            await h.settle()
            assert await h.events() == []  # nobody hears of it before the commit
        await h.settle()

        assert rows(place) == [("second",)]
        assert sorted(seen) == ["second", "third"]
        events = {view.internal_id: view for view in await h._event_views()}
        assert set(events) == {one.id for one in [sent, *many]}
        assert events[sent.id].id == "second"
        assert [one.duplicate for one in [sent, *many]] == [False] * 3
        assert waiting(place) == []


@pytest.mark.parametrize(("place", "kind"), [("sqlite with sqlite", "sqlite3"), ("postgres with same", "psycopg")], indirect=["place"])
async def test_from_code_that_blocks(place: str, kind: str) -> None:
    app, seen = shop([place])
    async with Harness(app) as h:

        def view() -> None:
            if place.startswith("sqlite"):
                conn: Any = sqlite3.connect(path_of(place))
            else:
                conn = psycopg.connect(place)
            conn.execute("INSERT INTO orders (name) VALUES ('x')")
            app.send_sync(Placed(order="x"), connection=conn)
            conn.commit()
            app.send_sync(Placed(order="y"), connection=conn)
            conn.rollback()
            conn.close()

        await asyncio.to_thread(view)
        await h.settle()
        assert seen == ["x"]


async def test_a_django_alias_is_a_connection_too(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("DJANGO_ALLOW_ASYNC_UNSAFE")
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    app, seen = shop([url])

    def view() -> None:
        alias = django_alias(url)
        with transaction.atomic(using=alias):
            app.send_sync(Placed(order="d"), connection=alias)
        with pytest.raises(Rollback), transaction.atomic(using=alias):
            app.send_sync(Placed(order="e"), connection=connections[alias])
            raise Rollback
        with pytest.raises(ConfigurationError, match="'nowhere' is no alias of Django's DATABASES"):
            app.send_sync(Placed(order="f"), connection="nowhere")
        connections[alias].close()

    async with Harness(app) as h:
        await asyncio.to_thread(view)
        await h.settle()
        assert seen == ["d"]


@pytest.mark.parametrize("place", ["sqlite with sqlite", "postgres with same"], indirect=True)
async def test_a_process_that_runs_no_engine_only_writes(place: str, monkeypatch) -> None:
    kind = "sqlite3" if place.startswith("sqlite") else "psycopg"
    monkeypatch.delenv("HOLDFAST_STORE", raising=False)
    app, seen = shop()
    async with Harness(app, databases=[place]):
        pass  # has made the tables
    sender, _ = shop()
    async with transaction_of(kind, place) as conn:
        await sender.send(Placed(order="later"), connection=conn)
    assert len(waiting(place)) == 1
    async with Harness(app, databases=[place]) as h:
        await h.settle()
        assert seen == ["later"]
        assert waiting(place) == []


# -- what is refused at the call ---------------------------------------------------------------------------------------


@pytest.fixture
def prepared(tmp_path) -> str:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    make_orders(url)
    with sqlite3.connect(path_of(url)) as conn:
        conn.executescript(database_schema("sqlite"))
    conn.close()
    return url


async def test_events_are_validated_as_always(prepared: str) -> None:
    app, _ = shop()
    async with transaction_of("sqlite3", prepared) as conn:
        with pytest.raises(UnknownEventError):
            await app.send({"name": "shop/nonsense", "data": {}}, connection=conn)
        with pytest.raises(EventInvalidError, match="order"):
            await app.send({"name": "shop/order.placed", "data": {}}, connection=conn)
        with pytest.raises(EventInvalidError, match="max size"):
            await app.send(Placed(order="x" * 3_200_000), connection=conn)
        with pytest.raises(EventInvalidError, match="5000 events"):
            await app.send_many([Noted() for _ in range(5001)], connection=conn)
    assert waiting(prepared) == []


@pytest.mark.parametrize("kind", SQLITE)
async def test_an_sqlite_database_without_the_table_says_what_to_do(kind: str, tmp_path) -> None:
    await check_without_table(f"sqlite:///{tmp_path / 'bare.db'}", kind)


@pytest.mark.parametrize("kind", POSTGRES)
async def test_a_postgresql_database_without_the_table_says_what_to_do(kind: str, new_database) -> None:
    await check_without_table(new_database(), kind)


async def check_without_table(url: str, kind: str) -> None:
    app, _ = shop()
    make_orders(url)
    async with transaction_of(kind, url) as conn:
        await write(kind, conn, "before")
        with pytest.raises(ConfigurationError, match=r"no table holdfast_outbox.*databases=\[...\].*database_schema"):
            await app.send(Placed(order="1"), connection=conn)
        await write(kind, conn, "the transaction goes on")
    assert rows(url) == [("before",), ("the transaction goes on",)]


async def test_what_is_no_connection_is_refused(prepared: str) -> None:
    app, _ = shop()
    with pytest.raises(ConfigurationError, match=r"connection=42 is not understood; pass a psycopg"):
        await app.send(Placed(order="1"), connection=42)
    async with transaction_of("aiosqlite", prepared) as conn:
        with pytest.raises(ConfigurationError, match=r"is async; use `await app.send"):
            app.send_sync(Placed(order="1"), connection=conn)


async def test_urls_of_databases() -> None:
    assert Database("sqlite+aiosqlite:////tmp/x.db").url == "sqlite:////tmp/x.db"
    assert Database("postgresql+psycopg://me:secret@there/shop").url == "postgresql://me@there/shop"
    with pytest.raises(ConfigurationError, match="in memory"):
        Database("sqlite://")
    with pytest.raises(ConfigurationError, match="is not understood"):
        Database("mysql://there/shop")
    with pytest.raises(ConfigurationError, match="'sqlite' or 'postgresql'"):
        database_schema("oracle")


async def test_holdfasts_own_file_is_no_database_of_the_applications(tmp_path) -> None:
    url = f"sqlite:///{tmp_path / 'holdfast.db'}"
    app, _ = shop([url])
    with pytest.raises(ConfigurationError, match="holdfast's own file"):
        async with app.running(store=url):
            pass
    other, _ = shop()
    async with other.running(store=url):
        pass  # the failed start has let go of it


async def test_middleware_around_sends_sees_these_too(prepared: str) -> None:
    class Watch(Middleware):
        async def around_send(self, events, call):
            watched.extend(event.name for event in events)
            return await call(events)

    watched: list[str] = []
    app, _ = shop(middleware=[Watch()])
    async with transaction_of("aiosqlite", prepared) as conn:
        await app.send(Noted(), connection=conn)
    assert watched == ["shop/noted"]
    assert len(waiting(prepared)) == 1


# -- the relay ---------------------------------------------------------------------------------------------------------


async def test_an_event_that_can_not_be_accepted_stays_and_holds_nobody_up(prepared: str, caplog) -> None:
    app, seen = shop([prepared])
    with sqlite3.connect(path_of(prepared)) as conn:
        conn.execute("INSERT INTO holdfast_outbox VALUES ('01HZZZZZZZZZZZZZZZZZZZZZZZ', 'nonsense')")
    conn.close()
    async with Harness(app) as h:
        async with transaction_of("sqlite3", prepared) as conn:
            await app.send(Placed(order="fine"), connection=conn)
        await h.settle()
        assert seen == ["fine"]
        assert waiting(prepared) == [("01HZZZZZZZZZZZZZZZZZZZZZZZ",)]
    assert "event 01HZZZZZZZZZZZZZZZZZZZZZZZ in the outbox" in caplog.text
    assert caplog.text.count("can't be accepted") == 1


async def test_many_more_than_one_look_brings_at_once(prepared: str) -> None:
    app, seen = shop([prepared])
    async with transaction_of("sqlite3", prepared) as conn:
        await app.send_many([Placed(order=f"{n:03}") for n in range(250)], connection=conn)
    async with Harness(app) as h:
        await h.settle()
        assert sorted(seen) == [f"{n:03}" for n in range(250)]
        assert waiting(prepared) == []


@pytest.mark.parametrize("kind", SQLITE)
async def test_any_text_arrives_as_it_was_sent(kind: str, prepared: str) -> None:
    app, seen = shop([prepared])
    texts = ["عود 🎉", 'a "quoted" \\ text', "nothing\0more", "", "it's [\"json\"]", ":id"]
    async with transaction_of(kind, prepared) as conn:
        await app.send_many([Placed(order=text) for text in texts], connection=conn)
    async with Harness(app) as h:
        await h.settle()
    assert sorted(seen) == sorted(texts)


async def test_brought_again_after_a_long_time_it_starts_nothing_twice(prepared: str) -> None:
    """The process dies between the acceptance and the deletion, and comes back when nothing is left of the event."""
    app, seen = shop([prepared])
    async with transaction_of("sqlite3", prepared) as conn:
        sent = await app.send(Placed(order="once"), connection=conn)
    kept = rows(prepared, "SELECT id, event FROM holdfast_outbox")
    async with Harness(app) as h:
        # the row is not deleted: as if killed after the acceptance, before the deletion
        outbox = h.engine.relays._outboxes[0]
        delete, outbox._opened.delete_events = outbox._opened.delete_events, lambda ids: (_ for _ in ()).throw(RuntimeError("killed"))
        with pytest.raises(RuntimeError, match="killed"):
            await h.engine.relays.flush()
        outbox._opened.delete_events = delete
        await h.clock.advance("40d")  # flush in between finds it known
        await h.settle()
        assert seen == ["once"]
        # once the row is gone, the marker is kept for those who had read it before
        with sqlite3.connect(path_of(prepared)) as conn:
            conn.execute("INSERT INTO holdfast_outbox VALUES (?, ?)", kept[0])
        conn.close()
        await h.settle()
        assert seen == ["once"]
        assert [one.internal_id for one in await h._event_views()] == [sent.id]


async def test_not_even_when_its_event_has_been_pruned(prepared: str) -> None:
    app, seen = shop([prepared])
    async with transaction_of("sqlite3", prepared) as conn:
        await app.send(Placed(order="once"), connection=conn)
    async with Harness(app) as h:
        relays = h.engine.relays
        opened = relays._outboxes[0]._opened
        delete = opened.delete_events
        opened.delete_events = lambda ids: (_ for _ in ()).throw(RuntimeError("killed"))
        with pytest.raises(RuntimeError, match="killed"):
            await relays.flush()
        # a long time in which this relay is away and the engine isn't
        opened.pending, pending = (lambda after, limit: []), opened.pending
        await h.advance("40d")
        while await h.engine.store.prune(1000, 1000):
            pass
        while await h.engine.store.prune(1000, 1000):
            pass
        assert await h._event_views() == []
        opened.delete_events, opened.pending = delete, pending
        await h.settle()
        assert seen == ["once"]
        assert waiting(prepared) == []


async def test_an_event_with_a_time_to_come_waits_for_it(prepared: str) -> None:
    app, seen = shop([prepared])
    async with Harness(app) as h:
        async with transaction_of("sqlite3", prepared) as conn:
            await app.send(Placed(order="tomorrow"), connection=conn, ts=h.clock.now() + 86_400_000)
        await h.advance("23h")
        assert seen == []
        await h.advance("2h")
        assert seen == ["tomorrow"]


async def test_a_database_that_is_away_is_looked_for_again(tmp_path, caplog) -> None:
    caplog.set_level(logging.WARNING)
    folder = tmp_path / "not yet"
    url = f"sqlite:///{folder / 'shop.db'}"
    folder.write_text("a file where the directory will be")
    app, seen = shop([url])
    async with Harness(app) as h:
        assert "is not ready for events yet" in caplog.text
        folder.unlink()
        folder.mkdir()
        await h.engine.relays.flush()
        async with transaction_of("sqlite3", url) as conn:
            await app.send(Placed(order="back"), connection=conn)
        await h.settle()
        assert seen == ["back"]


@pytest.mark.parametrize("kind", sorted(ASYNC - {"psycopg_async"}))
async def test_without_a_harness_it_comes_by_itself(kind: str, prepared: str, tmp_path) -> None:
    app, seen = shop([prepared])
    came = asyncio.Event()

    @app.function(Placed, id="tell")
    async def tell(ctx: Context[Placed]) -> None:
        came.set()

    async with app.running(store=f"sqlite:///{tmp_path / 'holdfast.db'}"):
        async with transaction_of(kind, prepared) as conn:
            await app.send(Placed(order="soon"), connection=conn)
        async with asyncio.timeout(30):
            await came.wait()
