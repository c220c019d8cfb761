"""A PostgreSQL that goes away: restarted under load, connections cut, and away for a while."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from postgres_process import patiently, postgres_process

from holdfast import App, Context, Event, StoreUnreachableError
from holdfast.compose import build_engine
from holdfast.engine.engine import EngineOptions

pytestmark = pytest.mark.anyio


class Go(Event, name="away/go"):
    n: int


@pytest.fixture
def server() -> Iterator[Any]:
    """A server of the test's own, with all its syncs: it is restarted."""
    with postgres_process() as server:
        yield server


def steps_app(ran: Counter[tuple[int, str]]) -> App:
    app = App("away")

    @app.function(Go)
    async def work(ctx: Context[Go]) -> int:
        n = ctx.event.data.n
        for name in ("a", "b", "c"):

            async def body(name: str = name) -> str:
                ran[n, name] += 1
                await asyncio.sleep(0.05)
                return name

            await ctx.step.run(name, body)
        return n

    return app


async def test_runs_go_on_through_restarts_and_nothing_is_recorded_twice(server):
    ran: Counter[tuple[int, str]] = Counter()
    app = steps_app(ran)
    url = server.get_uri() + "&schema=away"
    async with build_engine([app], url, options=EngineOptions(capacity=20)) as engine:
        handles = [await app.start(app.functions["work"], Go(n=n)) for n in range(100)]
        for _ in range(3):
            await asyncio.sleep(0.3)
            await asyncio.to_thread(server._stop)
            await asyncio.to_thread(patiently, server.ensure_postgres_running)
        results = await asyncio.gather(*(handle.result(timeout=60) for handle in handles))
        assert results == list(range(100))
        # this process did not die: a step that was recorded is never run again, whatever became of the answer
        assert all(count == 1 for count in ran.values())
        assert engine.problem is None
    with psycopg.connect(server.get_uri()) as conn:
        assert conn.execute("SELECT count(*), count(DISTINCT (run_id, seq)) FROM away.steps").fetchone() == (400, 400)


async def test_while_the_server_is_away_sending_is_refused_with_the_reason_and_runs_wait(server):
    ran: Counter[tuple[int, str]] = Counter()
    app = steps_app(ran)
    async with build_engine([app], server.get_uri() + "&schema=away") as engine:
        handle = await app.start(app.functions["work"], Go(n=1))
        await asyncio.to_thread(server._stop)
        with pytest.raises(StoreUnreachableError, match="can't be reached"):
            await app.send(Go(n=2))
        async with asyncio.timeout(60):
            while engine.store.problem is None:
                await asyncio.sleep(0.01)
        await asyncio.to_thread(patiently, server.ensure_postgres_running)
        assert await handle.result(timeout=60) == 1
        async with asyncio.timeout(60):
            while engine.store.problem is not None:
                await asyncio.sleep(0.01)
        await app.send(Go(n=3))
        assert ran[1, "a"] == 1
