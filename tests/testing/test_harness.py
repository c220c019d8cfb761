"""The harness: real engine and store, virtual time."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from holdfast import (
    App,
    Backoff,
    ConfigurationError,
    Context,
    Cron,
    CronTick,
    Event,
    EventInvalidError,
    NonRetriableError,
    StepError,
    SyncContext,
)
from holdfast.testing import Harness, NotQuietError

pytestmark = pytest.mark.anyio

START = datetime(2030, 1, 1, tzinfo=UTC)


class Go(Event, name="kit/go"):
    n: int = 0


class Reply(Event, name="kit/reply"):
    n: int


@dataclass
class Receipt:
    total: int


async def test_a_function_that_sleeps_thirty_days_runs_in_milliseconds():
    app = App("t")
    moments = []

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> str:
        moments.append(await ctx.now())
        await ctx.step.sleep("month", timedelta(days=30))
        return (await ctx.now()).isoformat()

    async with Harness(app, start=START) as h:
        begin = time.perf_counter()
        run = await h.run(fn, Go())
        took = time.perf_counter() - begin
    assert run.output == "2030-01-31T00:00:00+00:00"
    assert h.clock.time == START + timedelta(days=30)
    assert moments == [START, START]  # it left memory, and came back
    assert took < 0.5


async def test_a_run_shows_everything_about_itself():
    app = App("t")
    tries = []

    def charge(n: int) -> Receipt:
        tries.append(n)
        if len(tries) == 1:
            raise ConnectionRefusedError("bank is closed")
        return Receipt(n * 2)

    @app.function(Go, retries=1, backoff=Backoff.constant(60))
    async def fn(ctx: Context[Go]) -> Receipt:
        ctx.logger.info("charging %d", ctx.event.data.n)
        receipt = await ctx.step.run("charge", charge, ctx.event.data.n)
        await ctx.step.send("tell", [Reply(n=1), Reply(n=2)])
        return receipt

    async with Harness(app, start=START) as h:
        run = await h.run(fn, Go(n=21), id="order-1")
        assert run.status == "COMPLETED"
        assert run.ended
        assert run.function == "t-fn"
        assert run.output == Receipt(42)
        assert (run.event.id, run.event.name, run.event.data) == ("order-1", "kit/go", {"n": 21})
        assert [step.id for step in run.steps] == ["charge", "tell"]
        step = run.step("charge")
        assert (step.kind, step.state, step.result, step.error) == ("run", "done", {"total": 42}, None)
        (failed,) = step.failed_attempts
        assert (failed.error.name, failed.error.message) == ("ConnectionRefusedError", "bank is closed")
        assert failed.retry_at == START + timedelta(seconds=60) == run.ended_at
        assert [(log.level, log.message) for log in run.logs] == [("info", "charging 21")]
        assert [event.data for event in run.sent] == [{"n": 1}, {"n": 2}]
        assert [event.name for event in await h.events()] == ["kit/go", "kit/reply", "kit/reply"]
        assert [event.data for event in await h.events("kit/reply")] == [{"n": 1}, {"n": 2}]
        assert [one.id for one in await h.runs(fn)] == [run.id]
        assert await h.runs(status="FAILED") == []
        with pytest.raises(AssertionError, match="has no step 'refund'; it has: 'charge', 'tell'"):
            run.step("refund")


async def test_a_failed_run_shows_its_error_and_can_be_redriven():
    app = App("t")
    broken = [True]

    def charge() -> str:
        if broken:
            raise NonRetriableError("no money")
        return "paid"

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> str:
        return await ctx.step.run("charge", charge)

    async with Harness(app) as h:
        run = await h.run(fn, {"n": 1})
        assert (run.status, run.output, run.error.message) == ("FAILED", None, "no money")
        assert run.step("charge").state == "failed"
        broken.clear()
        again = await h.finish(await h.redrive(run))
        assert (again.status, again.output, again.parent_id) == ("COMPLETED", "paid", run.id)


async def test_backoff_takes_no_time_and_keeps_its_delays():
    app = App("t")
    moments = []

    @app.function(Go, retries=5, backoff=Backoff.exponential(base=1, jitter="none"))
    async def fn(ctx: Context[Go]) -> None:
        def body() -> None:
            moments.append(h.clock.time)
            raise OSError("down")

        await ctx.step.run("call", body)

    begin = time.perf_counter()
    async with Harness(app, start=START) as h:
        run = await h.run(fn, Go())
    assert run.status == "FAILED"
    assert [(moment - START).total_seconds() for moment in moments] == [0, 1, 3, 7, 15, 31]
    assert time.perf_counter() - begin < 2


async def test_retries_of_code_outside_steps_take_no_time():
    app = App("t")
    tries = []

    @app.function(Go, retries=2, backoff=Backoff.constant(timedelta(hours=1)))
    async def fn(ctx: Context[Go]) -> int:
        tries.append(ctx.attempt)
        if len(tries) < 3:
            raise OSError("down")
        return ctx.attempt

    async with Harness(app, start=START) as h:
        run = await h.run(fn, Go())
    assert (run.output, len(run.failed_attempts)) == (2, 2)
    assert h.clock.time == START + timedelta(hours=2)


async def test_a_wait_times_out_at_its_moment_or_gets_its_event_before():
    app = App("t")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> str:
        reply = await ctx.step.wait_for_event("reply", Reply, where={"n": ctx.event.data.n}, timeout=timedelta(days=7))
        return "too late" if reply is None else f"got {reply.data.n} on day {(await ctx.now() - START).days}"

    async with Harness(app, start=START) as h:
        waiting = await h.start(fn, Go(n=1))
        assert (waiting.status, waiting.step("reply").state) == ("WAITING", "pending")
        assert waiting.step("reply").due == START + timedelta(days=7)
        assert h.clock.time == START
        await h.advance("6d")
        await h.send(Reply(n=2))
        assert not (await h.read(waiting)).ended
        await h.send(Reply(n=1))
        assert (await h.read(waiting)).output == "got 1 on day 6"

        late = await h.start(fn, Go(n=3))
        await h.advance(timedelta(days=7) - timedelta(milliseconds=1))
        assert not (await h.read(late)).ended
        await h.advance(timedelta(milliseconds=1))
        assert (await h.read(late)).output == "too late"


async def test_settle_stops_at_the_last_thing_that_happened():
    app = App("t")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> None:
        await ctx.step.sleep("day", "1d")
        await ctx.step.wait_for_event("reply", Reply, timeout="9d")

    async with Harness(app, start=START) as h:
        await h.start(fn, Go())
        cancelled = await h.start(fn, Go())
        await h.advance("2d")
        await h.send(Reply(n=1))
        await h.cancel(cancelled)
        await h.settle()
        assert h.clock.time == START + timedelta(days=2)


async def test_a_step_body_that_talks_to_a_server_is_waited_for():
    app = App("t")
    order = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        await asyncio.sleep(0.15)
        writer.write(b"pong\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]

        async def call() -> str:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"ping\n")
            line = await reader.readline()
            writer.close()
            await writer.wait_closed()
            order.append(("answered", h.clock.time - START))
            return line.decode().strip()

        @app.function(Go)
        async def fn(ctx: Context[Go]) -> str:
            async def nap() -> None:
                await ctx.step.sleep("hour", timedelta(hours=1))
                order.append(("slept", await ctx.now() - START))

            said, _ = await asyncio.gather(ctx.step.run("call", call), nap())
            return said

        async with Harness(app, start=START) as h:
            run = await h.run(fn, Go())
    assert run.output == "pong"
    assert order == [("answered", timedelta(0)), ("slept", timedelta(hours=1))]


async def test_a_body_in_a_thread_is_waited_for():
    app = App("t")
    order = []

    def slow() -> None:
        time.sleep(0.1)
        order.append(("worked", h.clock.time - START))

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> None:
        await asyncio.gather(ctx.step.run("slow", slow), ctx.step.sleep("hour", "1h"))
        order.append(("done", h.clock.time - START))

    @app.function(Reply)
    def plain(ctx: SyncContext[Reply]) -> str:
        time.sleep(0.05)
        ctx.step.run("slow", slow)
        ctx.step.sleep("hour", "1h")
        return "done"

    async with Harness(app, start=START) as h:
        await h.run(fn, Go())
        assert order == [("worked", timedelta(0)), ("done", timedelta(hours=1))]
        run = await h.run(plain, Reply(n=1))
        assert run.output == "done"
        assert order[2] == ("worked", timedelta(hours=1))
        assert h.clock.time == START + timedelta(hours=2)


async def test_code_outside_steps_that_awaits_real_time_is_waited_for():
    app = App("t")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> timedelta:
        await asyncio.gather(asyncio.sleep(0.1), ctx.step.sleep("hour", "1h"))
        return h.clock.time - START

    begin = time.perf_counter()
    async with Harness(app, start=START) as h:
        await h.start(fn, Go())
        assert time.perf_counter() - begin > 0.1
        assert h.clock.time == START
        await h.settle()
        assert h.clock.time == START + timedelta(hours=1)


async def test_with_linger_a_run_waits_in_memory_and_time_still_passes():
    app = App("t")
    starts = []

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> None:
        starts.append(1)
        await ctx.step.sleep("short", 3)
        await ctx.step.sleep("long", "3d")

    async with Harness(app, start=START, linger=5) as h:
        run = await h.start(fn, Go())
        assert h.engine.in_flight == 1
        await h.advance(3)
        assert (await h.read(run)).step("short").state == "done"
        assert len(starts) == 1
        run = await h.finish(run)
    assert run.ended_at == START + timedelta(seconds=3, days=3)
    assert len(starts) == 2


async def test_cron_fires_at_the_wall_clock_across_both_changes_of_summer_time():
    app = App("t")
    berlin = ZoneInfo("Europe/Berlin")
    fired = []

    @app.function(Cron("30 2 * * *", tz="Europe/Berlin"))
    async def nightly(ctx: Context[CronTick]) -> None:
        fired.append((await ctx.now()).astimezone(berlin))

    @app.function(Cron("0 * * * *", tz="Europe/Berlin"))
    async def hourly(ctx: Context[CronTick]) -> None:
        await ctx.step.run("note", lambda: None)

    # the clocks go forward on 2030-03-31 at 2:00
    async with Harness(app, start=datetime(2030, 3, 29, 12, tzinfo=berlin)) as h:
        await h.advance(timedelta(days=4))
        assert len(await h.runs(hourly)) == 96
    assert [moment.strftime("%d %H:%M") for moment in fired] == ["30 02:30", "31 03:00", "01 02:30", "02 02:30"]
    fired.clear()
    # and back on 2030-10-27 at 3:00
    async with Harness(app, start=datetime(2030, 10, 26, 0, tzinfo=berlin)) as h:
        await h.advance(timedelta(days=3))
    assert [moment.strftime("%d %H:%M") for moment in fired] == ["26 02:30", "27 02:30", "28 02:30"]


async def test_schedules_do_not_keep_settle_going_and_can_be_switched_off():
    app = App("t")

    @app.function(Cron("@daily"))
    async def daily(ctx: Context[CronTick]) -> str:
        return ctx.event.data.cron

    @app.function(Go)
    async def sleeps(ctx: Context[Go]) -> None:
        await ctx.step.sleep("days", "60h")

    async with Harness(app, start=START) as h:
        await h.settle()
        assert h.clock.time == START
        await h.run(sleeps, Go())
        assert len(await h.runs(daily)) == 2
        await h.settle(within="3d")
        assert len(await h.runs(daily)) == 5
    async with Harness(app, start=START, schedules=False) as h:
        await h.advance("10d")
        assert await h.runs(daily) == []
        run = await h.run(daily)
        assert run.output == "0 0 * * *" or run.output == "@daily"


async def test_an_event_in_the_future_starts_its_functions_then():
    app = App("t")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> None: ...

    async with Harness(app, start=START) as h:
        await h.send(Go(), ts=START + timedelta(hours=3))
        (run,) = await h.runs()
        assert run.status == "QUEUED"
        await h.settle()
        (run,) = await h.runs()
        assert (run.status, run.started_at) == ("COMPLETED", START + timedelta(hours=3))


async def test_time_stands_still_while_the_test_does_something_else():
    app = App("t")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> str:
        reply = await ctx.step.wait_for_event("reply", Reply, timeout="1s")
        return "reply" if reply else "none"

    async with Harness(app) as h:
        run = await h.start(fn, Go())
        await asyncio.sleep(0.05)
        await h.send(Reply(n=1))
        assert (await h.read(run)).output == "reply"


async def test_an_app_s_own_calls_work_beside_the_harness():
    app = App("t")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> str:
        await ctx.step.sleep("day", "1d")
        return "morning"

    async with Harness(app) as h:
        handle = await app.start(fn, Go())
        result, _ = await asyncio.gather(handle.result(), h.settle())
        assert result == "morning"


async def test_functions_call_and_trigger_each_other_across_apps():
    shop, mail = App("shop"), App("mail")

    @mail.function(Reply)
    async def write(ctx: Context[Reply]) -> int:
        await ctx.step.sleep("think", "1h")
        return ctx.event.data.n * 10

    @shop.function(Go)
    async def fn(ctx: Context[Go]) -> int:
        await ctx.step.send("tell", Reply(n=1))
        return await ctx.step.invoke("ask", write, Reply(n=2))

    async with Harness(shop, mail) as h:
        assert (await h.run(fn, Go())).output == 20
        await h.settle()
        assert sorted(run.output for run in await h.runs(write)) == [10, 20]


async def test_restart_cuts_bodies_off_and_goes_on_from_what_was_recorded(caplog):
    app = App("t")
    bodies, gate = [], asyncio.Event()

    async def first() -> int:
        bodies.append("first")
        return 1

    async def second() -> int:
        bodies.append("second")
        if bodies.count("second") == 1:
            await asyncio.sleep(3600)
        return 2

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[int]:
        return [await ctx.step.run("first", first), await ctx.step.run("second", second)]

    async with Harness(app, start=START) as h:
        handle = await app.start(fn, Go())
        while "second" not in bodies:
            await asyncio.sleep(0.001)
        before = h.engine
        with caplog.at_level(logging.ERROR):
            await h.restart()
        assert h.engine is not before
        (run,) = await h.runs()
        assert (run.id, run.output) == (handle.id, [1, 2])
    assert bodies == ["first", "second", "second"]
    assert caplog.messages == []


async def test_sleeps_waits_and_schedules_survive_a_restart():
    app = App("t")
    ticks = []

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> str:
        await ctx.step.sleep("day", "1d")
        reply = await ctx.step.wait_for_event("reply", Reply, timeout="1d")
        return "none" if reply is None else "reply"

    @app.function(Cron("@hourly"))
    async def hourly(ctx: Context[CronTick]) -> None:
        ticks.append(h.clock.time)

    async with Harness(app, start=START) as h:
        run = await h.start(fn, Go())
        await h.restart()
        await h.advance("1d")
        await h.restart()
        await h.send(Reply(n=1))
        assert (await h.read(run)).output == "reply"
    assert len(ticks) == 24


async def test_resources_of_a_lifespan_are_there_and_given_back():
    life = []

    @asynccontextmanager
    async def lifespan(app: App):
        life.append("open")
        yield "database"
        life.append("closed")

    app = App("t", lifespan=lifespan)

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> str:
        return ctx.resources

    async with Harness(app) as h:
        assert (await h.run(fn, Go())).output == "database"
        await h.restart()
        assert life == ["open", "closed", "open"]
    assert life == ["open", "closed"] * 2


async def test_something_that_keeps_moving_is_named_once_patience_has_run_out():
    app = App("t")
    stop = threading.Event()

    @app.function(Go)
    async def stuck(ctx: Context[Go]) -> None:
        await ctx.step.run("hang", stop.wait, 5)

    @app.function(Reply)
    async def outside(ctx: Context[Reply]) -> None:
        await asyncio.sleep(5)

    async with Harness(app, patience=0.1) as h:
        with pytest.raises(NotQuietError, match=r"after 0.1 s of real time: step 'hang' of t-stuck is executing"):
            await h.run(stuck, Go())
        stop.set()
    async with Harness(app, patience=0.1) as h:
        with pytest.raises(NotQuietError, match="t-outside is executing, or awaits something, outside its steps"):
            await h.run(outside, Reply(n=1))
        await h.cancel((await h.runs())[0])


async def test_endless_work_is_noticed(monkeypatch):
    app = App("t")
    monkeypatch.setattr("holdfast.testing.clock.MAX_JUMPS", 20)

    @app.function(Go)
    async def again(ctx: Context[Go]) -> None:
        await ctx.step.sleep("hour", "1h")
        await ctx.step.send("again", Go())

    async with Harness(app) as h:
        await h.send(Go())
        with pytest.raises(NotQuietError, match=r"20 due moments in 20h and no end in sight: give settle a limit"):
            await h.settle()
        await h.settle(within="5h")
        assert len(await h.runs()) == 26


async def test_mistakes_are_named():
    app, other = App("t"), App("other")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> None: ...

    @other.function(Go)
    async def foreign(ctx: Context[Go]) -> None: ...

    with pytest.raises(ConfigurationError, match="a harness needs an app"):
        Harness()
    async with Harness(app) as h:
        with pytest.raises(ConfigurationError, match="belongs to app 'other', which this harness doesn't run"):
            await h.run(foreign, Go())
        with pytest.raises(ConfigurationError, match="'fn' is started by an event: pass one"):
            await h.run(fn)
        with pytest.raises(EventInvalidError, match="n"):
            await h.run(fn, {"n": "many"})


async def test_what_a_test_leaves_unfinished_does_not_hold_it_up():
    app = App("t")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> None:
        await ctx.step.sleep("year", "365d")

    begin = time.perf_counter()
    async with Harness(app) as h:
        for _ in range(20):
            await h.start(fn, Go())
    assert time.perf_counter() - begin < 2

    with pytest.raises(ZeroDivisionError):
        async with Harness(app) as h:
            await h.start(fn, Go())
            1 / 0


async def test_two_harnesses_on_one_loop_have_times_of_their_own():
    async def month(name: str) -> datetime:
        app = App(name)

        @app.function(Go)
        async def fn(ctx: Context[Go]) -> None:
            for n in range(10):
                await ctx.step.sleep(f"s{n}", "3d")

        async with Harness(app, start=START) as h:
            await h.run(fn, Go())
            return h.clock.time

    assert await asyncio.gather(month("a"), month("b")) == [START + timedelta(days=30)] * 2


async def test_errors_of_steps_reach_the_function_as_in_production():
    app = App("t")

    class CardDeclined(Exception):
        pass

    def charge() -> None:
        raise CardDeclined("no")

    @app.function(Go, retries=1)
    async def fn(ctx: Context[Go]) -> bool:
        try:
            await ctx.step.run("charge", charge)
        except StepError as error:
            await ctx.step.sleep("later", "1d")
            return error.matches(CardDeclined)
        return False

    async with Harness(app) as h:
        assert (await h.run(fn, Go())).output is True


async def test_lines_logged_before_a_wait_are_logged_once():
    app = App("t")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> None:
        ctx.logger.info("before")
        await ctx.step.sleep("day", "1d")
        ctx.logger.info("between")
        await ctx.step.wait_for_event("reply", Reply, timeout="1d")
        ctx.logger.info("after")

    async with Harness(app) as h:
        run = await h.run(fn, Go())
    assert [log.message for log in run.logs] == ["before", "between", "after"]
