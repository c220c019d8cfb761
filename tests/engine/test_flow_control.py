"""P7: flow control as functions meet it: each rule on the real engine and a virtual clock."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from holdfast import (
    App,
    Batch,
    CancelOn,
    Concurrency,
    Context,
    Debounce,
    Event,
    Idempotency,
    RateLimit,
    RunCancelledError,
    RunRefusedError,
    Singleton,
    StepError,
    SyncContext,
    Throttle,
    Timeouts,
)
from holdfast.testing import Harness

pytestmark = pytest.mark.anyio

START = datetime(2030, 1, 1, tzinfo=UTC)


class Job(Event, name="t/job"):
    n: int = 0
    tenant: str = "a"
    seconds: float = 0
    gold: bool = False


class Stop(Event, name="t/stop"):
    n: int = 0


class Crowd:
    """Counts who is inside at once, by key."""

    def __init__(self) -> None:
        self.inside: dict[str, int] = {}
        self.most: dict[str, int] = {}
        self.seen: list[int] = []
        self.open = asyncio.Event()

    async def visit(self, key: str, n: int) -> None:
        self.inside[key] = self.inside.get(key, 0) + 1
        self.most[key] = max(self.most.get(key, 0), self.inside[key])
        self.seen.append(n)
        try:
            await self.open.wait()
        finally:
            self.inside[key] -= 1

    async def filled(self, count: int) -> None:
        while sum(self.inside.values()) < count:
            await asyncio.sleep(0.001)


def tenant(job: Job) -> str:
    return job.tenant


async def skips(h: Harness) -> list[str]:
    reasons = []
    for event in reversed((await h.engine.reader.events(limit=200))[0]):
        reasons += [skip.reason for skip in await h.engine.reader.event_skips(event.internal_id)]
    return reasons


# -- concurrency -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["event.data.tenant", tenant], ids=["expression", "function"])
async def test_a_limit_per_key_counts_bodies_and_nothing_waits_longer_than_it_must(key):
    app, crowd = App("t"), Crowd()

    @app.function(Job, concurrency=Concurrency(2, key=key))
    async def work(ctx: Context[Job]) -> None:
        job = ctx.event.data
        await ctx.step.run("visit", crowd.visit, job.tenant, job.n)

    async with Harness(app, start=START) as h:
        for n in range(12):
            await app.send(Job(n=n, tenant="abc"[n % 3]))
        await crowd.filled(6)
        assert crowd.inside == {"a": 2, "b": 2, "c": 2}
        crowd.open.set()
        await h.settle()
        assert crowd.most == {"a": 2, "b": 2, "c": 2}
        assert len(crowd.seen) == 12
        assert h.engine.store.lease_counts == {}
        assert not h.engine.store.lanes


async def test_parallel_steps_of_one_run_count_each():
    app, crowd = App("t"), Crowd()

    @app.function(Job, concurrency=3)
    async def work(ctx: Context[Job]) -> None:
        await asyncio.gather(*(ctx.step.run(f"visit-{i}", crowd.visit, "all", i) for i in range(8)))

    async with Harness(app, start=START) as h:
        await app.send_many([Job(n=n) for n in range(4)])
        await crowd.filled(3)
        await asyncio.sleep(0.02)
        assert crowd.inside == {"all": 3}
        crowd.open.set()
        await h.settle()
        assert crowd.most == {"all": 3}
        assert len(crowd.seen) == 32
        assert h.engine.store.lease_counts == {}


async def test_a_run_that_sleeps_leaves_its_place():
    app, crowd = App("t"), Crowd()
    crowd.open.set()

    @app.function(Job, concurrency=1)
    async def work(ctx: Context[Job]) -> None:
        await ctx.step.run("before", crowd.visit, "all", ctx.event.data.n)
        await ctx.step.sleep("night", timedelta(hours=8))
        await ctx.step.run("after", crowd.visit, "all", ctx.event.data.n)

    async with Harness(app, start=START, linger=timedelta(days=1)) as h:
        await app.send_many([Job(n=n) for n in range(5)])
        await h.advance("1m")
        assert sorted(crowd.seen) == [0, 1, 2, 3, 4]
        await h.settle()
        assert h.clock.time < START + timedelta(hours=9)
        assert crowd.most == {"all": 1}


async def test_two_limits_and_a_scope_shared_by_two_functions():
    app, crowd = App("t"), Crowd()
    shared = Concurrency(2, key="event.data.tenant", scope="environment")

    @app.function(Job, concurrency=[Concurrency(3), shared])
    async def one(ctx: Context[Job]) -> None:
        await ctx.step.run("visit", crowd.visit, ctx.event.data.tenant, 1)

    @app.function(Job, concurrency=shared)
    async def two(ctx: Context[Job]) -> None:
        await ctx.step.run("visit", crowd.visit, ctx.event.data.tenant, 2)

    async with Harness(app, start=START) as h:
        await app.send_many([Job(n=n, tenant="abcd"[n % 4]) for n in range(16)])
        await crowd.filled(8)
        crowd.open.set()
        await h.settle()
        assert max(crowd.most.values()) == 2
        assert len(crowd.seen) == 32
        assert not h.engine.store.lanes


async def test_a_limit_of_runs_holds_from_start_to_end_asleep_or_not(query_of):
    app = App("t")
    running: list[int] = []
    most: list[int] = []

    @app.function(Job, run_concurrency=2)
    async def work(ctx: Context[Job]) -> None:
        await ctx.step.run("in", running.append, ctx.event.data.n)
        most.append(len(running))
        await ctx.step.sleep("nap", timedelta(minutes=1))
        await ctx.step.run("out", running.remove, ctx.event.data.n)

    async with Harness(app, start=START) as h:
        await app.send_many([Job(n=n) for n in range(6)])
        await h.settle()
        assert max(most) == 2
        assert START + timedelta(minutes=3) <= h.clock.time < START + timedelta(minutes=4)
        assert query_of(h, "SELECT count(*) FROM run_counts") == [(0,)]


async def test_one_tenant_of_many_items_does_not_keep_another_waiting():
    app = App("t")
    order: list[str] = []

    async def body(name: str) -> None:
        order.append(name)
        await asyncio.sleep(0)

    @app.function(Job, concurrency=[Concurrency(2), Concurrency(2, key="event.data.tenant")])
    async def work(ctx: Context[Job]) -> None:
        await ctx.step.run("body", body, ctx.event.data.tenant)

    async with Harness(app, start=START) as h:
        await app.send_many([Job(n=n, tenant="a") for n in range(300)])
        await app.send(Job(tenant="b"))
        await h.settle()
        assert len(order) == 301
        assert order.index("b") < 250


async def test_places_are_free_again_after_a_crash():
    app = App("t")
    began: list[int] = []
    gate = asyncio.Event()

    async def body(n: int) -> None:
        began.append(n)
        if len(began) <= 2:
            await gate.wait()  # the process dies meanwhile

    @app.function(Job, concurrency=2, run_concurrency=3)
    async def work(ctx: Context[Job]) -> None:
        await ctx.step.run("body", body, ctx.event.data.n)

    async with Harness(app, start=START) as h:
        await app.send_many([Job(n=n) for n in range(5)])
        while len(began) < 2:
            await asyncio.sleep(0.001)
        await h.restart()
        await h.settle()
        assert {run.status for run in await h.runs()} == {"COMPLETED"}
        assert set(began) == {0, 1, 2, 3, 4}
        assert h.engine.store.lease_counts == {}


# -- throttle, rate limit ----------------------------------------------------------------------------------------------------


async def test_a_throttle_spreads_starts_evenly_and_loses_none():
    app = App("t")
    starts: list[float] = []

    @app.function(Job, throttle=Throttle(2, "5s"))
    async def work(ctx: Context[Job]) -> None:
        now = await ctx.now()
        starts.append((now - START).total_seconds())

    async with Harness(app, start=START) as h:
        await app.send_many([Job(n=n) for n in range(5)])
        await h.settle()
    assert starts == [pytest.approx(2.5 * n, abs=0.05) for n in range(5)]


async def test_a_burst_starts_at_once_when_it_has_been_quiet():
    app = App("t")
    starts: dict[str, float] = {}

    @app.function(Job, throttle=Throttle(1, "5s", burst=1, key="event.data.tenant"))
    async def work(ctx: Context[Job]) -> None:
        starts[ctx.run_id] = (await ctx.now() - START).total_seconds()
        await ctx.step.sleep("later steps are not throttled", 0.1)

    async with Harness(app, start=START) as h:
        await app.send_many([Job(n=n) for n in range(4)])
        await app.send(Job(tenant="b"))
        await h.settle()
    assert sorted(starts.values()) == [pytest.approx(s, abs=0.05) for s in (0, 0, 0, 5, 10)]


async def test_a_rate_limit_lets_so_many_start_in_any_period_and_says_what_it_dropped():
    app = App("t")
    seen: list[int] = []

    @app.function(Job, rate_limit=RateLimit(3, "1m", key="event.data.tenant"))
    async def work(ctx: Context[Job]) -> None:
        seen.append(ctx.event.data.n)

    async with Harness(app, start=START) as h:
        for n in range(5):
            await h.send(Job(n=n))
        await h.send(Job(n=100, tenant="b"))
        assert seen == [0, 1, 2, 100]
        await h.advance("61s")
        await h.send(Job(n=6))
        assert seen == [0, 1, 2, 100, 6]
        assert await skips(h) == ["rate limited", "rate limited"]
        with pytest.raises(RunRefusedError, match="rate limited"):
            for n in range(3):
                await app.start(work, Job(n=n))


# -- debounce, batch ---------------------------------------------------------------------------------------------------------


async def test_a_debounce_starts_with_the_last_event_once_it_has_been_quiet(query_of):
    app = App("t")
    seen: list[tuple[int, float]] = []

    @app.function(Job, debounce=Debounce("10s", key="event.data.tenant"))
    async def work(ctx: Context[Job]) -> None:
        seen.append((ctx.event.data.n, (await ctx.now() - START).total_seconds()))

    async with Harness(app, start=START) as h:
        for n in range(4):
            await h.send(Job(n=n))
            await h.advance("4s")
        await h.send(Job(n=9, tenant="b"))
        await h.restart()
        await h.settle()
        assert [n for n, _ in seen] == [3, 9]
        assert seen[0][1] == pytest.approx(22, abs=0.05)
        assert await skips(h) == ["debounced away"] * 3
        assert query_of(h, "SELECT count(*) FROM gathers") == [(0,)]


async def test_a_debounce_waits_no_longer_than_its_timeout_and_ignores_older_events():
    app = App("t")
    seen: list[tuple[int, float]] = []

    @app.function(Job, debounce=Debounce("10s", timeout="25s"))
    async def work(ctx: Context[Job]) -> None:
        seen.append((ctx.event.data.n, (await ctx.now() - START).total_seconds()))

    async with Harness(app, start=START) as h:
        for n in range(4):
            await h.send(Job(n=n))
            await h.advance("8s")
        assert seen == [(3, pytest.approx(25, abs=0.05))]
        await app.send(Job(n=10))
        await app.send({"name": "t/job", "data": {"n": 11}, "ts": START - timedelta(days=1)})
        await h.settle()
        assert seen[-1][0] == 10


async def test_a_batch_starts_when_it_is_full_or_its_time_is_up():
    app = App("t")
    seen: list[tuple[list[int], float]] = []

    @app.function(Job, batch=Batch(3, "10s", key="event.data.tenant", if_="!event.data.gold"))
    async def work(ctx: Context[Job]) -> int:
        assert ctx.event.data.n == ctx.events[0].data.n
        seen.append(([event.data.n for event in ctx.events], (await ctx.now() - START).total_seconds()))
        await ctx.step.sleep("reload", timedelta(hours=1))
        return len(ctx.events)

    async with Harness(app, start=START) as h:
        for n in range(4):
            await h.send(Job(n=n))
        await h.send(Job(n=7, tenant="b"))
        await h.send(Job(n=8, gold=True))
        await h.advance("9s")
        assert [batch for batch, _ in seen] == [[0, 1, 2], [8]]
        await h.restart()
        await h.settle()
        assert [batch for batch, _ in seen if batch not in ([0, 1, 2], [8])] == [[3], [7], [3], [7]]
        assert sorted(run.output for run in await h.runs()) == [1, 1, 1, 3]


async def test_every_caller_of_a_batch_is_resumed_with_its_result():
    app = App("t")

    @app.function(Job, id="many", batch=Batch(2, "1m"))
    async def many(ctx: Context[Job]) -> int:
        return sum(event.data.n for event in ctx.events)

    @app.function(Stop)
    async def caller(ctx: Context[Stop]) -> int:
        return await ctx.step.invoke("call", many, Job(n=ctx.event.data.n))

    async with Harness(app, start=START) as h:
        runs = [await h.start(caller, Stop(n=n)) for n in (1, 2, 4)]
        await h.settle()
        assert [(await h.read(run)).output for run in runs] == [3, 3, 4]


# -- singleton, idempotency ----------------------------------------------------------------------------------------------------


async def test_a_singleton_skips_what_comes_while_a_run_is_live():
    app = App("t")

    @app.function(Job, singleton=Singleton("skip", key="event.data.tenant"))
    async def work(ctx: Context[Job]) -> int:
        await ctx.step.sleep("nap", timedelta(minutes=1))
        return ctx.event.data.n

    async with Harness(app, start=START) as h:
        await h.send(Job(n=1))
        await h.send(Job(n=2))
        await h.send(Job(n=3, tenant="b"))
        with pytest.raises(RunRefusedError, match="another run of this singleton is live; run .* stands in its place"):
            await app.start(work, Job(n=4))
        await h.settle()
        await h.send(Job(n=5))
        await h.settle()
        runs = await h.runs()
        assert sorted(run.output for run in runs if run.status == "COMPLETED") == [1, 3, 5]
        assert [run.status for run in runs].count("SKIPPED") == 2
        assert await skips(h) == ["singleton", "singleton"]


async def test_a_singleton_cancels_the_live_run_and_the_new_one_starts_only_then():
    app = App("t")
    inside = 0
    most = 0

    async def body() -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        try:
            await asyncio.sleep(30)
        finally:
            inside -= 1

    @app.function(Job, singleton=Singleton("cancel"))
    async def work(ctx: Context[Job]) -> int:
        if ctx.event.data.n < 4:
            await ctx.step.run("body", body)
        return ctx.event.data.n

    async with Harness(app, start=START) as h:
        for n in range(5):
            await app.send(Job(n=n))
            if n == 0:
                while not inside:
                    await asyncio.sleep(0.001)
        await h.settle()
        runs = await h.runs()
        assert [run.output for run in runs if run.status == "COMPLETED"] == [4]
        assert [run.status for run in runs].count("CANCELLED") == 4
        assert most == 1


async def test_idempotency_by_key_starts_one_run_in_a_day():
    app = App("t")
    seen: list[int] = []

    @app.function(Job, idempotency="event.data.tenant")
    async def work(ctx: Context[Job]) -> None:
        seen.append(ctx.event.data.n)

    async with Harness(app, start=START) as h:
        await app.send_many([Job(n=n) for n in range(50)])
        await h.settle()
        await h.advance("23h")
        await h.send(Job(n=51))
        await h.advance("2h")
        await h.send(Job(n=52))
        assert seen == [0, 52]
        assert await skips(h) == ["idempotency"] * 50


async def test_a_bucket_with_trailing_swallows_nothing_that_came_after_the_run_began():
    app = App("t")
    dirty: set[int] = set()
    recomputed: list[tuple[set[int], float]] = []

    @app.function(Job, idempotency=Idempotency("event.data.tenant", bucket="10s", trailing=True))
    async def recompute(ctx: Context[Job]) -> None:
        recomputed.append((set(dirty), (await ctx.now() - START).total_seconds()))
        dirty.clear()

    async with Harness(app, start=START) as h:
        for n in range(40):
            dirty.add(n)
            await h.send(Job(n=n))
            await h.advance("1s")
        await h.settle()
        assert set().union(*(seen for seen, _ in recomputed)) == set(range(40))
        moments = [moment for _, moment in recomputed]
        assert len(moments) == len({int(moment // 10) for moment in moments}), moments
        assert len(moments) == 5


# -- priority, cancellation, timeouts --------------------------------------------------------------------------------------------


async def test_priority_orders_the_queue():
    app, crowd = App("t"), Crowd()

    @app.function(Job, concurrency=1, priority="event.data.gold ? 100 : 0")
    async def work(ctx: Context[Job]) -> None:
        await ctx.step.run("visit", crowd.visit, "all", ctx.event.data.n)

    async with Harness(app, start=START) as h:
        await app.send(Job(n=0))
        await crowd.filled(1)
        await app.send_many([Job(n=1), Job(n=2), Job(n=3, gold=True)])
        crowd.open.set()
        await h.settle()
    assert crowd.seen == [0, 3, 1, 2]


@pytest.mark.parametrize("how", [{"match": "data.n"}, {"if_": "async.data.n == event.data.n && event.data.n > 0"}])
async def test_an_event_cancels_the_runs_it_matches(how, query_of):
    app = App("t")

    @app.function(Job, cancel_on=CancelOn(Stop, **how))
    async def work(ctx: Context[Job]) -> int:
        await ctx.step.sleep("long", timedelta(days=1))
        return ctx.event.data.n

    async with Harness(app, start=START) as h:
        runs = [await h.start(work, Job(n=n)) for n in (1, 2, 3)]
        await h.send(Stop(n=2))
        assert [(await h.read(run)).status for run in runs] == ["WAITING", "CANCELLED", "WAITING"]
        assert query_of(h, "SELECT reason FROM runs WHERE status = 4")[0][0].startswith("cancelled by event t/stop (")
        await h.settle()
        assert [(await h.read(run)).status for run in runs] == ["COMPLETED", "CANCELLED", "COMPLETED"]
        assert query_of(h, "SELECT count(*) FROM waits UNION ALL SELECT count(*) FROM alarms") == [(0,), (0,)]


async def test_an_event_that_starts_a_run_does_not_cancel_it_but_the_one_before():
    app = App("t")

    @app.function(Job, cancel_on=[CancelOn("t/job", match="data.tenant")])
    async def work(ctx: Context[Job]) -> int:
        await ctx.step.sleep("long", timedelta(days=1))
        return ctx.event.data.n

    async with Harness(app, start=START) as h:
        for n in range(3):
            await h.send(Job(n=n))
        await h.settle()
        assert [run.output for run in await h.runs() if run.status == "COMPLETED"] == [2]


async def test_timeouts_act_at_once(engine_for):
    app, crowd = App("t"), Crowd()

    @app.function(Job, concurrency=1, timeouts=Timeouts(start=0.05, finish=0.2))
    async def work(ctx: Context[Job]) -> None:
        await ctx.step.run("visit", crowd.visit, "all", 0)

    async with engine_for(app):
        first = await app.start(work, Job(n=0))
        await crowd.filled(1)
        late = await app.start(work, Job(n=1))
        with pytest.raises(RunCancelledError, match="it did not start within 50ms"):
            await late.result(timeout=60)
        assert (await first.info()).status == "RUNNING"
        with pytest.raises(RunCancelledError, match="it did not finish within 200ms"):
            await first.result(timeout=60)
        assert crowd.inside == {"all": 0}


async def test_timeouts_survive_a_restart_and_are_gone_with_the_run(query_of):
    app = App("t")

    @app.function(Job, timeouts=Timeouts(start="1m", finish="5m"))
    async def work(ctx: Context[Job]) -> None:
        await ctx.step.sleep("s", timedelta(seconds=ctx.event.data.seconds))

    async with Harness(app, start=START) as h:
        slow = await h.start(work, Job(seconds=3600))
        quick = await h.start(work, Job(seconds=10))
        await h.restart()
        await h.settle()
        assert (await h.read(slow)).status == "CANCELLED"
        assert (await h.read(quick)).status == "COMPLETED"
        assert query_of(h, "SELECT count(*) FROM alarms") == [(0,)]
        assert h.clock.time < START + timedelta(minutes=6)


async def test_a_delayed_event_starts_its_run_then_and_debounce_waits_for_it_too():
    app = App("t")
    starts: list[float] = []

    @app.function(Job, concurrency=5)
    async def work(ctx: Context[Job]) -> None:
        starts.append((await ctx.now() - START).total_seconds())

    async with Harness(app, start=START) as h:
        await app.send(Job(), ts=START + timedelta(hours=1))
        await h.settle()
    assert starts == [pytest.approx(3600, abs=0.05)]


# -- pausing, limits, flushing -------------------------------------------------------------------------------------------------------


async def test_a_held_function_keeps_its_runs_and_a_skipping_one_says_so():
    app = App("t")
    seen: list[int] = []

    @app.function(Job)
    async def work(ctx: Context[Job]) -> None:
        await ctx.step.sleep("s", 5)
        seen.append(ctx.event.data.n)

    async with Harness(app, start=START) as h:
        flow = h.engine.flow_control
        await h.send(Job(n=0))
        await flow.pause("t-work")
        await h.send(Job(n=1))
        await h.restart()
        await h.advance("1m")
        assert seen == []
        await h.engine.flow_control.resume("t-work")
        await h.settle()
        assert sorted(seen) == [0, 1]
        await h.send(Job(n=2))
        await h.engine.flow_control.pause("t-work", "skip")
        await h.send(Job(n=3))
        await h.settle()
        assert sorted(seen) == [0, 1, 2]
        assert await skips(h) == ["paused"]
        assert [run.status for run in await h.runs()].count("SKIPPED") == 1


async def test_a_limit_is_changed_while_runs_wait_and_stays_changed():
    app, crowd = App("t"), Crowd()

    @app.function(Job, concurrency=1)
    async def work(ctx: Context[Job]) -> None:
        await ctx.step.run("visit", crowd.visit, "all", ctx.event.data.n)

    async with Harness(app, start=START) as h:
        await app.send_many([Job(n=n) for n in range(6)])
        await crowd.filled(1)
        await h.engine.flow_control.set_limit("t-work", "concurrency", 4)
        await crowd.filled(4)
        await asyncio.sleep(0.01)
        assert crowd.inside == {"all": 4}
        crowd.open.set()
        await h.settle()
        await h.restart()
        assert h.engine.intake.flows[1].limit_of == {"concurrency": 4}


async def test_a_debounce_and_a_batch_are_flushed():
    app = App("t")
    seen: list[list[int]] = []

    @app.function(Job, batch=Batch(100, "1h"))
    async def many(ctx: Context[Job]) -> None:
        seen.append([event.data.n for event in ctx.events])

    @app.function(Job, debounce=Debounce("1h"))
    async def last(ctx: Context[Job]) -> None:
        seen.append([ctx.event.data.n])

    async with Harness(app, start=START) as h:
        for n in range(3):
            await h.send(Job(n=n))
        flow = h.engine.flow_control
        assert [(one["kind"], one["events"]) for one in await flow.gathers("t-many") + await flow.gathers("t-last")] == [("batch", 3), ("debounce", 3)]
        assert await flow.flush("t-many") == 1
        assert await flow.flush("t-last") == 1
        assert await flow.flush("t-last") == 0
        await h.clock.quiesce()
        assert sorted(seen) == [[0, 1, 2], [2]]


async def test_an_invoked_function_that_is_refused_says_so_to_its_caller():
    app = App("t")

    @app.function(Job, rate_limit=RateLimit(1, "1h"))
    async def callee(ctx: Context[Job]) -> int:
        return 1

    @app.function(Stop)
    async def caller(ctx: Context[Stop]) -> str:
        try:
            return str(await ctx.step.invoke("call", callee, Job()))
        except StepError as error:
            return error.message

    async with Harness(app, start=START) as h:
        assert (await h.run(caller, Stop())).output == "1"
        assert (await h.run(caller, Stop())).output == "invoked function is rate limited"


async def test_a_debounced_invoke_waits_for_the_run_that_comes_of_it():
    app = App("t")

    @app.function(Job, debounce=Debounce("10s"))
    async def callee(ctx: Context[Job]) -> int:
        return ctx.event.data.n

    @app.function(Stop)
    def caller(ctx: SyncContext[Stop]) -> int:
        return ctx.step.invoke("call", callee, Job(n=ctx.event.data.n))

    async with Harness(app, start=START) as h:
        runs = [await h.start(caller, Stop(n=n)) for n in (1, 2)]
        await h.settle()
        assert [(await h.read(run)).output for run in runs] == [2, 2]


async def test_a_cancelling_event_does_not_forget_the_run_that_follows():
    app = App("t")

    @app.function(Job, singleton=Singleton("cancel"), cancel_on=CancelOn(Stop))
    async def work(ctx: Context[Job]) -> int:
        await ctx.step.sleep("s", timedelta(minutes=1))
        return ctx.event.data.n

    async with Harness(app, start=START) as h:
        await h.send(Job(n=1))
        await asyncio.gather(app.send(Job(n=2)), app.send(Stop()), app.send(Job(n=3)), app.send(Stop()), app.send(Job(n=4)))
        await h.settle()
        runs = await h.runs()
        assert all(run.status in {"COMPLETED", "CANCELLED"} for run in runs)
        assert [run.output for run in runs if run.status == "COMPLETED"] == [4]


async def test_a_debounced_invocation_that_a_singleton_turns_away_tells_its_caller():
    app, answers = App("t"), []

    @app.function(Job, debounce=Debounce("1s"), singleton=Singleton())
    async def callee(ctx: Context[Job]) -> None:
        await ctx.step.sleep("long", timedelta(hours=1))

    @app.function(Stop)
    async def caller(ctx: Context[Stop]) -> None:
        try:
            await ctx.step.invoke("call", callee, Job(n=1))
        except StepError as error:
            answers.append(str(error))

    async with Harness(app, start=START) as h:
        await app.send(Job())
        await h.advance("2s")
        await app.send(Stop())
        await h.advance("2s")
        assert len(answers) == 1
        assert "singleton" in answers[0]


async def test_a_follower_that_is_cancelled_leaves_its_follower_behind_the_live_run(engine_for):
    app = App("t")
    inside, most = 0, 0
    leave = asyncio.Event()

    async def body() -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        try:
            await leave.wait()
        finally:
            inside -= 1

    @app.function(Job, singleton=Singleton("cancel"))
    async def work(ctx: Context[Job]) -> int:
        await ctx.step.run("body", body)
        return ctx.event.data.n

    async with engine_for(app) as engine:
        first = await app.start(work, Job(n=1))
        while not inside:
            await asyncio.sleep(0.001)
        # in one group: another takes its place, a person cancels that one, and a third comes
        engine.alarms.stop()
        second = await app.start(work, Job(n=2))
        await second.cancel()
        third = await app.start(work, Job(n=3))
        await asyncio.sleep(0.02)
        assert inside == 1
        engine.alarms.start()
        leave.set()
        assert await third.result(timeout=60) == 3
        with pytest.raises(RunCancelledError):
            await first.result(timeout=60)
        assert most == 1
