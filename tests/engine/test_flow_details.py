"""P7: flow control in the moments that are easily got wrong: what counts from when, what is answered, and what is checked at definition."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import Field

from holdfast import (
    App,
    Backoff,
    Batch,
    CancelOn,
    Concurrency,
    ConfigurationError,
    Context,
    Debounce,
    Event,
    Idempotency,
    On,
    RateLimit,
    RunRefusedError,
    Singleton,
    StepError,
    Timeouts,
)
from holdfast.engine import alarms
from holdfast.store.reads import RunFilter
from holdfast.testing import Harness, VirtualClock

pytestmark = pytest.mark.anyio

START = datetime(2030, 1, 1, tzinfo=UTC)


class Job(Event, name="t/job"):
    n: int = 0
    tenant: str = "a"
    gold: bool = False


class Go(Event, name="t/go"):
    n: int = 0


class Order(Event, name="t/order"):
    order_id: str | None = Field(None, alias="orderId")
    odd: str | None = Field(None, alias="odd-name")


class Cancelled(Event, name="t/cancelled"):
    id: str | None = Field(None, alias="ref")
    odd: str | None = Field(None, alias="odd-name")


class Plain(Event, name="t/plain"):
    order_id: str | None = Field(None, alias="orderId")


def build(engine_for, app: App, at: datetime):
    """An engine at a moment; another one later finds what this leaves."""
    return engine_for(app, clock=VirtualClock(at))


async def skips(h: Harness) -> list[str]:
    reasons = []
    for event in reversed((await h.engine.reader.events(limit=200))[0]):
        reasons += [skip.reason for skip in await h.engine.reader.event_skips(event.internal_id)]
    return reasons


# -- debounces and batches that wait while the code changes ------------------------------------------------------------------


def app_with(name: str, *, seen: list[int] | None = None, **rules):
    app = App("t")
    if seen is None:
        return app

    @app.function(Job, id=name, **rules)
    async def work(ctx: Context[Job]) -> int:
        seen.append(len(ctx.events))
        return len(ctx.events)

    return app


@pytest.mark.parametrize("rule", [{"debounce": Debounce("10s")}, {"batch": Batch(5, "10s")}])
async def test_what_waits_starts_though_the_last_rule_of_its_function_is_removed(rule, engine_for):
    seen: list[int] = []
    app = app_with("work", seen=seen, **rule)
    async with build(engine_for, app, START):
        await app.send_many([Job(n=1), Job(n=2)])
    later = START + timedelta(seconds=20)
    async with build(engine_for, app_with("work"), later) as engine:
        while await engine.store.gathers_of(1) or engine.alarms.ringing:
            await asyncio.sleep(0.001)
        assert [run.status for run in (await engine.reader.runs(RunFilter()))[0]] == ["QUEUED"]
    async with build(engine_for, app_with("work", seen=seen), later):
        while not seen:
            await asyncio.sleep(0.001)
    assert seen == [2 if "batch" in rule else 1]


async def test_an_alarm_that_goes_wrong_does_not_stop_the_others(monkeypatch):
    app, seen = App("t"), []

    @app.function(Job, debounce=Debounce("10s", key="event.data.tenant"))
    async def work(ctx: Context[Job]) -> None:
        seen.append(ctx.event.data.tenant)

    fire = alarms.fire

    def failing(host, gather, *, flush=False):
        if gather.key == "bad":
            raise LookupError("nobody expects this")
        return fire(host, gather, flush=flush)

    monkeypatch.setattr(alarms, "fire", failing)
    async with Harness(app, start=START) as h:
        for name in ("bad", "good"):
            await h.send(Job(tenant=name))
        await h.clock.advance(timedelta(seconds=11))
        assert seen == ["good"]
        monkeypatch.setattr(alarms, "fire", fire)
        await h.settle()
        assert seen == ["good", "bad"]


# -- ids ---------------------------------------------------------------------------------------------------------------------


async def test_a_duplicate_of_a_refused_event_is_refused_and_leads_to_no_run_that_is_not_there():
    app = App("t")

    @app.function(Job, rate_limit=RateLimit(1, "1h"))
    async def work(ctx: Context[Job]) -> int:
        return ctx.event.data.n

    async with Harness(app, start=START) as h:
        first = await app.start(work, Job(n=1), id="one")
        with pytest.raises(RunRefusedError, match="rate limited"):
            await app.start(work, Job(n=2), id="two")
        with pytest.raises(RunRefusedError, match="with the same id came before") as refused:
            await app.start(work, Job(n=2), id="two")
        assert refused.value.run_id is None
        assert (await app.send(Job(n=2), id="two")).duplicate
        again = await app.start(work, Job(n=1), id="one")
        assert again.id == first.id
        assert await again.result() == 1
        assert await skips(h) == ["rate limited", "duplicate event id", "duplicate event id", "duplicate event id"]


async def test_a_duplicate_of_an_event_that_another_run_stands_for_leads_to_that_run():
    app = App("t")

    @app.function(Job, idempotency="event.data.tenant")
    async def work(ctx: Context[Job]) -> int:
        return ctx.event.data.n

    async with Harness(app, start=START):
        first = await app.start(work, Job(n=1))
        with pytest.raises(RunRefusedError, match="stands in its place"):
            await app.start(work, Job(n=2), id="two")
        again = await app.start(work, Job(n=2), id="two")
        assert again.id == first.id


async def test_only_a_singleton_leaves_a_skipped_run():
    app = App("t")

    @app.function(Job, singleton=Singleton("skip"), idempotency="event.data.n")
    async def work(ctx: Context[Job]) -> int:
        await ctx.step.sleep("s", timedelta(minutes=1))
        return ctx.event.data.n

    async with Harness(app, start=START) as h:
        await h.send(Job(n=1))
        await h.send(Job(n=1))
        assert [run.status for run in await h.runs()] == ["WAITING"]
        await h.send(Job(n=2))
        assert sorted(run.status for run in await h.runs()) == ["SKIPPED", "WAITING"]


# -- a pause that skips --------------------------------------------------------------------------------------------------------


async def test_a_function_paused_with_skip_is_not_invoked_nor_started():
    app = App("t")

    @app.function(Job)
    async def callee(ctx: Context[Job]) -> int:
        return 1

    @app.function(Go)
    async def caller(ctx: Context[Go]) -> str:
        try:
            return str(await ctx.step.invoke("call", callee, Job()))
        except StepError as error:
            return error.message

    async with Harness(app, start=START) as h:
        done = await h.run(callee, Job())
        await h.engine.flow_control.pause("t-callee", "skip")
        assert (await h.run(caller, Go())).output == "invoked function is paused"
        with pytest.raises(RunRefusedError, match="was started: the function is paused$") as refused:
            await app.start(callee, Job())
        assert refused.value.run_id is None
        assert [run.status for run in await h.runs(callee)].count("SKIPPED") == 2
        again = await h.engine.rerun(done.id)
        await h.settle()
        assert [run.status for run in await h.runs(callee) if run.id == again] == ["COMPLETED"]


# -- what counts from when ------------------------------------------------------------------------------------------------------


async def test_a_start_timeout_and_that_of_a_cancelling_event_count_from_when_the_run_is_due():
    app = App("t")

    @app.function(Job, timeouts=Timeouts(start="1m"), cancel_on=CancelOn(Go, timeout="1m"))
    async def work(ctx: Context[Job]) -> int:
        await ctx.step.sleep("s", timedelta(hours=1))
        return ctx.event.data.n

    async with Harness(app, start=START) as h:
        for n in range(2):
            await app.send(Job(n=n), ts=START + timedelta(hours=1 + n))
        await h.advance("60m")
        assert [run.status for run in await h.runs()] == ["WAITING", "QUEUED"]
        await h.advance("30s")
        await h.send(Go())
        assert {run.status for run in await h.runs()} == {"CANCELLED"}


async def test_a_run_that_should_have_started_while_nothing_ran_is_cancelled_and_not_started(engine_for):
    app, began = App("t"), []

    @app.function(Job, timeouts=Timeouts(start="1m"))
    async def work(ctx: Context[Job]) -> None:
        began.append(ctx.event.data.n)

    async with build(engine_for, app, START) as engine:
        await engine.flow_control.pause("t-work")
        await app.send_many([Job(n=1), Job(n=2)])
        await app.send(Job(n=3), ts=START + timedelta(seconds=30))
        await engine.store.set_function(1, paused=None, limits={})  # it stays held in this process only
    async with build(engine_for, app, START + timedelta(hours=1)) as engine:
        while engine.store.next_alarm() is not None:
            await asyncio.sleep(0.001)
        await engine.idle()
        assert [run.status for run in (await engine.reader.runs(RunFilter()))[0]] == ["CANCELLED"] * 3
        assert not engine.store.lanes
    assert began == []


# -- order ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["sleep", "retry"])
async def test_priority_holds_after_a_sleep_and_a_failed_attempt(how, engine_for, query):
    app, order, gate = App("t"), [], asyncio.Event()
    failed: set[int] = set()

    async def body(n: int) -> None:
        order.append(n)
        if n == 9:
            await gate.wait()

    def fail_once(n: int) -> None:
        if n not in failed:
            failed.add(n)
            raise OSError("once")

    @app.function(Job, concurrency=1, priority="event.data.gold ? 100 : 0", backoff=Backoff.constant(10))
    async def work(ctx: Context[Job]) -> None:
        n = ctx.event.data.n
        if n != 9 and how == "sleep":
            await ctx.step.sleep("s", 10)
        elif n != 9:
            await ctx.step.run("fail", fail_once, n)
        await ctx.step.run("body", body, n)

    def waiting(state: int) -> int:
        return query("SELECT count(*) FROM queue WHERE state = ?", state)[0][0]

    clock = VirtualClock(START)
    async with engine_for(app, clock=clock, linger_ms=0) as engine:
        for n in (1, 2, 3):
            await app.send(Job(n=n, gold=n == 3))
        while waiting(1) < 3:
            await asyncio.sleep(0.001)
        await app.send(Job(n=9, gold=True))
        while 9 not in order:
            await asyncio.sleep(0.001)
        await clock.advance(11)
        while waiting(0) < 3:
            await asyncio.sleep(0.001)
        gate.set()
        await engine.idle()
        while len(order) < 4:
            await asyncio.sleep(0.001)
    assert order == [9, 3, 1, 2]


async def test_a_batch_counts_by_the_keys_of_its_first_event_full_or_not():
    app, inside, most, gate = App("t"), [], [], asyncio.Event()

    async def body(tenant: str) -> None:
        inside.append(tenant)
        most.append(sorted(inside))
        await gate.wait()
        inside.remove(tenant)

    @app.function(Job, batch=Batch(2, "10s"), concurrency=Concurrency(1, key="event.data.tenant"))
    async def work(ctx: Context[Job]) -> None:
        await ctx.step.run("body", body, ctx.event.data.tenant)

    async with Harness(app, start=START) as h:
        await app.send_many([Job(tenant="a"), Job(tenant="b"), Job(tenant="c"), Job(tenant="b")])
        await app.send(Job(tenant="a"))
        await app.send(Job(tenant="d"))
        while len(inside) < 2:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        assert inside == ["a", "c"]
        assert [run.key for run in (await h.engine.reader.runs(RunFilter()))[0]] == ["a", "c", "a"]
        gate.set()
        await h.settle()
        assert h.engine.store.lease_counts == {}
    assert most == [["a"], ["a", "c"], ["a"]]


async def test_a_run_that_waits_for_a_place_does_not_show_as_running():
    app, gate = App("t"), asyncio.Event()

    async def hold() -> None:
        await gate.wait()

    @app.function(Job, concurrency=Concurrency(1, key="event.data.tenant"))
    async def work(ctx: Context[Job]) -> None:
        if ctx.event.data.n == 1:
            await ctx.step.wait_for_event("go", Go, timeout=timedelta(days=1))
        else:
            await ctx.step.run("hold", hold)

    async with Harness(app, start=START) as h:
        first = await h.start(work, Job(n=1))
        second = await app.start(work, Job(n=2))
        third = await app.start(work, Job(n=3))
        await app.send(Go())
        assert [(await one.info()).status for one in (second, third)] == ["RUNNING", "QUEUED"]
        detail = await h.engine.reader.run(first.id)
        assert (detail.run.status, detail.queue.state) == ("WAITING", "ready")
        found, _ = await h.engine.reader.runs(RunFilter(status=("WAITING",)))
        assert [run.id for run in found] == [first.id]
        assert (await h.engine.reader.runs(RunFilter(status=("RUNNING",))))[0][0].id == second.id
        gate.set()
        await h.settle()


# -- match ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"if_": "event.data.orderId != 'x'"}])
async def test_a_match_takes_the_fields_python_names_of_both_events_and_no_nulls(more):
    app = App("t")

    @app.function(Order, cancel_on=[CancelOn(Plain, match="data.order_id", **more), CancelOn(Cancelled, match="data.odd", **more)])
    async def work(ctx: Context[Order]) -> str | None:
        await ctx.step.sleep("long", timedelta(days=1))
        return ctx.event.data.order_id

    async with Harness(app, start=START) as h:
        runs = [await h.start(work, Order(order_id=one, odd=odd)) for one, odd in (("o1", "q1"), ("o2", "q2"), (None, None))]
        await h.send(Plain(order_id="o1"))
        await h.send({"name": "t/plain", "data": {}})
        await h.send(Plain(order_id=None))
        await h.send(Cancelled(odd=None))
        assert [(await h.read(run)).status for run in runs] == ["CANCELLED", "WAITING", "WAITING"]
        await h.send(Cancelled(odd="q2"))
        assert [(await h.read(run)).status for run in runs] == ["CANCELLED", "CANCELLED", "WAITING"]
        await h.settle()


async def test_a_wait_matches_by_python_names_and_not_what_is_missing():
    app = App("t")

    @app.function(Order)
    async def work(ctx: Context[Order]) -> str | None:
        got = await ctx.step.wait_for_event("w", Plain, match="data.order_id", timeout=timedelta(hours=1))
        return None if got is None else got.data.order_id

    @app.function(Go, retries=0)
    async def wrong(ctx: Context[Go]) -> None:
        await ctx.step.wait_for_event("w", Plain, match="data.n", timeout=timedelta(hours=1))

    async with Harness(app, start=START) as h:
        runs = [await h.start(work, Order(order_id=one)) for one in ("o1", None)]
        await h.send(Plain(order_id=None))
        await h.send(Plain(order_id="o1"))
        await h.settle()
        assert [(await h.read(run)).output for run in runs] == ["o1", None]
        assert (await h.read(runs[1])).status == "COMPLETED"
        assert h.clock.time >= START + timedelta(hours=1)
        assert "field 'n'" in str((await h.run(wrong, Go())).error)


# -- at definition -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cancel_on": CancelOn(Plain, match="data.ordr_id")}, "no field 'ordr_id'; did you mean 'order_id'?"),
        ({"cancel_on": CancelOn("t/any", match="data.ordr_id")}, "'t/order' has no field 'ordr_id'; did you mean 'order_id'?"),
        ({"cancel_on": CancelOn(Cancelled, match="data.order_id")}, "'t/cancelled' has no field 'order_id'"),
        ({"cancel_on": CancelOn("t/any", match="order_id")}, "write 'data.order_id'"),
        ({"cancel_on": "t/*"}, "'t/*' is a pattern, and runs are cancelled by events of one name"),
        ({"cancel_on": 5}, "cancel_on is an event class, a name or CancelOn(...), not 5"),
        ({"timeouts": "1m"}, "timeouts is Timeouts(start=..., finish=...), not '1m'"),
        ({"idempotency": ""}, "idempotency needs a key"),
        ({"concurrency": Concurrency(1, scope="env")}, "scope is one of 'function', 'environment', 'account', not 'env'"),
        ({"concurrency": Concurrency(1, scope="environment")}, "scope='environment' needs a key"),
        ({"concurrency": Concurrency(1, key=lambda job: job.n, scope="account")}, "write the lambda as a `def`"),
    ],
)
def test_what_is_wrong_is_said_at_definition_with_the_function_and_its_line(settings, words):
    app = App("t")

    async def work(ctx: Context[Order]) -> None: ...

    with pytest.raises(ConfigurationError) as caught:
        app.function(Order, **settings)(work)
    assert words in str(caught.value)
    assert f"{__file__}:" in str(caught.value)
    assert "function test_what" in str(caught.value)


def test_of_several_triggers_one_may_be_without_the_field_that_is_matched():
    app = App("t")

    @app.function(Order, On(Job, if_="event.data.n > 1"), cancel_on=CancelOn(Plain, match="data.order_id"))
    async def work(ctx: Context[Order | Job]) -> None: ...

    assert work.config()["cancel"] == [
        {"event": "t/plain", "if": "event.data.orderId != null && event.data.orderId == async.data.orderId"}
    ]


async def test_a_limit_is_a_whole_number():
    app = App("t")

    @app.function(Job, concurrency=1)
    async def work(ctx: Context[Job]) -> None: ...

    async with Harness(app, start=START) as h:
        with pytest.raises(ConfigurationError, match="a whole number of 1 or more, not 2.5"):
            await h.engine.flow_control.set_limit("t-work", "concurrency", 2.5)


async def test_retention_takes_any_clock():
    app = App("t")

    @app.function(Job, idempotency=Idempotency("event.data.n", bucket="10s"))
    async def work(ctx: Context[Job]) -> None: ...

    async with Harness(app, start=START) as h:
        await h.send(Job())
        h.engine.store.clock.now = lambda: (1 << 48) + 400 * 86_400_000  # type: ignore[method-assign]
        while await h.engine.store.prune(86_400_000, 86_400_000):
            pass
        assert await h.runs() == []
