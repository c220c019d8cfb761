"""P8: `ctx.progress` of a function that is called over HTTP is kept by the server, and by no other server missed."""

from __future__ import annotations

import asyncio
import threading

import pytest
from holdfast import App, Context, Event, SyncContext
from holdfast.compose import build_engine
from holdfast.server.serve import serving
from holdfast.server.settings import ServerSettings

pytestmark = pytest.mark.anyio


class Go(Event, name="far/go"):
    n: int = 0


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_progress_is_told_while_the_call_goes_on(kind, served_by, tmp_path):
    app, hub = App("far"), App("hub")
    go_on = threading.Event()

    if kind == "async":

        @app.function(Go, id="work")
        async def work(ctx: Context[Go]) -> str:
            async def body() -> None:
                ctx.progress(0.25, "a quarter")
                ctx.progress(0.5, "half")
                await asyncio.to_thread(go_on.wait, 60)

            await ctx.step.run("body", body)
            ctx.progress(0.75, "the rest")
            return "done"
    else:

        @app.function(Go, id="work")
        def work(ctx: SyncContext[Go]) -> str:
            def body() -> None:
                ctx.progress(0.5, "half")
                assert go_on.wait(60)

            ctx.step.run("body", body)
            ctx.progress(0.75, "the rest")
            return "done"

    engine = build_engine([hub], f"sqlite:///{tmp_path / 'far.db'}")
    try:
        async with engine, serving(engine, ServerSettings(port=0)) as where:
            await asyncio.to_thread(served_by, app, f"http://127.0.0.1:{where.port}")
            sent = await hub.send({"name": "far/go", "data": {}})
            (handle,) = await hub.runs.of_event(sent.id)
            seen = []
            async with asyncio.timeout(60):
                async for run in handle.watch():
                    seen.append(run)
                    if run.progress is not None and run.progress.text == "half":
                        go_on.set()
            assert await handle.result() == "done"
            assert (seen[-1].status, seen[-1].progress.text, seen[-1].progress.fraction) == ("COMPLETED", "the rest", 1.0)
    finally:
        go_on.set()


async def test_a_server_that_does_not_know_of_it_is_no_trouble(protocol, served, caplog):
    app = App("far")

    @app.function(Go, id="work")
    async def work(ctx: Context[Go]) -> str:
        ctx.progress(0.5, "half")
        return "done"

    server = protocol()
    served(app, server)
    outcome = await asyncio.to_thread(server.run, work.slug, {"name": "far/go", "data": {}})
    assert (outcome.status, outcome.output) == ("COMPLETED", "done")
    assert caplog.text.count("the server does not take its progress") == 1
    asked = len(server.requests)
    await asyncio.to_thread(server.run, work.slug, {"name": "far/go", "data": {}})
    assert not [path for _, path, _ in server.requests[asked:] if path.endswith("/metadata")], "it is asked once"
