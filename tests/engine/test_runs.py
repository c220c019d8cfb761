"""Runs: accepting, waking, cancelling, ending, starting again, and what stays behind."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest

from holdfast import (
    App,
    Backoff,
    ConfigurationError,
    Context,
    Event,
    FunctionFailed,
    InvokeTimeoutError,
    Middleware,
    NonRetriableError,
    NotRunningError,
    OverloadedError,
    RunCancelledError,
    RunFailedError,
    RunNotFoundError,
    StepError,
    Suspended,
)

pytestmark = pytest.mark.anyio

SOON = Backoff.constant(0.01)


class Go(Event, name="test/go"):
    n: int = 0


class Reply(Event, name="test/reply"):
    n: int
    text: str = ""


async def test_a_wait_is_ended_by_the_matching_event_only(engine_for, query):
    app = App("t")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> str:
        got = await ctx.step.wait_for_event("w", Reply, where={"n": ctx.event.data.n, "text": "yes"}, timeout=timedelta(days=7))
        return "none" if got is None else f"{got.data.n}{got.data.text}"

    async with engine_for(app, linger_ms=0) as engine:
        handles = [await app.start(fn, Go(n=n)) for n in range(3)]
        await engine.idle()
        assert engine.in_flight == 0
        await app.send_many([Reply(n=1, text="no"), Reply(n=7, text="yes"), Reply(n=2, text="yes")])
        assert await handles[2].result(timeout=60) == "2yes"
        await app.send(Reply(n=1, text="yes"))
        assert await handles[1].result(timeout=60) == "1yes"
        assert (await _status(query, handles[0].id)) == 1
    assert query("SELECT count(*) FROM waits") == [(1,)]


async def _status(query, run_id: str) -> int:
    from holdfast.base.ids import ulid_bytes

    ((status,),) = query("SELECT status FROM runs WHERE id = ?", ulid_bytes(run_id))
    return status


async def test_a_wait_times_out_with_none(engine_for):
    app = App("t")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> bool:
        return await ctx.step.wait_for_event("w", Reply, timeout=0.03) is None

    async with engine_for(app, linger_ms=0):
        assert await (await app.start(fn, Go())).result(timeout=60) is True


async def test_a_wait_by_expression_sees_the_trigger_and_the_event(engine_for):
    app = App("t")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> int:
        got = await ctx.step.wait_for_event("w", Reply, if_="async.data.n > event.data.n + 5", timeout=timedelta(days=1))
        assert got is not None
        return got.data.n

    async with engine_for(app, linger_ms=0) as engine:
        handle = await app.start(fn, Go(n=10))
        await engine.idle()
        await app.send(Reply(n=15))
        await app.send(Reply(n=16))
        assert await handle.result(timeout=60) == 16


async def test_since_catches_an_event_that_came_while_the_step_before_was_running(engine_for):
    app = App("t")

    async def slow() -> None:
        await app.send(Reply(n=4))

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> int | None:
        await ctx.step.run("slow", slow)
        got = await ctx.step.wait_for_event("w", Reply, where={"n": 4}, timeout=60, since="run")
        return got.data.n if got else None

    @app.function(Go, id="without")
    async def without(ctx: Context[Go]) -> int | None:
        await ctx.step.run("slow", slow)
        got = await ctx.step.wait_for_event("w", Reply, where={"n": 4}, timeout=0.05)
        return got.data.n if got else None

    async with engine_for(app):
        assert await (await app.start(fn, Go())).result(timeout=60) == 4
        assert await (await app.start(without, Go())).result(timeout=60) is None


async def test_the_same_event_id_starts_each_function_once(engine_for, query):
    app = App("t")
    runs = []

    @app.function(Go)
    async def one(ctx: Context[Go]) -> None:
        runs.append("one")

    @app.function(Go)
    async def two(ctx: Context[Go]) -> None:
        runs.append("two")

    async with engine_for(app) as engine:
        receipts = await asyncio.gather(*(app.send(Go(), id="same") for _ in range(50)))
        await engine.idle()
    assert sorted(runs) == ["one", "two"]
    assert sum(not receipt.duplicate for receipt in receipts) == 1
    assert query("SELECT count(*), min(reason) FROM skips") == [(98, "duplicate event id")]
    assert query("SELECT count(*) FROM events") == [(50,)]


async def test_an_event_from_the_future_starts_its_run_then(engine_for):
    app = App("t")
    started = []

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> None:
        started.append(datetime.now(UTC))

    async with engine_for(app) as engine:
        await app.send(Reply(n=1))  # by then the claim of the start is over
        await engine.idle()
        due = datetime.now(UTC) + timedelta(milliseconds=80)
        await app.send(Go(), ts=due)
        await engine.idle()
        assert not started
        await _until(lambda: started)
    assert started[0] >= due


async def _until(condition, seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def test_invoke_returns_the_result_or_raises_what_the_callee_failed_with(engine_for):
    app = App("t")

    @app.function(Reply, retries=0)
    async def callee(ctx: Context[Reply]) -> int:
        if ctx.event.data.n < 0:
            raise ValueError("negative")
        await ctx.step.sleep("nap", 0.4)
        return ctx.event.data.n * 2

    @app.function(Go)
    async def caller(ctx: Context[Go]) -> list[object]:
        good = await ctx.step.invoke("good", callee, Reply(n=4))
        try:
            await ctx.step.invoke("bad", callee, Reply(n=-1))
        except StepError as error:
            return [good, error.name, error.matches(ValueError)]
        return []

    async with engine_for(app, linger_ms=0):
        assert await (await app.start(caller, Go())).result(timeout=60) == [8, "ValueError", True]


async def test_invoke_times_out_and_the_callee_goes_on(engine_for, query):
    app = App("t")

    @app.function(Reply)
    async def callee(ctx: Context[Reply]) -> None:
        await ctx.step.sleep("long", timedelta(days=1))

    @app.function(Go)
    async def caller(ctx: Context[Go]) -> str:
        try:
            await ctx.step.invoke("call", callee, Reply(n=1), timeout=0.03)
        except InvokeTimeoutError as error:
            return error.message
        return ""

    async with engine_for(app, linger_ms=0):
        message = await (await app.start(caller, Go())).result(timeout=60)
    assert message == "Timed out waiting for invoked function to complete"
    assert query("SELECT status FROM runs WHERE parent_id IS NOT NULL") == [(1,)]


async def test_cancelling_the_callee_reaches_the_caller(engine_for, query):
    app = App("t")

    @app.function(Reply)
    async def callee(ctx: Context[Reply]) -> None:
        await ctx.step.sleep("long", timedelta(days=1))

    @app.function(Go)
    async def caller(ctx: Context[Go]) -> str:
        try:
            await ctx.step.invoke("call", callee, Reply(n=1))
        except StepError as error:
            return error.name
        return ""

    async with engine_for(app, linger_ms=0) as engine:
        from holdfast.base.ids import ulid_text

        handle = await app.start(caller, Go())
        await engine.idle()
        ((child,),) = query("SELECT id FROM runs WHERE parent_id IS NOT NULL")
        assert await app.cancel(ulid_text(child)) is True
        assert await handle.result(timeout=60) == "InvokeCancelledError"


async def test_cancel_stops_the_code_which_may_clean_up_and_drops_what_it_reports(engine_for, query):
    app = App("t")
    log = []
    inside = asyncio.Event()

    async def body() -> None:
        inside.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            log.append("cleaned")
            raise

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> None:
        await ctx.step.run("body", body)
        log.append("went on")

    async with engine_for(app) as engine:
        handle = await app.start(fn, Go())
        await inside.wait()
        assert await handle.cancel() is True
        assert await handle.cancel() is False
        with pytest.raises(RunCancelledError):
            await handle.result(timeout=60)
        await engine.idle()
    assert log == ["cleaned"]
    assert query("SELECT count(*) FROM steps") == [(0,)]
    assert query("SELECT status FROM runs") == [(4,)]


async def test_on_failure_runs_durably_after_the_last_attempt(engine_for):
    app = App("t")
    told = []

    async def tell(ctx: Context[FunctionFailed]) -> None:
        failure = ctx.event.data
        told.append((failure.function_id, failure.error["name"], failure.event["data"]))

    @app.function(Go, retries=1, backoff=SOON, on_failure=tell)
    async def fn(ctx: Context[Go]) -> None:
        raise LookupError("gone")

    async with engine_for(app) as engine:
        with pytest.raises(RunFailedError):
            await (await app.start(fn, Go(n=3))).result(timeout=60)
        await engine.idle()
    assert told == [("t-fn", "LookupError", {"n": 3})]


async def test_a_failing_failure_handler_does_not_trigger_itself(engine_for, query):
    async def tell(ctx: Context[FunctionFailed]) -> None:
        raise NonRetriableError("handler broke")

    app = App("t", on_failure=tell)

    @app.function(Go, retries=0)
    async def fn(ctx: Context[Go]) -> None:
        raise LookupError("gone")

    async with engine_for(app) as engine:
        await app.send(Go())
        await engine.idle()
    assert query("SELECT count(*) FROM runs") == [(2,)]


async def test_redrive_goes_on_after_the_finished_steps_once(engine_for, query):
    app = App("t")
    bodies = []
    broken = [True]

    async def first() -> int:
        bodies.append("first")
        return 5

    async def second() -> int:
        bodies.append("second")
        if broken[0]:
            raise OSError("down")
        return 6

    @app.function(Go, retries=0)
    async def fn(ctx: Context[Go]) -> int:
        return await ctx.step.run("first", first) + await ctx.step.run("second", second)

    async with engine_for(app) as engine:
        handle = await app.start(fn, Go())
        with pytest.raises(RunFailedError):
            await handle.result(timeout=60)
        broken[0] = False
        again = await asyncio.gather(*(engine.redrive(handle.id) for _ in range(5)))
        assert len(set(again)) == 1
        assert await app.handle(again[0], fn).result(timeout=60) == 11
        assert await _status(query, handle.id) == 3
        assert query("SELECT state FROM dead_letters") == [(1,)]
    assert bodies == ["first", "second", "second"]


async def test_rerun_starts_from_the_beginning_and_leaves_the_old_run_alone(engine_for, query):
    app = App("t")
    bodies = []

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> int:
        async def body() -> int:
            bodies.append(1)
            return len(bodies)

        return await ctx.step.run("body", body)

    async with engine_for(app) as engine:
        handle = await app.start(fn, Go())
        assert await handle.result(timeout=60) == 1
        again = await engine.rerun(handle.id)
        assert await app.handle(again, fn).result(timeout=60) == 2
        assert await handle.result() == 1
        with pytest.raises(RunNotFoundError):
            await engine.rerun("01ARZ3NDEKTSV4RRFFQ69G5FAV")
        with pytest.raises(ConfigurationError, match="not a dead letter"):
            await engine.redrive(handle.id)


async def test_stopping_hands_runs_back_and_the_next_boot_goes_on(engine_for, query):
    app = App("t")
    bodies = []
    inside = asyncio.Event()

    async def body(name: str) -> str:
        bodies.append(name)
        inside.set()
        await asyncio.sleep(0.05)
        return name

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> str:
        return await ctx.step.run("a", body, "a") + await ctx.step.run("b", body, "b")

    async with engine_for(app):
        handle = await app.start(fn, Go())
        await inside.wait()
    assert bodies == ["a"]
    assert query("SELECT state, crashes FROM queue") == [(1, 0)]
    async with engine_for(app):
        assert await app.handle(handle.id, fn).result(timeout=60) == "ab"
    assert bodies == ["a", "b"]


async def test_waiting_runs_are_parked_when_the_engine_stops(engine_for, query):
    app = App("t")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> str:
        await asyncio.gather(
            ctx.step.sleep("s", timedelta(hours=1)), ctx.step.wait_for_event("w", Reply, timeout=timedelta(days=1))
        )
        return "done"

    async with engine_for(app, linger_ms=7_200_000) as engine:
        await app.start(fn, Go())
        await _until(lambda: query("SELECT count(*) FROM steps WHERE state = 2") == [(2,)])
        assert engine.in_flight == 1
    assert query("SELECT state, crashes FROM queue") == [(1, 0)]


async def test_more_work_than_room_waits_in_line_and_all_is_done(engine_for, query):
    app = App("t")
    running, most = [0], [0]

    async def body() -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        await asyncio.sleep(0.001)
        running[0] -= 1

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> None:
        await ctx.step.run("body", body)

    async with engine_for(app, capacity=5):
        await app.send_many([Go(n=n) for n in range(200)])
        await _until(lambda: query("SELECT count(*) FROM runs WHERE status = 2") == [(200,)])
        await _until(lambda: query("SELECT count(*) FROM lanes") == [(0,)])
    assert most[0] <= 5
    assert query("SELECT count(*) FROM queue") == [(0,)]


async def test_swallowing_suspended_fails_the_run_with_a_sentence(engine_for):
    app = App("t")

    @app.function(Go, retries=3)
    async def fn(ctx: Context[Go]) -> str:
        try:
            await ctx.step.sleep("s", timedelta(hours=1))
        except BaseException:
            pass
        return "swallowed"

    async with engine_for(app, linger_ms=0):
        with pytest.raises(RunFailedError, match="did not let Suspended pass"):
            await (await app.start(fn, Go())).result(timeout=60)


async def test_changed_code_is_reported_in_the_run(engine_for, query):
    def app_with(version: int) -> App:
        app = App("t")

        async def value() -> int:
            return version

        @app.function(Go, id="fn")
        async def fn(ctx: Context[Go]) -> int:
            if version == 1:
                await ctx.step.run("old", value)
            total = await ctx.step.run("kept", value)
            await ctx.step.wait_for_event("w", Reply, timeout=timedelta(days=1))
            if version == 2:
                total += await ctx.step.run("new", value)
            return total

        return app

    first, second = app_with(1), app_with(2)
    async with engine_for(first, linger_ms=0) as engine:
        handle = await first.start(first.functions["fn"], Go())
        await engine.idle()
    async with engine_for(second, linger_ms=0):
        await second.send(Reply(n=1))
        assert await second.handle(handle.id).result(timeout=60) == 3
    notes = [row[0] for row in query("SELECT text FROM notes")]
    assert any("no longer reached" in note and "'old'" in note for note in notes)


async def test_a_step_that_changed_its_kind_stops_with_what_changed(engine_for):
    def app_with(kind: str) -> App:
        app = App("t")

        @app.function(Go, id="fn")
        async def fn(ctx: Context[Go]) -> None:
            if kind == "sleep":
                await ctx.step.sleep("x", 0.001)
            else:
                await ctx.step.run("x", asyncio.sleep, 0)
            await ctx.step.wait_for_event("w", Reply, timeout=timedelta(days=1))

        return app

    first, second = app_with("sleep"), app_with("run")
    async with engine_for(first, linger_ms=0) as engine:
        handle = await first.start(first.functions["fn"], Go())
        await engine.idle()
        await _until(lambda: engine.in_flight == 0)
    async with engine_for(second, linger_ms=0):
        await second.send(Reply(n=1))
        with pytest.raises(RunFailedError, match="recorded as sleep and is now run"):
            await second.handle(handle.id).result(timeout=60)


async def test_middleware_wraps_function_step_and_send(engine_for):
    seen: list[str] = []

    class Tracing(Middleware):
        async def around_function(self, ctx, call):
            seen.append("function")
            return await call()

        async def around_step(self, ctx, step_id, call):
            seen.append(f"step {step_id}")
            return await call() + 1

        async def around_send(self, events, call):
            seen.append(f"send {events[0].name}")
            return await call(events)

    app = App("t", middleware=[Tracing()])

    async def one() -> int:
        return 1

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> int:
        return await ctx.step.run("one", one)

    async with engine_for(app) as engine:
        assert await (await app.start(fn, Go())).result(timeout=60) == 2
        await app.send(Go())
        await engine.idle()
    assert seen == ["function", "step one", "send test/go", "function", "step one"]


async def test_the_lifespan_gives_resources_and_is_closed_at_the_end(engine_for):
    from contextlib import asynccontextmanager

    log = []

    @asynccontextmanager
    async def lifespan(app: App):
        log.append("open")
        yield {"db": 1}
        log.append("closed")

    app = App("t", lifespan=lifespan)

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> int:
        return ctx.resources["db"]

    async with engine_for(app):
        assert await (await app.start(fn, Go())).result(timeout=60) == 1
    assert log == ["open", "closed"]


async def test_log_lines_are_kept_once_although_the_code_runs_twice(engine_for, query, caplog):
    caplog.set_level("INFO")
    app = App("t")

    async def body() -> None:
        return None

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> None:
        ctx.logger.info("before %s", "step")
        await ctx.step.run("body", body)
        await ctx.step.sleep("nap", 0.4)
        ctx.logger.warning("after")

    async with engine_for(app, linger_ms=0):
        handle = await app.start(fn, Go())
        await handle.result(timeout=60)
    assert [row[0] for row in query("SELECT message FROM logs ORDER BY seq")] == ["before step", "after"]
    records = [r for r in caplog.records if r.name.startswith("holdfast.run")]
    assert [r.getMessage() for r in records] == ["before step", "after"]
    assert all(r.run_id == handle.id for r in records)


async def test_a_send_step_sends_if_and_only_if_it_is_recorded(engine_for, query):
    app = App("t")
    got = []

    @app.function(Reply)
    async def other(ctx: Context[Reply]) -> None:
        got.append(ctx.event.data.n)

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> int:
        ids = await ctx.step.send("tell", [Reply(n=1), {"name": "test/reply", "data": {"n": 2}}])
        await ctx.step.sleep("nap", 0.4)
        return len(ids)

    async with engine_for(app, linger_ms=0) as engine:
        assert await (await app.start(fn, Go())).result(timeout=60) == 2
        await engine.idle()
    assert sorted(got) == [1, 2]
    assert query("SELECT count(*) FROM events WHERE source IS NOT NULL") == [(2,)]


async def test_a_stored_event_that_no_longer_fits_is_a_dead_letter(engine_for, query):
    app = App("t")

    @app.function("test/raw", id="fn")
    async def before(ctx: Context[object]) -> None:
        await ctx.step.sleep("s", timedelta(hours=1))

    async with engine_for(app, linger_ms=0) as engine:
        await app.send({"name": "test/raw", "data": {"other": 1}})
        await engine.idle()

    changed = App("t")

    class Raw(Event, name="test/raw"):
        needed: str

    tries = []

    @changed.function(Raw, id="fn")
    async def after(ctx: Context[Raw]) -> None:
        tries.append(1)

    async with engine_for(changed, linger_ms=0) as engine:
        ((run_id,),) = query("SELECT id FROM runs")
        from holdfast.base.ids import ulid_text

        again = await _rerun_after_cancel(engine, ulid_text(run_id))
        with pytest.raises(RunFailedError, match="no longer fits its model.*needed"):
            await changed.handle(again).result(timeout=60)
    assert not tries


async def _rerun_after_cancel(engine, run_id: str) -> str:
    await engine.cancel(run_id)
    return await engine.rerun(run_id)


async def test_sending_is_refused_after_the_stop_and_when_too_much_waits(engine_for):
    app = App("t")
    async with engine_for(app, max_unsent=3):
        results = await asyncio.gather(*(app.send(Go(n=n)) for n in range(10)), return_exceptions=True)
        assert sum(isinstance(r, OverloadedError) for r in results) == 7
    with pytest.raises(NotRunningError, match="not running here"):
        await app.send(Go())


async def test_send_sync_from_a_thread_and_refused_on_the_loop(engine_for, query):
    app = App("t")
    async with engine_for(app):
        receipt = await asyncio.to_thread(app.send_sync, Go(n=1))
        assert len(receipt.id) == 26
        with pytest.raises(NotRunningError, match="would block"):
            app.send_sync(Go())
    assert query("SELECT count(*) FROM events") == [(1,)]


async def test_a_body_that_calls_others_through_its_own_tasks_is_not_the_functions_business(engine_for):
    app = App("t")

    async def body() -> int:
        parts = await asyncio.gather(*(asyncio.sleep(0.01, n) for n in range(3)))
        return sum(parts)

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> int:
        return sum(await asyncio.gather(ctx.step.run("a", body), ctx.step.run("b", body)))

    async with engine_for(app):
        assert await (await app.start(fn, Go())).result(timeout=60) == 6


async def test_errors_are_recorded_whatever_their_text(engine_for, query):
    app = App("t")

    class Nasty(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    class Huge(Exception):
        def __str__(self) -> str:
            return "x" * 10_000_000

    @app.function(Go, retries=0)
    async def nasty(ctx: Context[Go]) -> None:
        raise Nasty

    @app.function(Go, retries=0)
    async def huge(ctx: Context[Go]) -> None:
        raise Huge

    async with engine_for(app) as engine:
        await app.send(Go())
        await engine.idle()
    errors = [json.loads(row[0]) for row in query("SELECT error FROM steps WHERE key = ''")]
    assert len(errors) == 2
    assert all(len(json.dumps(error)) < 100_000 for error in errors)


def test_suspended_is_not_an_exception_that_user_code_catches_by_accident():
    assert not issubclass(Suspended, Exception)


async def test_a_failing_lifespan_gives_the_store_back(engine_for):
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def lifespan(app: App):
        raise LookupError("no database")
        yield

    broken = App("t", lifespan=lifespan)
    with pytest.raises(LookupError):
        async with engine_for(broken):
            pass
    async with engine_for(App("t")):
        pass


async def test_a_fork_of_a_running_engine_is_refused_in_the_child(engine_for):
    import os

    app = App("t")
    async with engine_for(app):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                await app.send(Go())
                answer = b"accepted"
            except NotRunningError as error:
                answer = str(error).encode()
            os.write(writer, answer)
            os._exit(0)
        os.close(writer)
        answer = b""
        while part := os.read(reader, 4096):
            answer += part
        os.waitpid(pid, 0)
        assert b"forked from one with a running engine" in answer
        await app.send(Go())


async def test_a_sleep_outside_steps_is_noted_on_the_run(engine_for, query):
    app = App("t")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> None:
        await asyncio.sleep(2.2)

    async with engine_for(app):
        await (await app.start(fn, Go())).result(timeout=60)
    assert any("asyncio.sleep" in row[0] for row in query("SELECT text FROM notes"))


async def test_a_blocked_loop_is_reported_with_the_line_it_stands_on(engine_for, caplog, monkeypatch):
    import time

    from holdfast.engine import watch

    monkeypatch.setattr(watch, "BLOCKED_SECONDS", 0.5)
    app = App("t")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> None:
        time.sleep(2.6)  # the very thing to be reported

    async with engine_for(app):
        await (await app.start(fn, Go())).result(timeout=60)
    (record,) = [r for r in caplog.records if "has been blocked" in r.getMessage()]
    assert "time.sleep(2.6)" in record.getMessage()
