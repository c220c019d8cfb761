"""P3: signals: one waiter at a time, typed data, and the same outcome whatever comes in between."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from holdfast import (
    App,
    Context,
    Event,
    EventInvalidError,
    RunFailedError,
    SignalConflictError,
    StepUsageError,
    SyncContext,
)
from holdfast.base.ids import ulid_bytes
from holdfast.core.signals import CONFLICT
from holdfast.testing import AsyncHarness

pytestmark = pytest.mark.anyio


class Go(Event, name="test/go"):
    n: int = 0


class Signal(Event, name="signal"):
    """An event whose name is near the prefix of signals' lookups."""


@dataclass
class Approval:
    by: str
    amount: int


def approving(timeout: str = "1h", **options: object) -> tuple[App, object]:
    app = App("t")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> str:
        got = await ctx.step.wait_for_signal("w", "approve", type=Approval, timeout=timeout, **options)  # type: ignore[call-overload]
        return "timed out" if got is None else f"{type(got).__name__} {got.by} {got.amount}"

    return app, fn


@pytest.mark.parametrize("linger_ms", [0, 5000])
async def test_the_data_comes_typed_in_and_out_of_memory(engine_for, query, linger_ms):
    app, fn = approving("4s")
    async with engine_for(app, linger_ms=linger_ms) as engine:
        assert await app.send_signal("approve", Approval("me", 1)) is None
        handle = await app.start(fn, Go())
        while not query("SELECT 1 FROM waits"):
            await asyncio.sleep(0.01)
        if not linger_ms:
            await engine.idle()
        assert await app.send_signal("reject", {}) is None
        assert await app.send_signal("approve", Approval("me", 5)) == handle.id
        assert await app.send_signal("approve", Approval("me", 6)) is None
        assert await handle.result(timeout=60) == "Approval me 5"
    assert query("SELECT CAST(data AS TEXT) FROM steps WHERE key = 'w'") == [
        ('{"signal":"approve","data":{"by":"me","amount":5}}',)
    ]
    assert query("SELECT count(*) FROM waits") == [(0,)]


async def test_a_plain_function_waits_and_gives_signals(engine_for):
    app = App("t")

    @app.function(Go, id="waiter")
    def waiter(ctx: SyncContext[Go]) -> str | None:
        return ctx.step.wait_for_signal("w", "name", type=str, timeout=60)

    @app.function(Go, id="giver")
    def giver(ctx: SyncContext[Go]) -> list[str | None]:
        return [ctx.step.send_signal("first", "name", "hello"), ctx.step.send_signal("second", "name", "again")]

    async with engine_for(app, linger_ms=0) as engine:
        waiting = await app.start(waiter, Go())
        await engine.idle()
        assert await (await app.start(giver, Go())).result(timeout=60) == [waiting.id, None]
        assert await waiting.result(timeout=60) == "hello"


async def test_without_a_signal_the_time_runs_out(engine_for, query):
    app, fn = approving("30ms")
    async with engine_for(app, linger_ms=0):
        assert await (await app.start(fn, Go())).result(timeout=60) == "timed out"
    assert query("SELECT count(*) FROM waits") == [(0,)]


async def test_a_second_waiter_fails_at_once_in_the_protocols_words(engine_for, query):
    app, fn = approving()
    async with engine_for(app, linger_ms=0) as engine:
        first = await app.start(fn, Go())
        await engine.idle()
        second = await app.start(fn, Go())
        with pytest.raises(RunFailedError) as failed:
            await second.result(timeout=60)
        assert failed.value.name == "SignalConflictError"
        assert failed.value.message == CONFLICT == "Signal conflict; signal wait already exists for another run"
        assert await app.send_signal("approve", Approval("me", 1)) == first.id
        assert await first.result(timeout=60) == "Approval me 1"
    assert query("SELECT attempt FROM runs WHERE id = ?", ulid_bytes(second.id)) == [(0,)]
    ((note,),) = query("SELECT text FROM notes WHERE run_id = ?", ulid_bytes(second.id))
    assert note == f"signal 'approve', for which step 'w' was to wait, is waited for by run {first.id}"


async def test_a_conflict_that_is_handled_is_the_same_on_replay(engine_for):
    app, fn = approving()
    seen: list[str] = []

    @app.function(Go, id="second")
    async def second(ctx: Context[Go]) -> str:
        try:
            await ctx.step.wait_for_signal("w", "approve", timeout="1h")
        except SignalConflictError as error:
            seen.append(error.data["run_id"])
        await ctx.step.sleep("nap", 0.1)
        return "went on"

    async with engine_for(app, linger_ms=0) as engine:
        first = await app.start(fn, Go())
        await engine.idle()
        handle = await app.start(second, Go())
        while not seen:
            await asyncio.sleep(0.01)
        await app.send_signal("approve", Approval("me", 1))
        assert await handle.result(timeout=60) == "went on"
    assert seen == [first.id, first.id]


