"""P3: many steps at once: gather, task groups, races, a thousand branches; live, on replay and in and out of memory."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from typing import Any

import pytest

from holdfast import App, Backoff, Context, Event, NonRetriableError, RunFailedError, StepError
from holdfast.testing import Harness

pytestmark = pytest.mark.anyio

SOON = Backoff.constant(0.01)
MANY = 1000


class Go(Event, name="test/go"):
    n: int = 0


class Reply(Event, name="test/reply"):
    n: int


async def test_a_thousand_parallel_steps_are_executed_once_and_replayed(engine_for, query):
    app = App("t")
    bodies: list[int] = []
    lives: list[int] = []

    async def body(n: int) -> int:
        bodies.append(n)
        return n

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> int:
        lives.append(1)
        results = await asyncio.gather(*(ctx.step.run(f"s{n}", body, n) for n in range(MANY)))
        assert results == list(range(MANY))
        await ctx.step.sleep("out of memory", 0.05)
        return sum(results)

    async with engine_for(app, linger_ms=0):
        assert await (await app.start(fn, Go())).result(timeout=60) == sum(range(MANY))
    assert sorted(bodies) == list(range(MANY))
    assert len(lives) == 2
    assert query("SELECT count(*), count(DISTINCT seq), max(seq) FROM steps WHERE kind = 0") == [(MANY, MANY, MANY)]


async def test_a_thousand_parallel_sleeps_leave_memory_and_wake(engine_for, query):
    app = App("t")
    lives: list[int] = []

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> int:
        lives.append(1)
        return len(await asyncio.gather(*(ctx.step.sleep(f"s{n}", 0.6 + n / 10_000) for n in range(MANY))))

    async with engine_for(app, linger_ms=0):
        assert await (await app.start(fn, Go())).result(timeout=60) == MANY
    assert len(lives) > 1
    assert query("SELECT count(*) FROM steps WHERE kind = 1 AND state = 0") == [(MANY,)]


@pytest.mark.parametrize("linger_ms", [0, 5000])
async def test_a_thousand_parallel_waits_are_each_given_their_event(engine_for, query, linger_ms):
    app = App("t")
    lives: list[int] = []

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[int]:
        lives.append(1)
        calls = [ctx.step.wait_for_event(f"w{n}", Reply, where={"n": n}, timeout="30d") for n in range(MANY)]
        return [got.data.n if got else -1 for got in await asyncio.gather(*calls)]

    async with engine_for(app, linger_ms=linger_ms) as engine:
        handle = await app.start(fn, Go())
        await engine.idle()
        assert engine.in_flight == 0
        assert query("SELECT count(*) FROM waits") == [(MANY,)]
        if linger_ms:
            for n in range(MANY):
                await app.send(Reply(n=n))
        else:
            for n in range(0, MANY, 100):
                await app.send_many([Reply(n=n + m) for m in range(100)])
        assert await handle.result(timeout=60) == list(range(MANY))
        # woken once, it stays while answers keep coming: each life is a replay of a thousand steps
        assert len(lives) < 50
    assert query("SELECT count(*) FROM waits") == [(0,)]


async def test_a_burst_of_events_over_the_run_leaves_memory(engine_for):
    app = App("t")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> None:
        for n in range(3):
            await ctx.step.wait_for_event(f"w{n}", Reply, where={"n": n}, timeout="30d")

    async with engine_for(app, linger_ms=100) as engine:
        await app.start(fn, Go())
        await engine.idle()
        await app.send_many([Reply(n=0), Reply(n=1)])
        await asyncio.wait_for(engine.idle(), 60)
        assert engine.in_flight == 0


async def test_the_work_of_many_branches_grows_with_their_number(engine_for):
    app = App("t")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> None:
        calls = [ctx.step.wait_for_event(f"w{n}", Reply, where={"n": n}, timeout=4) for n in range(ctx.event.data.n)]
        await asyncio.gather(*calls)
        await asyncio.gather(*(ctx.step.run(f"s{n}", str, n) for n in range(ctx.event.data.n)))

    async def calls_for(count: int) -> int:
        calls = 0

        def counted(frame: Any, kind: str, _arg: Any) -> None:
            nonlocal calls
            calls += kind == "call" and "holdfast/engine" in frame.f_code.co_filename

        sys.setprofile(counted)
        try:
            handle = await app.start(fn, Go(n=count))
            for n in range(count):
                await app.send(Reply(n=n))
            await handle.result(timeout=60)
        finally:
            sys.setprofile(None)
        return calls

    async with engine_for(app, linger_ms=5000):
        await calls_for(20)
        few, many = await calls_for(50), await calls_for(200)
    assert many < 5 * few, f"{few} calls for 50 branches, {many} for 200"


async def test_a_failing_branch_loses_nothing_of_the_others(engine_for, query):
    app = App("t")
    bodies: list[str] = []

    async def body(name: str) -> str:
        bodies.append(name)
        if name == "bad" and bodies.count("bad") == 1:
            raise LookupError("once")
        return name

    @app.function(Go, retries=1, backoff=SOON)
    async def fn(ctx: Context[Go]) -> list[str]:
        # the branch fails for good at its first attempt, and with it the attempt of the function
        calls = [ctx.step.options(retries=0).run("bad", body, "bad")]
        calls += [ctx.step.run(name, body, name) for name in ("a", "b", "c")]
        try:
            return list(await asyncio.gather(*calls))
        except StepError as error:
            assert error.matches(LookupError)
            raise RuntimeError("the function's own attempt") from error

    async with engine_for(app):
        with pytest.raises(RunFailedError, match="the function's own attempt"):
            await (await app.start(fn, Go())).result(timeout=60)
    # a step that has failed for good is on record: the retry sees the same failure and the others' results
    assert sorted(bodies) == ["a", "b", "bad", "c"]
    assert query("SELECT key, state FROM steps WHERE key <> '' ORDER BY key") == [("a", 0), ("b", 0), ("bad", 1), ("c", 0)]
    assert query("SELECT attempt FROM runs") == [(1,)]


async def test_a_branch_that_fails_outside_its_step_is_retried_with_what_the_others_recorded(engine_for):
    app = App("t")
    bodies: list[str] = []
    attempts: list[int] = []

    async def body(name: str) -> str:
        bodies.append(name)
        return name

    @app.function(Go, retries=2, backoff=SOON)
    async def fn(ctx: Context[Go]) -> list[str]:
        attempts.append(ctx.attempt)

        async def branch(name: str) -> str:
            first = await ctx.step.run(f"{name}-1", body, f"{name}1")
            if name == "b" and ctx.attempt == 0:
                raise OSError("between two steps")
            return first + await ctx.step.run(f"{name}-2", body, f"{name}2")

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(branch(name)) for name in "abc"]
        return [task.result() for task in tasks]

    async with engine_for(app):
        assert await (await app.start(fn, Go())).result(timeout=60) == ["a1a2", "b1b2", "c1c2"]
    assert attempts == [0, 1]
    assert sorted(bodies) == ["a1", "a2", "b1", "b2", "c1", "c2"]


async def test_a_race_has_the_same_winner_after_leaving_memory(engine_for):
    app = App("t")
    winners: list[object] = []

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[str]:
        async def named(name: str) -> str:
            return name

        for turn in range(3):
            won = await ctx.step.race(
                f"race-{turn}",
                ctx.step.sleep(f"slow-{turn}", "1h"),
                ctx.step.wait_for_event(f"wait-{turn}", Reply, timeout="1h"),
                ctx.step.run(f"run-{turn}", named, f"{turn}"),
            )
            winners.append(won)
            await ctx.step.sleep(f"nap-{turn}", 0.02)
        return [str(winner) for winner in winners[-3:]]

    async with engine_for(app, linger_ms=0):
        assert await (await app.start(fn, Go())).result(timeout=60) == ["0", "1", "2"]
    assert set(map(str, winners)) == {"0", "1", "2"}


async def test_the_id_of_a_step_that_failed_can_be_used_again(engine_for, query):
    app = App("t")

    def body(n: int) -> int:
        if n < 2:
            raise LookupError(str(n))
        return n

    @app.function(Go, retries=0)
    async def fn(ctx: Context[Go]) -> int:
        for n in range(5):
            try:
                return await ctx.step.run("try", body, n)
            except StepError:
                await ctx.step.sleep(f"pause-{n}", 0.01)
        return -1

    async with engine_for(app, linger_ms=0):
        assert await (await app.start(fn, Go())).result(timeout=60) == 2
    assert query("SELECT key, state FROM steps WHERE key LIKE 'try%' ORDER BY seq") == [("try", 1), ("try:1", 1), ("try:2", 0)]


async def test_a_gather_that_collects_exceptions_leaves_memory_like_any_other():
    app = App("t")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[object]:
        answers = await asyncio.gather(
            ctx.step.sleep("a", timedelta(days=30)),
            ctx.step.run("b", fails),
            ctx.step.run("c", lambda: 3),
            return_exceptions=True,
        )
        return [type(answer).__name__ if isinstance(answer, Exception) else answer for answer in answers]

    def fails() -> None:
        raise NonRetriableError("no")

    async with Harness(app) as h:
        assert (await h.run(fn, Go())).output == [None, "StepError", 3]
