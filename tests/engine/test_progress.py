"""P8: what a run says of its progress is kept cheaply, survives, is silent on replay, and is told to whoever watches."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from holdfast import (
    App,
    Backoff,
    Context,
    Event,
    NonRetriableError,
    NotRunningError,
    RunFailedError,
    RunInfo,
    RunNotFoundError,
    SyncContext,
)
from holdfast.core.reporting import Report

pytestmark = pytest.mark.anyio


class Go(Event, name="test/go"):
    n: int = 0


class Release(Event, name="test/release"):
    pass


async def until(app: App, run_id: str, wanted: Any, seconds: float = 30) -> RunInfo:
    """The run, once it is as wanted."""
    async with asyncio.timeout(seconds):
        async for run in app.runs.watch(run_id):
            if wanted(run):
                return run
    raise AssertionError(f"run {run_id} ended and was never as wanted")


async def test_progress_is_read_while_a_body_goes_on_and_is_whole_at_the_end(engine_for, query):
    app = App("t")
    go_on = asyncio.Event()

    @app.function(Go)
    async def work(ctx: Context[Go]) -> str:
        async def body() -> None:
            ctx.progress(0.25, "images")
            ctx.progress(0.4, "images, the second half")
            await go_on.wait()

        await ctx.step.run("body", body)
        ctx.progress(None, "tidying")
        return "done"

    async with engine_for(app) as engine:
        handle = await app.start(work, Go())
        run = await until(app, handle.id, lambda run: run.progress is not None)
        assert (run.progress.fraction, run.progress.text) == (0.4, "images, the second half")
        assert 0 < run.progress.at <= engine.clock.now()
        assert query("SELECT fraction, text FROM progress") == [(0.4, "images, the second half")]
        go_on.set()
        await handle.result(timeout=30)
        info = await handle.info()
    assert info.status == "COMPLETED"
    assert (info.progress.fraction, info.progress.text) == (1.0, "tidying")
    assert query("SELECT fraction, text FROM progress") == [(None, "tidying")], "the end took the last word along"


async def test_progress_between_steps_costs_no_commit_of_its_own(engine_for, monkeypatch):
    app = App("t")
    reports = []
    decide = Report.decide
    monkeypatch.setattr(Report, "decide", lambda plan, tx: reports.append(plan.row) or decide(plan, tx))

    def nothing() -> None: ...

    @app.function(Go)
    async def work(ctx: Context[Go]) -> None:
        for n in range(20):
            ctx.progress(n / 20, f"step {n}")
            await ctx.step.run(f"step-{n}", nothing)

    async with engine_for(app) as engine:
        handle = await app.start(work, Go())
        await handle.result(timeout=30)
        await engine.idle()
        info = await handle.info()
    assert info.progress.text == "step 19"
    assert len([row for row in reports if row is not None]) <= 2, "they went along with the steps"


async def test_many_reports_from_a_thread_are_few_writes_and_the_last_one_wins(engine_for, query, monkeypatch):
    app = App("t")
    written = []
    decide = Report.decide
    monkeypatch.setattr(Report, "decide", lambda plan, tx: written.append(plan.row) or decide(plan, tx))
    go_on = threading.Event()

    @app.function(Go)
    def work(ctx: SyncContext[Go]) -> None:
        def body() -> None:
            for n in range(5000):
                ctx.progress(n / 5000, str(n))
            assert go_on.wait(30)

        ctx.step.run("body", body)

    async with engine_for(app):
        handle = await app.start(work, Go())
        run = await until(app, handle.id, lambda run: run.progress is not None and run.progress.text == "4999")
        assert run.progress.fraction == 4999 / 5000
        go_on.set()
        await handle.result(timeout=30)
    assert 1 <= len([row for row in written if row is not None]) < 500


async def test_a_replay_does_not_set_progress_back(engine_for, query):
    app = App("t")
    said: list[float] = []

    def body() -> None: ...

    @app.function(Go)
    async def work(ctx: Context[Go]) -> None:
        ctx.progress(0.1, "begun")
        said.append(0.1)
        await ctx.step.run("one", body)
        ctx.progress(0.5, "half")
        await ctx.step.run("two", body)
        ctx.progress(0.9, "nearly")
        await ctx.step.wait_for_event("wait", Release, timeout="1d")

    async with engine_for(app, linger_ms=0) as engine:
        handle = await app.start(work, Go())
        await engine.idle()
        assert (await handle.info()).progress.text == "nearly"
    rows = query("SELECT at, fraction, text FROM progress")
    async with engine_for(app, linger_ms=0) as engine:
        assert (await app.runs.info(handle.id)).progress.text == "nearly", "it survives a restart"
        seen = []
        with engine.notices.subscribe() as notices:
            await app.send(Release())
            await app.handle(handle.id).result(timeout=30)
            seen = [notice.kind for notice in notices._waiting]
    assert len(said) == 2, "the function's code ran twice"
    assert "progress" not in seen
    assert query("SELECT at, fraction, text FROM progress") == rows


async def test_a_failed_run_keeps_where_it_stood(engine_for):
    app = App("t")

    @app.function(Go, retries=0)
    async def work(ctx: Context[Go]) -> None:
        ctx.progress(0.3, "uploading")
        raise NonRetriableError("no such bucket")

    async with engine_for(app):
        handle = await app.start(work, Go())
        with pytest.raises(RunFailedError):
            await handle.result(timeout=30)
        info = await handle.info()
    assert (info.status, info.progress.fraction, info.progress.text) == ("FAILED", 0.3, "uploading")


@pytest.mark.parametrize("fraction", [-0.1, 1.5, 40, float("nan"), "half", True])
async def test_a_fraction_that_is_none_fails_the_run_with_a_sentence(engine_for, fraction):
    app = App("t")

    @app.function(Go)
    async def work(ctx: Context[Go]) -> None:
        ctx.progress(fraction)

    async with engine_for(app):
        handle = await app.start(work, Go())
        with pytest.raises(RunFailedError, match="a number from 0 to 1, or None"):
            await handle.result(timeout=30)


async def test_long_text_is_cut_and_rounding_errors_are_forgiven(engine_for):
    app = App("t")

    @app.function(Go)
    async def work(ctx: Context[Go]) -> None:
        ctx.progress(1 + 1e-9, "x" * 2000 + "\ud800")

    async with engine_for(app):
        handle = await app.start(work, Go())
        await handle.result(timeout=30)
        progress = (await handle.info()).progress
    assert len(progress.text) == 500
    assert progress.text.endswith("…")


async def test_watching_begins_with_what_is_and_ends_with_the_end(engine_for):
    app = App("t")
    go_on = asyncio.Event()

    def nothing() -> None: ...

    @app.function(Go)
    async def work(ctx: Context[Go]) -> None:
        await ctx.step.run("one", nothing)
        ctx.progress(0.5, "half")
        await ctx.step.run("two", go_on.wait)

    async with engine_for(app) as engine:
        handle = await app.start(work, Go())
        seen: list[RunInfo] = []
        async with asyncio.timeout(30):
            async for run in handle.watch():
                seen.append(run)
                if run.progress is not None and run.steps == 1:
                    go_on.set()
        assert not engine.notices.followed
        again = [run async for run in app.runs.watch(handle.id)]
    assert seen[0].status in {"QUEUED", "RUNNING"}
    assert [run.ended for run in seen] == [False] * (len(seen) - 1) + [True]
    assert (seen[-1].status, seen[-1].steps) == ("COMPLETED", 2)
    assert again == seen[-1:], "a run that has ended is told once"


async def test_watching_shows_a_failed_attempt_and_its_error(engine_for):
    app = App("t")
    tries = []

    @app.function(Go, retries=1, backoff=Backoff.constant(0.2))
    async def work(ctx: Context[Go]) -> None:
        async def flaky() -> None:
            tries.append(1)
            if len(tries) == 1:
                raise OSError("the tape is torn")

        await ctx.step.run("flaky", flaky)

    async with engine_for(app):
        handle = await app.start(work, Go())
        async with asyncio.timeout(30):
            errors = [run.error async for run in handle.watch()]
    assert "OSError: the tape is torn" in errors


async def test_watching_a_run_that_is_not_there(engine_for):
    app = App("t")
    async with engine_for(app):
        with pytest.raises(RunNotFoundError):
            await anext(app.runs.watch("0" * 26))


async def test_watching_ends_when_the_engine_stops(engine_for):
    app = App("t")

    @app.function(Go)
    async def work(ctx: Context[Go]) -> None:
        await ctx.step.wait_for_event("wait", Release, timeout="1d")

    async def watch(run_id: str) -> None:
        async for _ in app.runs.watch(run_id):
            begun.set()

    begun = asyncio.Event()
    async with engine_for(app):
        handle = await app.start(work, Go())
        task = asyncio.create_task(watch(handle.id))
        await begun.wait()
    async with asyncio.timeout(30):
        with pytest.raises(NotRunningError):
            await task


async def test_runs_are_found_by_their_event(engine_for):
    app = App("t")

    @app.function(Go, id="a")
    async def first(ctx: Context[Go]) -> str:
        return "a"

    @app.function(Go, id="b")
    async def second(ctx: Context[Go]) -> str:
        return "b"

    async with engine_for(app):
        sent = await app.send(Go(), id="order-7")
        by_sender = await app.runs.of_event("order-7")
        by_event = await app.runs.of_event(sent.id)
        assert sorted([await run.result(timeout=30) for run in by_sender]) == ["a", "b"]
        assert [run.id for run in by_event] == [run.id for run in by_sender]
        assert await app.runs.of_event("order-8") == []
