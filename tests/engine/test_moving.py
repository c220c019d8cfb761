"""An application whose store is moved to another database goes on there as if nothing had happened."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from holdfast import (
    App,
    Backoff,
    Batch,
    Cron,
    CronTick,
    Concurrency,
    Context,
    Debounce,
    Event,
    NonRetriableError,
    RateLimit,
    Singleton,
    Throttle,
)
from holdfast.cli.stores import opened_source, opened_target
from holdfast.engine.crash import kill, reap
from holdfast.store.copying import copy_rows
from holdfast.testing.async_harness import AsyncHarness

pytestmark = pytest.mark.anyio

START = datetime(2026, 3, 2, 9, 0, 30, tzinfo=UTC)
WAYS = [("sqlite", "postgres"), ("postgres", "sqlite"), ("postgres", "postgres"), ("sqlite", "sqlite")]


class Job(Event, name="moving/job"):
    n: int = 0


class Shipped(Event, name="moving/shipped"):
    n: int


class Stop(Event, name="moving/stop"):
    n: int


def make_app() -> App:
    """Something of everything that can be on its way."""
    app = App("moving", backoff=Backoff.constant(900))

    @app.function(Job)
    async def sleeper(ctx: Context[Job]) -> str:
        first = await ctx.step.run("first", lambda: "first")
        ctx.logger.info("going to sleep")
        await ctx.step.sleep("days", "3d")
        return f"{first} {ctx.event.data.n} {(await ctx.now()).isoformat()}"

    @app.function(Job)
    async def waiter(ctx: Context[Job]) -> str:
        shipped = await ctx.step.wait_for_event("shipped", Shipped, where={"n": ctx.event.data.n}, timeout="2d")
        return "never" if shipped is None else f"shipped {shipped.data.n}"

    @app.function(Job)
    async def caller(ctx: Context[Job]) -> str:
        return await ctx.step.invoke("sleeper", sleeper, Job(n=100 + ctx.event.data.n))

    @app.function(Job)
    async def signalled(ctx: Context[Job]) -> Any:
        return await ctx.step.wait_for_signal("approved", f"approve-{ctx.event.data.n}", timeout="5d")

    @app.function(Job, run_concurrency=1)
    async def one_by_one(ctx: Context[Job]) -> int:
        await ctx.step.sleep("hour", "1h")
        return ctx.event.data.n

    @app.function(Job, throttle=Throttle(1, "1h"))
    async def throttled(ctx: Context[Job]) -> int:
        return ctx.event.data.n

    @app.function(Job, rate_limit=RateLimit(2, "1d"))
    async def limited(ctx: Context[Job]) -> int:
        return ctx.event.data.n

    @app.function(Job, debounce=Debounce("2h"))
    async def debounced(ctx: Context[Job]) -> int:
        return ctx.event.data.n

    @app.function(Job, batch=Batch(5, "6h"))
    async def batched(ctx: Context[Job]) -> list[int]:
        return [event.data.n for event in ctx.events]

    @app.function(Job, singleton=Singleton())
    async def single(ctx: Context[Job]) -> int:
        await ctx.step.sleep("day", "1d")
        return ctx.event.data.n

    @app.function(Job)
    async def paused(ctx: Context[Job]) -> int:
        return ctx.event.data.n

    @app.function(Job, retries=3)
    async def failing(ctx: Context[Job]) -> int:
        def body() -> int:
            raise NonRetriableError("no good") if ctx.event.data.n == 0 else OSError("not now")

        return await ctx.step.run("body", body)

    @app.function(Cron("0 12 * * *"))
    async def noon(ctx: Context[CronTick]) -> str:
        return (await ctx.now()).isoformat()

    return app


async def before(harness: AsyncHarness) -> None:
    for n in range(3):
        await harness.send(Job(n=n), id=f"job-{n}")
    await harness.send(Job(n=7), id="later", ts=datetime(2026, 3, 2, 20, 0, tzinfo=UTC))
    await harness.advance("20m")
    await harness.engine.flow_control.pause("moving-paused")


async def after(harness: AsyncHarness) -> list[Any]:
    assert (await harness.send(Job(n=1), id="job-1")).duplicate
    await harness.send(Job(n=3), id="job-3")
    await harness.advance("1h")
    await harness.send(Shipped(n=1))
    await harness.apps[0].send_signal("approve-2", {"by": "me"})
    (dead, *_) = [run for run in await harness.runs() if run.function.endswith("failing") and run.status == "FAILED"]
    await harness.redrive(dead)
    await harness.advance("5d")
    assert [run.status for run in await harness.runs() if run.function == "moving-paused"] == ["COMPLETED"] * 3 + ["QUEUED"] * 2
    await harness.engine.flow_control.resume("moving-paused")
    await harness.advance("1d")
    runs = [
        (run.function, run.status, repr(run.output), str(run.queued_at), str(run.started_at), str(run.ended_at), len(run.steps))
        for run in await harness.runs()
    ]
    return sorted(runs)


def move(source_url: str, target_url: str) -> None:
    with opened_source(source_url, alone=True) as source, opened_target(target_url, source.schema) as target:
        copy_rows(source, target, lambda table, rows: None)


class Places:
    """Stores for harnesses, one after the other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, urls: dict[str, str]) -> None:
        self._monkeypatch = monkeypatch
        self._urls = urls
        self._count = 0

    def new(self, kind: str) -> str:
        self._count += 1
        return self._urls[kind].replace("{n}", str(self._count))

    def harness(self, app: App, url: str, start: Any = START) -> AsyncHarness:
        self._monkeypatch.setattr(AsyncHarness, "new_store", staticmethod(lambda directory: url))
        return AsyncHarness(app, start=start, patience=60.0)


