"""Disk usage on PostgreSQL levels off: what retention removes is vacuumed as fast, and its space is used again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import psycopg
import pytest

from holdfast import App, Context, Event
from holdfast.compose import build_engine
from holdfast.engine.engine import EngineOptions
from holdfast.store.postgres.connection import connect, parse_url

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

SIZE = "SELECT sum(pg_total_relation_size(relid)) FROM pg_stat_user_tables WHERE schemaname = %s"
UNVACUUMED = """
SELECT relname, n_live_tup, n_dead_tup FROM pg_stat_user_tables
WHERE schemaname = %s AND relname IN ('runs', 'events', 'steps') AND n_dead_tup > 100 + n_live_tup / 4
"""


class Go(Event, name="level/go"):
    n: int
    filling: str = "x" * 1900


@pytest.fixture
def often_vacuumed(postgres_server: str) -> Iterator[None]:
    """Autovacuum looks every second instead of every minute, so that a round of the test is a minute."""
    with psycopg.connect(postgres_server, autocommit=True) as conn:
        conn.execute("ALTER SYSTEM SET autovacuum_naptime = '1s'")
        conn.execute("SELECT pg_reload_conf()")
        yield
        conn.execute("ALTER SYSTEM RESET autovacuum_naptime")
        conn.execute("SELECT pg_reload_conf()")


@pytest.mark.parametrize(("rounds", "count"), [(4, 400), pytest.param(10, 3000, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
async def test_runs_that_come_and_are_removed_leave_no_growing_files(postgres_url, often_vacuumed, rounds, count):
    app = App("level")

    @app.function(Go, concurrency=50)
    async def work(ctx: Context[Go]) -> int:
        await ctx.step.run("one", lambda: "y" * 500)
        await ctx.step.sleep("a bit", 0.01)
        return ctx.event.data.n

    settings = parse_url(postgres_url)
    peaks: list[int] = []
    engine = build_engine([app], postgres_url, options=EngineOptions(linger_ms=0))
    async with engine:
        with connect(settings, "test") as conn:
            for _ in range(rounds):
                handles = await asyncio.gather(*(app.start(work, Go(n=n)) for n in range(count)))
                await asyncio.gather(*(handle.result(timeout=120) for handle in handles))
                peaks.append(int(conn.execute(SIZE, [settings.schema]).fetchone()[0]))
                while await engine.store.prune(-60_000, -60_000):
                    pass
                # what a session has done is counted some seconds later, unless it is told to say so
                await engine.store._reads.run(lambda reads: reads.execute("SELECT pg_stat_force_next_flush()"))
                assert conn.execute(f'SELECT count(*) FROM "{settings.schema}".runs').fetchone() == (0,)
                async with asyncio.timeout(60):
                    while conn.execute(UNVACUUMED, [settings.schema]).fetchall():
                        await asyncio.sleep(0.1)
    # without vacuum each round adds what the first one did
    assert max(peaks[2:]) < 1.4 * peaks[1], peaks