@pytest.mark.parametrize("linger_ms", [0, 5000])
async def test_replacing_ends_the_earlier_wait_and_says_so(engine_for, query, linger_ms):
    app, fn = approving("4s", on_conflict="replace")
    async with engine_for(app, linger_ms=linger_ms) as engine:
        first = await app.start(fn, Go())
        while len(query("SELECT 1 FROM waits")) < 1:
            await asyncio.sleep(0.01)
        second = await app.start(fn, Go())
        assert await first.result(timeout=60) == "timed out"
        if not linger_ms:
            await engine.idle()
        assert await app.send_signal("approve", Approval("you", 2)) == second.id
        assert await second.result(timeout=60) == "Approval you 2"
    assert query("SELECT text FROM notes WHERE run_id = ?", ulid_bytes(first.id)) == [
        (f"the wait 'w' ended without its signal: run {second.id} waits for it instead",)
    ]


async def test_a_cancelled_waiter_makes_room(engine_for):
    app, fn = approving()
    async with engine_for(app, linger_ms=0) as engine:
        first = await app.start(fn, Go())
        await engine.idle()
        assert await first.cancel()
        assert await app.send_signal("approve", Approval("me", 1)) is None
        second = await app.start(fn, Go())
        await engine.idle()
        assert await app.send_signal("approve", Approval("me", 2)) == second.id
        assert await second.result(timeout=60) == "Approval me 2"


async def test_a_wait_survives_crashes_before_and_after_its_signal():
    app, fn = approving()
    async with AsyncHarness(app, start=0) as harness:
        run = await harness.start(fn, Go())
        await harness.restart()
        giving = asyncio.create_task(app.send_signal("approve", Approval("me", 3)))
        assert await giving == run.id
        await harness.restart()
        assert (await harness.finish(run)).output == "Approval me 3"


async def test_signal_and_time_out_at_the_same_instant_resolve_once():
    app = App("t")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> str:
        got = await ctx.step.wait_for_signal("w", "s", timeout="10s")
        after = await ctx.step.run("after", str, got)
        return after

    for ahead in (1, 0):
        async with AsyncHarness(app, start=0) as harness:
            run = await harness.start(fn, Go())
            await harness.clock.advance(9)
            harness.clock._now += 1000 - ahead
            # the run's own timer and the signal are now decided in one round
            given = await app.send_signal("s", "now")
            finished = await harness.finish(run)
            assert given == (run.id if ahead else None)
            assert finished.output == ("now" if ahead else "None")
            assert await app.send_signal("s", "later") is None


async def test_parallel_waits_of_one_run_are_given_theirs(engine_for):
    app = App("t")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[int]:
        return await asyncio.gather(*(ctx.step.wait_for_signal(f"w{n}", f"s{n}", timeout="1h") for n in range(20)))

    async with engine_for(app, linger_ms=0) as engine:
        handle = await app.start(fn, Go())
        await engine.idle()
        assert set(await asyncio.gather(*(app.send_signal(f"s{n}", n) for n in range(20)))) == {handle.id}
        assert await handle.result(timeout=60) == list(range(20))


async def test_no_event_is_taken_for_a_signal(engine_for):
    app, fn = approving()
    async with engine_for(app, linger_ms=0) as engine:
        await app.start(fn, Go())
        await engine.idle()
        await app.send(Signal())
        await app.send({"name": "approve", "data": {"by": "x", "amount": 1}})
        await app.send({"name": "\0signal\0approve", "data": {}})
        await engine.idle()
        assert (await engine.reader.waits())[0].lookup == "\0signal\0approve"


async def test_data_that_does_not_fit_fails_the_run_with_the_reason(engine_for):
    app, fn = approving()
    async with engine_for(app, linger_ms=0) as engine:
        handle = await app.start(fn, Go())
        await engine.idle()
        await app.send_signal("approve", {"by": "me"})
        with pytest.raises(RunFailedError, match="the data of signal 'approve' can't be read as Approval: .*amount"):
            await handle.result(timeout=60)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [("", 1, "non-empty text"), ("x" * 256, 1, "255 characters"), ("s", object(), "data of signal 's'"), ("s", "x" * 3_200_000, "bytes")],
    ids=["empty", "long", "object", "large"],
)  # fmt: skip
async def test_what_is_no_signal_is_refused(engine_for, name, data, reason):
    app, _ = approving()
    async with engine_for(app):
        with pytest.raises(EventInvalidError, match=reason):
            await app.send_signal(name, data)


async def test_a_wait_that_is_written_wrongly_is_refused(engine_for):
    app = App("t")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[str]:
        found = []
        for signal, options in (("", {}), ("s", {"on_conflict": "wait"}), ("s", {"timeout": "400d"})):
            try:
                await ctx.step.wait_for_signal("w", signal, **{"timeout": 1, **options})  # type: ignore[call-overload]
            except StepUsageError as error:
                found.append(str(error))
        return found

    async with engine_for(app):
        name, conflict, timeout = await (await app.start(fn, Go())).result(timeout=60)
    assert "non-empty" in name
    assert "'fail' or 'replace', not 'wait'" in conflict
    assert "366 days" in timeout