@pytest.fixture
def places(tmp_path, postgres_url, monkeypatch):
    return Places(monkeypatch, {"sqlite": f"sqlite:///{tmp_path}/{{n}}.db", "postgres": f"{postgres_url}_{{n}}"})


async def story(places: Places, *kinds: str) -> list[Any]:
    """What becomes of everything when the store is moved in the middle, if it is."""
    url = places.new(kinds[0])
    async with places.harness(make_app(), url) as harness:
        await before(harness)
        now = harness.clock.now()
    if len(kinds) > 1:
        old, url = url, places.new(kinds[1])
        await asyncio.to_thread(move, old, url)
    async with places.harness(make_app(), url, now) as harness:
        return await after(harness)


@pytest.mark.parametrize("ways", WAYS, ids=" to ".join)
async def test_everything_goes_on_at_its_time_as_if_it_had_stayed(places, ways):
    stayed = await story(places, ways[0])
    moved = await story(places, *ways)
    assert moved == stayed
    assert len(moved) > 40
    assert {status for _, status, *_ in moved} >= {"COMPLETED", "FAILED"}


@pytest.mark.parametrize("ways", WAYS[:2], ids=" to ".join)
async def test_what_a_crash_cut_off_is_recovered_after_the_move_and_its_place_given_back(places, ways):
    app = App("cut-off")
    began, hold = [], asyncio.Event()

    @app.function(Job, concurrency=Concurrency(2))
    async def job(ctx: Context[Job]) -> int:
        async def body(n: int) -> int:
            began.append(n)
            await hold.wait()
            return n

        return await ctx.step.run("body", body, ctx.event.data.n)

    old, new = places.new(ways[0]), places.new(ways[1])
    # not as a context: the process dies
    engine_of = places.harness(app, old)
    engine_of._store = old
    await engine_of._boot()
    for n in range(5):
        await app.send(Job(n=n))
    while len(began) < 2:
        await asyncio.sleep(0)
    kill(engine_of.engine)
    await reap(engine_of.engine)
    await asyncio.to_thread(move, old, new)
    hold.set()
    async with places.harness(app, new) as harness:
        await harness.settle()
        runs = await harness.runs(job)
        assert sorted(run.output for run in runs) == [0, 1, 2, 3, 4]
        assert harness.engine.store.lease_counts == {}
    assert sorted(began[2:]) == [0, 1, 2, 3, 4]
