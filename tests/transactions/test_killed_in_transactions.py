"""Real processes that are killed at every point between a transaction and the end of what it asked for."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import psycopg
import pytest
from callers import make_orders, rows, transaction_of

from holdfast import App, Context, Event
from holdfast.compose import build_engine
from holdfast.engine.engine import EngineOptions
from holdfast.store.userdb.tables import ddl

pytestmark = pytest.mark.anyio

POINTS = {
    "sqlite beside sqlite": ["not committed", "committed", "not accepted", "accepted", "deleted", "step not committed", "step committed"],
    "postgres holds both": ["committed", "accepted", "step committed"],
    "postgres beside sqlite": ["committed", "accepted", "step committed"],
}
"""At which points processes die one after another, by where the application's database is and where holdfast's."""


async def process(database: str, store: str, point: str) -> tuple[int, str]:
    started = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__).parent / "shop_process.py"), database, store, point,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    try:
        async with asyncio.timeout(120):
            out, err = await started.communicate()
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()
    return started.returncode, out.decode() or err.decode()


@pytest.mark.slow
@pytest.mark.timeout(400)  # eight processes, one after another
@pytest.mark.parametrize("where", POINTS)
async def test_killed_at_every_point_everything_happens_once(where: str, tmp_path, new_database) -> None:
    """One order, placed by a process that dies, handled by a row of processes that all die, each at the next point."""
    database = f"sqlite:///{tmp_path / 'shop.db'}" if where.startswith("sqlite") else new_database()
    store = f"{database}&lease_seconds=1" if where == "postgres holds both" else f"sqlite:///{tmp_path / 'holdfast.db'}"
    make_orders(database)
    await prepare(database, store)
    for point in POINTS[where]:
        status, words = await process(database, store, point)
        assert status == -signal.SIGKILL, f"{point}: ended with {status}\n{words}"
        if point == "not committed":
            assert rows(database) == []
    status, words = await process(database, store, "none")
    assert status == 0, words
    assert json.loads(words) == {"events": ["shop/charged", "shop/order.placed"], "runs": ["COMPLETED", "COMPLETED"]}
    assert rows(database) == [("o1",), ("o1, placed",)]
    assert rows(database, "SELECT id FROM holdfast_outbox") == []


async def prepare(database: str, store: str) -> None:
    """The first start of the shop, long ago: it has made the tables."""
    async with build_engine([App("shop", databases=[database])], store):
        pass


class Placed(Event, name="shop/order.placed"):
    order: str


async def test_the_database_itself_tells_the_nodes(new_database) -> None:
    """No look is due for days, and the sender knows no engine: what remains is the notification at the commit."""
    url = new_database()
    app = App("shop")
    came: asyncio.Queue[str] = asyncio.Queue()

    @app.function(Placed)
    async def handle(ctx: Context[Placed]) -> None:
        came.put_nowait(ctx.event.data.order)

    async with build_engine([app], url, options=EngineOptions(relay_every_ms=10**9)) as engine:
        await listening(url)
        await engine.idle()
        sender = App("shop")
        async with transaction_of("psycopg_async", url) as conn:
            await sender.send(Placed(order="told"), connection=conn)
            await sender.send_many([Placed(order="told too")] * 3, connection=conn)
        async with asyncio.timeout(60):
            assert sorted([await came.get() for _ in range(4)]) == ["told", "told too", "told too", "told too"]


async def listening(url: str) -> None:
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(rows, url, "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND state = 'idle' AND datname = current_database()"):
            await asyncio.sleep(0.02)


async def test_a_schema_of_another_app_is_left_alone(new_database) -> None:
    """Somebody else's holdfast is in the same database: the event goes into the application's own table."""
    url = new_database()
    async with build_engine([App("somebody-else")], url):
        pass
    with psycopg.connect(url, autocommit=True) as conn:
        for statement in ddl("postgresql"):
            conn.execute(statement.encode())
    async with transaction_of("psycopg", url) as conn:
        await App("shop").send(Placed(order="1"), connection=conn)
    assert len(rows(url, "SELECT id FROM holdfast_outbox")) == 1
    assert rows(url, "SELECT id FROM holdfast.outbox") == []


async def test_two_nodes_take_each_event_once(new_database) -> None:
    url = new_database()
    handled: list[str] = []

    def app_of() -> App:
        app = App("shop")

        @app.function(Placed)
        async def handle(ctx: Context[Placed]) -> None:
            handled.append(ctx.event.data.order)

        return app

    options = EngineOptions(relay_every_ms=10**9)
    async with build_engine([app_of()], url, options=options) as one, build_engine([app_of()], url, options=options) as other:
        async with transaction_of("psycopg", url) as conn:
            await App("shop").send_many([Placed(order=str(n)) for n in range(200)], connection=conn)
        async with asyncio.timeout(60):
            while rows(url, "SELECT 1 FROM holdfast.outbox LIMIT 1") or len(handled) < 200:
                await asyncio.gather(one.relays._store.flush(), other.relays._store.flush())
        await asyncio.gather(one.idle(), other.idle())
    assert sorted(handled, key=int) == [str(n) for n in range(200)]
