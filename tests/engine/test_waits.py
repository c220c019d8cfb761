"""P3: waits for events: what matches, from when on, and what comes at the same instant."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from holdfast import App, Context, Event, RunFailedError
from holdfast.sdk.sender import Outgoing
from holdfast.testing import AsyncHarness

pytestmark = pytest.mark.anyio


class Customer(BaseModel):
    id: str
    vip: bool = False


class Go(Event, name="test/go"):
    order: str = "o1"
    customer: Customer = Customer(id="c1")


class Reply(Event, name="test/reply"):
    order: str = "o1"
    n: float = 0
    note: str | None = None
    customer: Customer = Customer(id="c1")


def waiting(**options: Any) -> tuple[App, Any]:
    app = App("t")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[Any]:
        got = await ctx.step.wait_for_event("w", Reply, **{"timeout": "1h", **options})
        return [] if got is None else [got.data.order, got.data.n]

    return app, fn


@pytest.mark.parametrize(
    ("options", "passed_over", "matching"),
    [
        ({"where": {"order": "o1"}}, [Reply(order="o2")], Reply(n=1)),
        ({"where": {"n": 1}}, [Reply(n=2)], Reply(n=1.0)),
        ({"where": {"n": 1.0}}, [Reply(n=1.5)], Reply(n=1)),
        ({"where": {"note": None}}, [Reply(note="x")], Reply(n=1)),
        ({"where": {"customer.id": "c2"}}, [Reply()], Reply(n=1, customer=Customer(id="c2"))),
        ({"where": {"customer.vip": True, "n": 1}}, [Reply(n=1), Reply(customer=Customer(id="c", vip=True))],
         Reply(n=1, customer=Customer(id="c", vip=True))),
        ({"match": "data.order"}, [Reply(order="o2")], Reply(n=1)),
        ({"match": "data.customer.id"}, [Reply(customer=Customer(id="c9"))], Reply(n=1)),
        ({"match": "data.order", "if_": "async.data.n > 1.0"}, [Reply(n=1), Reply(order="o2", n=5)], Reply(n=2)),
        ({"where": {"order": "o1"}, "match": "data.customer.id", "if_": "async.data.n > 1.0"},
         [Reply(n=1), Reply(order="o2", n=5), Reply(n=5, customer=Customer(id="x"))], Reply(n=3)),
        ({"if_": "event.data.order == async.data.order && async.data.note != null"}, [Reply()], Reply(n=1, note="x")),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)  # fmt: skip
async def test_only_what_matches_ends_a_wait(engine_for, options, passed_over, matching):
    app, fn = waiting(**options)
    async with engine_for(app, linger_ms=0) as engine:
        handle = await app.start(fn, Go())
        await engine.idle()
        for reply in passed_over:
            await app.send(reply)
        await engine.idle()
        assert (await handle.info()).status == "WAITING"
        await app.send(matching)
        assert await handle.result(timeout=60) == [matching.order, matching.n]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"where": {"nothing": 1}}, "step 'w': event 'test/reply' has no field 'nothing'"),
        ({"where": {"order": object()}}, r"step 'w': where\['order'\]"),
        ({"if_": "event.data.order === 1"}, "step 'w': "),
        ({"timeout": "400d"}, "the longest wait is 366 days"),
    ],
    ids=["field", "value", "expression", "time-out"],
)
async def test_a_wait_that_is_written_wrongly_fails_at_once(engine_for, options, reason):
    app, fn = waiting(**options)
    async with engine_for(app):
        with pytest.raises(RunFailedError, match=reason):
            await (await app.start(fn, Go())).result(timeout=60)


async def test_the_event_that_started_the_run_never_ends_its_wait(engine_for):
    app = App("t")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> str | None:
        got = await ctx.step.wait_for_event("w", Go, timeout="100ms", since="run")
        return None if got is None else got.data.order

    async with engine_for(app, linger_ms=0):
        assert await (await app.start(fn, Go())).result(timeout=60) is None


async def test_since_a_step_sees_what_came_after_it_and_nothing_before():
    app = App("t")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[float | None]:
        seen: list[float | None] = []
        await ctx.step.sleep("first", "10s")
        await ctx.step.run("charge", str)
        await ctx.step.sleep("second", "10s")
        for since in ("run", "charge", None):
            got = await ctx.step.wait_for_event(f"since-{since}", Reply, timeout="1s", since=since)
            seen.append(None if got is None else got.data.n)
        return seen

    async with AsyncHarness(app, start=1_700_000_000_000) as harness:
        run = await harness.start(fn, Go())
        await harness.clock.advance(5)
        await app.send(Reply(n=1))
        await harness.clock.advance(10)
        await app.send(Reply(n=2))
        assert (await harness.finish(run)).output == [1, 2, None]


async def test_an_event_of_the_very_millisecond_of_a_step_is_seen_since_it():
    """Time stands still: step, event and wait have the same moment."""
    app = App("t")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> float | None:
        async def tell() -> None:
            await app.send(Reply(n=7))

        await ctx.step.run("charge", tell)
        got = await ctx.step.wait_for_event("w", Reply, timeout="1s", since="charge")
        return None if got is None else got.data.n

    async with AsyncHarness(app, start=1_700_000_000_000) as harness:
        assert (await harness.run(fn, Go())).output == 7


async def test_an_event_sent_while_the_wait_is_being_registered_is_not_lost(engine_for):
    """Whichever of the two commits first, an event sent after the wait was called is seen with since=, once."""
    app = App("t")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> float | None:
        sending = asyncio.ensure_future(app.send(Reply(n=3)))
        got = await ctx.step.wait_for_event("w", Reply, timeout="5s", since="run")
        await sending
        return None if got is None else got.data.n

    async with engine_for(app) as engine:
        handles = [await app.start(fn, Go()) for _ in range(50)]
        assert [await handle.result(timeout=60) for handle in handles] == [3] * 50
        await engine.idle()
        assert not await engine.reader.waits()


async def test_an_event_at_the_instant_of_the_time_out_resolves_the_wait_once():
    app, fn = waiting(timeout="10s")
    for ahead in (1, 0):
        async with AsyncHarness(app, start=1_700_000_000_000) as harness:
            run = await harness.start(fn, Go())
            await harness.clock.advance(9)
            harness.clock._now += 1000 - ahead
            await app.send_many([Reply(n=1), Reply(n=2)])
            finished = await harness.finish(run)
            assert finished.output == (["o1", 1] if ahead else [])
            assert len([step for step in finished.steps if step.id == "w"]) == 1


async def test_two_events_in_one_commit_end_a_wait_once_and_the_next_with_the_second(engine_for):
    app = App("t")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[float]:
        calls = [ctx.step.wait_for_event(name, Reply, timeout="1h") for name in ("a", "b")]
        both = await asyncio.gather(*calls)
        third = await ctx.step.wait_for_event("c", Reply, timeout="50ms")
        assert third is None
        return [got.data.n for got in both if got]

    async with engine_for(app, linger_ms=0) as engine:
        handle = await app.start(fn, Go())
        await engine.idle()
        await app.send_many([Reply(n=1), Reply(n=2)])
        # an event ends every wait that it matches: both had the first
        assert await handle.result(timeout=60) == [1, 1]



async def test_since_sees_an_event_whose_sender_has_a_slow_clock(engine_for):
    """The internal id of a seeded event carries the time of its sender."""
    app = App("t")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> float | None:
        async def tell() -> None:
            minute_ago = (engine.clock.now() - 60_000).to_bytes(6, "big") + bytes(9) + b"1"
            await engine.send([Outgoing("test/reply", b'{"n": 4}', internal_id=minute_ago)])

        await ctx.step.run("tell", tell)
        got = await ctx.step.wait_for_event("w", Reply, timeout="50ms", since="run")
        return None if got is None else got.data.n

    async with engine_for(app) as engine:
        assert await (await app.start(fn, Go())).result(timeout=60) == 4
