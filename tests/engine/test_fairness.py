"""Real time, a real engine: a tenant's single event doesn't wait for ten thousand of another."""

from __future__ import annotations

import asyncio

import pytest

from holdfast import App, Concurrency, Context, Event
from holdfast.base.clock import monotonic

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

CROWD = 10_000


class Job(Event, name="fair/job"):
    tenant: str
    n: int = 0


async def test_a_single_item_starts_within_a_second_behind_ten_thousand_of_another_tenant(engine_for):
    app = App("fair")
    begun = asyncio.Event()
    served = 0

    async def work(tenant: str) -> None:
        nonlocal served
        if tenant == "b":
            begun.set()
            return
        served += 1
        await asyncio.sleep(0.1)

    @app.function(Job, concurrency=[Concurrency(10, key="event.data.tenant")])
    async def job(ctx: Context[Job]) -> None:
        await ctx.step.run("work", work, ctx.event.data.tenant)

    async with engine_for(app, capacity=10 + 1, drain_seconds=0.2):
        for start in range(0, CROWD, 1000):
            await app.send_many([Job(tenant="a", n=start + i) for i in range(1000)])
        await app.send(Job(tenant="b"))
        async with asyncio.timeout(60):
            await begun.wait()
        assert served < CROWD / 2, "the crowd was served first"


async def test_a_shared_limit_is_shared_fairly_between_keys(engine_for):
    """With ten places for all, each tenant's lane has its turn."""
    app = App("fair")
    begun = asyncio.Event()

    async def work(tenant: str) -> None:
        if tenant == "b":
            begun.set()
        else:
            await asyncio.sleep(0.1)

    @app.function(Job, concurrency=[Concurrency(10), Concurrency(10, key="event.data.tenant")])
    async def job(ctx: Context[Job]) -> None:
        await ctx.step.run("work", work, ctx.event.data.tenant)

    async with engine_for(app, drain_seconds=0.2):
        for start in range(0, CROWD, 1000):
            await app.send_many([Job(tenant="a", n=start + i) for i in range(1000)])
        sent_at = monotonic()
        await app.send(Job(tenant="b"))
        async with asyncio.timeout(60):
            await begun.wait()
        assert monotonic() - sent_at < 1.0
