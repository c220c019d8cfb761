"""P3: steps in process: recorded once, retried, parallel, and the same live and on replay."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import dataclass
from datetime import timedelta

import pytest

from holdfast import (
    App,
    Backoff,
    Context,
    Event,
    NonRetriableError,
    RetryAfterError,
    RunFailedError,
    StepError,
    SyncContext,
)

pytestmark = pytest.mark.anyio

SOON = Backoff.constant(0.01)


class Go(Event, name="test/go"):
    n: int = 0


class Reply(Event, name="test/reply"):
    n: int


@dataclass
class Receipt:
    total: int


class CardDeclined(Exception):
    pass


async def test_a_step_runs_once_and_its_result_is_what_was_recorded(engine_for, query):
    app = App("t")
    calls = []

    def charge(n: int) -> Receipt:
        calls.append(n)
        return Receipt(n * 2)

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> int:
        first = await ctx.step.run("charge", charge, ctx.event.data.n)
        assert type(first) is Receipt
        await ctx.step.sleep("nap", 0.4)
        return first.total

    async with engine_for(app, linger_ms=0):
        handle = await app.start(fn, Go(n=21))
        assert await handle.result(timeout=60) == 42
    assert calls == [21]
    assert query("SELECT key, state FROM steps ORDER BY seq") == [("charge", 0), ("nap", 0), ("", 0)]
    assert query("SELECT count(*) FROM queue") == [(0,)]


async def test_a_failing_step_is_retried_with_its_attempts_on_record(engine_for, query):
    app = App("t")
    tries = []

    async def flaky() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise OSError(f"try {len(tries)}")
        return "ok"

    @app.function(Go, retries=3, backoff=SOON)
    async def fn(ctx: Context[Go]) -> str:
        return await ctx.step.run("flaky", flaky)

    async with engine_for(app):
        assert await (await app.start(fn, Go())).result(timeout=60) == "ok"
    assert len(tries) == 3
    attempts = [(attempt, json.loads(error)["message"]) for attempt, error in query("SELECT attempt, error FROM attempts")]
    assert attempts == [(0, "try 1"), (1, "try 2")]
    assert query("SELECT attempt, state FROM steps WHERE key = 'flaky'") == [(2, 0)]


async def test_a_step_that_fails_for_good_raises_a_step_error_that_can_be_handled(engine_for, query):
    app = App("t")
    seen = []

    def charge() -> None:
        raise CardDeclined("no money")

    @app.function(Go, retries=1, backoff=SOON)
    async def fn(ctx: Context[Go]) -> str:
        try:
            await ctx.step.run("charge", charge)
        except StepError as error:
            seen.append((error.matches(CardDeclined), error.matches(OSError), error.message))
            await ctx.step.sleep("later", 0.4)
            return "handled"
        return "paid"

    async with engine_for(app, linger_ms=0):
        assert await (await app.start(fn, Go())).result(timeout=60) == "handled"
    # once live, once on replay: the same error
    assert seen == [(True, False, "no money")] * 2
    assert query("SELECT count(*) FROM attempts") == [(2,)]


async def test_non_retriable_fails_at_once_and_becomes_a_dead_letter(engine_for, query):
    app = App("t")
    tries = []

    async def body() -> None:
        tries.append(1)
        raise NonRetriableError("never")

    @app.function(Go, retries=5, backoff=SOON)
    async def fn(ctx: Context[Go]) -> None:
        await ctx.step.run("body", body)

    async with engine_for(app):
        with pytest.raises(RunFailedError, match="never"):
            await (await app.start(fn, Go())).result(timeout=60)
    assert len(tries) == 1
    assert query("SELECT state, error FROM dead_letters") == [(0, "NonRetriableError: never")]


async def test_a_stack_begins_in_the_users_code(engine_for, query):
    app = App("t")

    def body() -> None:
        raise CardDeclined("no money")

    @app.function(Go, retries=0)
    async def fn(ctx: Context[Go]) -> None:
        await ctx.step.run("body", body)

    async with engine_for(app):
        with pytest.raises(RunFailedError) as failed:
            await (await app.start(fn, Go())).result(timeout=60)
    lines = failed.value.stack.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert __file__ in lines[1]
    assert lines[1].endswith("in body")
    assert "holdfast/engine" not in failed.value.stack


async def test_retry_after_is_honoured_and_clipped_to_a_second(engine_for, query):
    app = App("t")

    async def body() -> None:
        raise RetryAfterError("busy", timedelta(milliseconds=5))

    @app.function(Go, retries=1)
    async def fn(ctx: Context[Go]) -> None:
        await ctx.step.run("body", body)

    async with engine_for(app):
        with pytest.raises(RunFailedError):
            await (await app.start(fn, Go())).result(timeout=60)
    ((ended, retry_at),) = query("SELECT ended_at, retry_at FROM attempts WHERE attempt = 0")
    assert retry_at - ended == 1000


async def test_code_outside_steps_is_retried_and_finished_steps_are_not_redone(engine_for):
    app = App("t")
    bodies, outer = [], []

    async def body() -> int:
        bodies.append(1)
        return 1

    @app.function(Go, retries=2, backoff=SOON)
    async def fn(ctx: Context[Go]) -> int:
        value = await ctx.step.run("body", body)
        outer.append(ctx.attempt)
        if len(outer) < 3:
            raise ValueError("outside")
        return value

    async with engine_for(app):
        assert await (await app.start(fn, Go())).result(timeout=60) == 1
    assert (len(bodies), outer) == (1, [0, 1, 2])


async def test_parallel_steps_by_gather_and_task_group(engine_for):
    app = App("t")
    gate = asyncio.Event()
    started = []

    async def part(n: int) -> int:
        started.append(n)
        if len(started) == 3:
            gate.set()
        await gate.wait()  # passes only when all three run at the same time
        return n

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[int]:
        out = list(await asyncio.gather(*(ctx.step.run(f"p{n}", part, n) for n in range(3))))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ctx.step.run(f"q{n}", part, n)) for n in range(3)]
        await ctx.step.sleep("nap", 0.4)
        return out + [task.result() for task in tasks]

    async with engine_for(app, linger_ms=0):
        assert await (await app.start(fn, Go())).result(timeout=60) == [0, 1, 2, 0, 1, 2]
    assert len(started) == 6


async def test_replay_releases_results_in_the_order_of_their_recording(engine_for):
    app = App("t")
    orders: list[list[str]] = []

    async def slow(name: str, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return name

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> str:
        order: list[str] = []
        orders.append(order)

        async def branch(name: str, seconds: float) -> None:
            order.append(await ctx.step.run(name, slow, name, seconds))
            await ctx.step.run(f"{name}-2", slow, name, 0.0)
            order.append(name + "2")

        await asyncio.gather(branch("a", 0.06), branch("b", 0.03), branch("c", 0.0))
        await ctx.step.sleep("nap", 0.4)
        return ",".join(order)

    async with engine_for(app, linger_ms=0):
        result = await (await app.start(fn, Go())).result(timeout=60)
    assert len(orders) == 2
    assert orders[0] == orders[1] == result.split(",")
    assert sorted(orders[0]) == ["a", "a2", "b", "b2", "c", "c2"]


async def test_repeated_ids_get_an_index_and_concurrent_ones_are_refused(engine_for, query):
    app = App("t")

    async def value(n: int) -> int:
        return n

    @app.function(Go)
    async def loops(ctx: Context[Go]) -> list[int]:
        return [await ctx.step.run("again", value, n) for n in range(3)]

    @app.function(Reply)
    async def clashes(ctx: Context[Reply]) -> None:
        await asyncio.gather(ctx.step.run("same", value, 1), ctx.step.run("same", value, 2))

    async with engine_for(app):
        assert await (await app.start(loops, Go())).result(timeout=60) == [0, 1, 2]
        with pytest.raises(RunFailedError, match="'same' is in flight already"):
            await (await app.start(clashes, Reply(n=1))).result(timeout=60)
    assert [row[0] for row in query("SELECT key FROM steps WHERE key LIKE 'again%' ORDER BY seq")] == [
        "again",
        "again:1",
        "again:2",
    ]


async def test_a_step_inside_a_step_body_is_refused_with_both_names(engine_for):
    app = App("t")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> None:
        async def outer() -> None:
            await ctx.step.run("inner", outer)

        await ctx.step.run("outer", outer)

    async with engine_for(app):
        with pytest.raises(RunFailedError, match="'inner' was called inside the body of step 'outer'"):
            await (await app.start(fn, Go())).result(timeout=60)


async def test_a_sync_function_runs_its_steps_in_its_own_thread(engine_for):
    app = App("t")
    threads = []
    tries = []

    def body(n: int) -> int:
        threads.append(threading.get_ident())
        return n + 1

    def flaky() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("once")
        return "ok"

    @app.function(Go, retries=1, backoff=SOON)
    def fn(ctx: SyncContext[Go]) -> list[object]:
        me = threading.get_ident()
        value = ctx.step.run("body", body, 1)
        inside = threads == [me]
        said = ctx.step.run("flaky", flaky)
        moment = ctx.now()
        ids = ctx.step.send("tell", Reply(n=3))
        return [value, inside, said, moment.year >= 2024, len(ids)]

    async with engine_for(app):
        assert await (await app.start(fn, Go())).result(timeout=60) == [2, True, "ok", True, 1]


async def test_a_sync_function_leaves_memory_while_it_sleeps(engine_for):
    app = App("t")
    starts = []

    def body() -> int:
        return 7

    @app.function(Go)
    def fn(ctx: SyncContext[Go]) -> int:
        starts.append(1)
        value = ctx.step.run("body", body)
        ctx.step.sleep("nap", 0.4)
        return value

    async with engine_for(app, linger_ms=0):
        assert await (await app.start(fn, Go())).result(timeout=60) == 7
    assert len(starts) == 2


async def test_step_timeout_cancels_the_body_and_counts_as_a_failed_attempt(engine_for):
    app = App("t")
    cleaned = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append(1)

    @app.function(Go, retries=1, backoff=SOON)
    async def fn(ctx: Context[Go]) -> str:
        try:
            await ctx.step.options(timeout=0.02).run("slow", slow)
        except StepError as error:
            return error.name
        return "?"

    async with engine_for(app):
        assert await (await app.start(fn, Go())).result(timeout=60) == "StepTimeoutError"
    assert len(cleaned) == 2


async def test_race_records_its_winner(engine_for):
    app = App("t")
    results = []

    async def after(name: str, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return name

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> str:
        winner = await ctx.step.race("first", ctx.step.run("slow", after, "slow", 0.05), ctx.step.run("fast", after, "fast", 0))
        results.append(winner)
        await ctx.step.sleep("nap", 0.4)
        return winner

    async with engine_for(app, linger_ms=0):
        assert await (await app.start(fn, Go())).result(timeout=60) == "fast"
    assert results == ["fast", "fast"]


async def test_race_between_an_event_and_a_timer_can_leave_memory(engine_for):
    app = App("t")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> str:
        event = await ctx.step.race(
            "either",
            ctx.step.wait_for_event("reply", Reply, where={"n": 5}, timeout=timedelta(days=1)),
            ctx.step.wait_for_event("other", "test/other", timeout=timedelta(days=1)),
        )
        return event.name if event else "none"

    async with engine_for(app, linger_ms=0) as engine:
        handle = await app.start(fn, Go())
        await engine.idle()
        assert engine.in_flight == 0
        await app.send(Reply(n=5))
        assert await handle.result(timeout=60) == "test/reply"


async def test_results_that_cannot_be_stored_fail_the_step_and_name_the_path(engine_for):
    app = App("t")

    def body() -> object:
        return {"deep": [1, object()]}

    @app.function(Go, retries=3)
    async def fn(ctx: Context[Go]) -> None:
        await ctx.step.run("make", body)

    async with engine_for(app):
        with pytest.raises(RunFailedError, match=r"step 'make': a value of type builtins.object at \$.deep\[1\]"):
            await (await app.start(fn, Go())).result(timeout=60)


async def test_now_is_recorded(engine_for):
    app = App("t")
    moments = []

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> None:
        moments.append(await ctx.now())
        await ctx.step.sleep("nap", 0.4)

    async with engine_for(app, linger_ms=0):
        await (await app.start(fn, Go())).result(timeout=60)
    assert len(moments) == 2
    assert moments[0] == moments[1]


async def test_steps_in_flight_when_the_function_returns_are_awaited_and_recorded(engine_for, query):
    app = App("t")

    async def slow() -> int:
        await asyncio.sleep(0.03)
        return 1

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> str:
        asyncio.ensure_future(ctx.step.run("left", slow))
        asyncio.ensure_future(ctx.step.sleep("nap", timedelta(days=3)))
        await asyncio.sleep(0.01)
        return "done"

    async with engine_for(app):
        assert await (await app.start(fn, Go())).result(timeout=60) == "done"
    assert query("SELECT state FROM steps WHERE key = 'left'") == [(0,)]
    assert query("SELECT count(*) FROM queue") == [(0,)]
