"""Another process holds the database locked: senders are told, runs wait, and all goes on once it lets go."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest
from holdfast import App, Context, Event
from holdfast.base.errors import StoreBusyError
from holdfast.compose import build_engine

pytestmark = pytest.mark.anyio


class Go(Event, name="locked/go"):
    pass


async def test_a_lock_delays_runs_and_refuses_senders(tmp_path):
    app = App("locked")
    entered, go_on = asyncio.Event(), asyncio.Event()
    bodies: list[int] = []

    async def body() -> str:
        bodies.append(1)
        entered.set()
        await go_on.wait()
        return "done"

    @app.function(Go)
    async def work(ctx: Context[Go]) -> str:
        try:
            return await ctx.step.run("work", body)
        except Exception as error:
            return f"the function was told: {error}"

    database = tmp_path / "a.db"
    other = sqlite3.connect(database, isolation_level=None)
    try:
        async with build_engine([app], f"sqlite:///{database}") as engine:
            engine.store._conn.execute("PRAGMA busy_timeout = 20")
            handle = await app.start(work, Go())
            await entered.wait()
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreBusyError, match="another process"):
                await app.send(Go())
            go_on.set()
            with pytest.raises(TimeoutError):
                await handle.result(timeout=0.6)
            assert "another process" in engine.status()["problem"]
            with pytest.raises(StoreBusyError):
                await app.send(Go())
            other.execute("ROLLBACK")
            assert await handle.result(timeout=60) == "done"
            assert engine.status()["problem"] is None
            await app.send(Go())
            await engine.idle()
    finally:
        other.close()
    assert len(bodies) == 2, "the first run's body was not repeated"
