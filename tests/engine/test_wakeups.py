"""A run is told of everything that resolves while it is leased, once: what it has seen decides whether it may leave memory."""

from __future__ import annotations

import asyncio

import pytest

from holdfast import App, Context, Event

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
        sleep = ctx.step.sleep("s", 0.05)
        waits = [ctx.step.wait_for_event(f"w{n}", Reply, where={"n": n}, timeout="1d") for n in range(2)]
        _, *got = await asyncio.gather(sleep, *waits)
        return [reply.data.n for reply in got if reply]

    async with engine_for(app, linger_ms=0) as engine:
        handle = await app.start(fn, Go())
        await engine.idle()
        engine.timers.cancel()  # the claim is to come with the event
        while engine.clock.now() < (engine.store.next_timer() or 0):
            await asyncio.sleep(0.005)
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
        assert await handle.result(timeout=5) == [0, 1]
