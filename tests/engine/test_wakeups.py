"""A run is told of everything that resolves while it is leased, once: what it has seen decides whether it may leave memory."""

from __future__ import annotations

import asyncio

import pytest

from holdfast import App, Context, Event
from holdfast.testing import VirtualClock

pytestmark = pytest.mark.anyio


class Go(Event, name="test/go"):
    n: int = 0


class Reply(Event, name="test/reply"):
    n: int


async def test_what_resolves_in_the_very_commit_that_leases_a_run_is_counted_once(engine_for):
    app = App("t")
    lives: list[int] = []

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[int]:
        lives.append(1)
        sleep = ctx.step.sleep("s", 1)
        waits = [ctx.step.wait_for_event(f"w{n}", Reply, where={"n": n}, timeout="1d") for n in range(2)]
        _, *got = await asyncio.gather(sleep, *waits)
        return [reply.data.n for reply in got if reply]

    clock = VirtualClock()  # on the computer's, the sleep could be over before the timer is called off
    async with engine_for(app, clock=clock, linger_ms=0) as engine:
        handle = await app.start(fn, Go())
        await engine.idle()
        engine.timers.cancel()  # the claim is to come with the event
        await clock.advance(1)
        groups = engine.store.group.groups

        async def claim() -> None:
            engine.claim()

        claiming = asyncio.create_task(claim())
        sending = asyncio.create_task(app.send(Reply(n=0)))
        await asyncio.gather(claiming, sending)
        assert engine.store.group.groups == groups + 1
        await engine.idle()
        # counted twice, the lease would not end before another life of the run, or not see a later result at all
        assert len(lives) == 2
        await app.send(Reply(n=1))
        assert await handle.result(timeout=60) == [0, 1]


async def test_a_timer_that_comes_due_while_there_is_no_room_is_served_when_there_is(engine_for):
    app, gate = App("wakeups"), asyncio.Event()

    @app.function(Go)
    async def sleeper(ctx: Context[Go]) -> str:
        await ctx.step.sleep("nap", 10)
        return "awake"

    @app.function(Reply)
    async def holder(ctx: Context[Reply]) -> None:
        await ctx.step.run("hold", gate.wait)

    clock = VirtualClock()
    async with engine_for(app, clock=clock, linger_ms=0, capacity=1) as engine:
        asleep = await app.start(sleeper, Go())
        while engine.in_flight:
            await asyncio.sleep(0.001)
        held = await app.start(holder, Reply(n=1))
        await clock.advance(11)  # the timer fires, and finds the only place taken
        gate.set()
        await held.result(timeout=60)
        assert await asleep.result(timeout=60) == "awake"
