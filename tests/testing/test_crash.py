"""Ending an engine, or a run, in the middle of things: nothing of it goes on, and nothing is left behind."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from holdfast import App, Context, Event, NotRunningError, RunCancelledError, SyncContext
from holdfast.compose import build_engine
from holdfast.engine.crash import kill, reap

pytestmark = pytest.mark.anyio


class Go(Event, name="crash/go"):
    pass


def function_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("holdfast-function")}


async def until(fact):
    async with asyncio.timeout(60):
        while not fact():
            await asyncio.sleep(0.005)


async def test_cancelling_a_plain_function_while_it_waits_in_memory_lets_its_thread_go(tmp_path: Path):
    app = App("t")
    waiting = threading.Event()
    left = []

    @app.function(Go)
    def fn(ctx: SyncContext[Go]) -> None:
        waiting.set()
        try:
            ctx.step.sleep("long", 0.9)  # short enough to stay in memory
        finally:
            left.append(True)

    async with build_engine([app], f"sqlite:///{tmp_path}/t.db"):
        handle = await app.start(fn, Go())
        await until(waiting.is_set)
        await asyncio.sleep(0.05)  # into the sleep
        assert await handle.cancel()
        await until(lambda: left)
        with pytest.raises(RunCancelledError):
            await handle.result(timeout=1)


async def test_a_run_cancelled_before_its_first_line_leaves_memory(tmp_path: Path):
    app = App("t")
    started = []

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> None:
        started.append(True)

    async with build_engine([app], f"sqlite:///{tmp_path}/t.db") as engine:
        launched = engine.launch

        def launch_and_cancel(leased) -> None:
            launched(leased)
            engine.live[leased[0].run.id].abandon()

        engine.launch = launch_and_cancel
        await app.start(fn, Go())
        await asyncio.sleep(0.02)
        assert engine.in_flight == 0
    assert started == []


@pytest.mark.parametrize("point", ["before_commit", "after_commit"])
async def test_after_a_kill_nothing_more_is_committed_and_whoever_waits_is_told(tmp_path: Path, point: str):
    app = App("t")
    went_on = []

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> str:
        await ctx.step.run("one", lambda: 1)
        went_on.append(True)
        return "done"

    store = f"sqlite:///{tmp_path}/t.db"
    engine = build_engine([app], store)
    await engine.boot()
    await engine.idle()
    setattr(engine.store.group, point, lambda: kill(engine))
    with pytest.raises(NotRunningError, match="died before it could answer"):
        await app.start(fn, Go())
    await reap(engine)
    assert went_on == []
    async with build_engine([app], store) as revived:
        await revived.idle()
        runs = [run.status async for run in app.runs()]
    assert runs == ([] if point == "before_commit" else ["COMPLETED"])
    assert went_on == ([] if point == "before_commit" else [True])


async def test_a_killed_plain_function_stops_at_its_next_step(tmp_path: Path):
    app = App("t")
    inside, go_on, seen = threading.Event(), threading.Event(), []
    others = function_threads()

    def body() -> None:
        inside.set()
        go_on.wait(5)

    @app.function(Go)
    def fn(ctx: SyncContext[Go]) -> None:
        try:
            ctx.step.run("body", body)
        except Exception as error:
            seen.append(error)
        ctx.step.run("next", seen.append, "went on")

    store = f"sqlite:///{tmp_path}/t.db"
    engine = build_engine([app], store)
    await engine.boot()
    await app.start(fn, Go())
    await until(inside.is_set)
    kill(engine)
    go_on.set()
    await reap(engine)
    assert seen == []
    assert function_threads() <= others
    async with build_engine([app], store) as revived:
        await revived.idle()
        assert [run.status async for run in app.runs()] == ["COMPLETED"]
    assert seen == ["went on"]
