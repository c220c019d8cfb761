"""The server is killed while functions on the official SDK sleep, wait, retry and run; all go on when it is back."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import fastapi
import inngest
import inngest.fast_api
import pytest
from live_server import output_of, until
from ports import free_port
from served import Uvicorn
from watched import Watched


@pytest.fixture
def interrupted():
    """An application whose functions are under way for a while."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    client = inngest.Inngest(app_id="kill", api_base_url=url, event_api_base_url=url, is_production=False)
    seen, gate = Watched(), asyncio.Event()

    def function(name, **options):
        return client.create_function(fn_id=name, trigger=inngest.TriggerEvent(event=f"kill/{name}"), **options)

    async def once(ctx, name):
        return seen.note(ctx.run_id, name)

    @function("sleeps")
    async def sleeps(ctx):
        await ctx.step.run("before", lambda: once(ctx, "before"))
        await ctx.step.sleep("nap", timedelta(seconds=3))
        return await ctx.step.run("after", lambda: once(ctx, "after"))

    @function("waits")
    async def waits(ctx):
        await ctx.step.run("before", lambda: once(ctx, "before"))
        event = await ctx.step.wait_for_event("reply", event="kill/reply", timeout=timedelta(minutes=5))
        return event.data["n"]

    @function("retries", retries=5)
    async def retries(ctx):
        async def body():
            await once(ctx, ctx.attempt)
            if not gate.is_set():
                raise ConnectionError("down")
            return "mended"

        return await ctx.step.run("flaky", body)

    @function("runs")
    async def runs(ctx):
        async def body():
            await once(ctx, "begun")
            await asyncio.sleep(1.5 if len(seen.notes[ctx.run_id]) == 1 else 0)
            return "done"

        return await ctx.step.run("long", body)

    @function("parallel")
    async def parallel(ctx):
        async def body(name, seconds):
            await once(ctx, name)
            await asyncio.sleep(seconds)
            return name

        return list(await ctx.group.parallel((
            lambda: ctx.step.run("quick", lambda: body("quick", 0)),
            lambda: ctx.step.run("slow", lambda: body("slow", 1.5)),
            lambda: ctx.step.sleep("nap", timedelta(seconds=3)),
        )))  # fmt: skip

    web = fastapi.FastAPI()
    inngest.fast_api.serve(web, client, [sleeps, waits, retries, runs, parallel])
    seen.app = web
    served = Uvicorn(seen)
    yield port, served.url + "/api/inngest", seen, gate
    served.stop()


@pytest.mark.protocol("run.restart")
def test_runs_go_on_after_the_server_was_killed(interrupted, start_holdfast, tmp_path):
    port, app_url, seen, gate = interrupted
    options = {"port": port, "store": "sqlite:///kill.db", "directory": tmp_path}
    server = start_holdfast("-u", app_url, "--retry-interval", "1", **options)
    server.wait_for_app("kill")
    names = ("sleeps", "waits", "retries", "runs", "parallel")
    ids = {name: server.started(server.send(f"kill/{name}")) for name in names}
    server.waiting(ids["sleeps"], "nap")
    server.waiting(ids["waits"], "reply")
    until(lambda: seen.notes.get(ids["retries"]), "the step has failed")
    until(lambda: seen.notes.get(ids["runs"]), "the step runs")
    until(lambda: server.waiting(ids["parallel"], "quick")["state"] == "done" and "slow" in seen.notes[ids["parallel"]], "branches")
    server.running.kill()
    gate.set()

    server = start_holdfast("-u", app_url, "--retry-interval", "1", **options)
    server.send("kill/reply", {"n": 7})
    assert {name: output_of(server.ended(run_id)) for name, run_id in ids.items()} == {
        "sleeps": "after", "waits": 7, "retries": "mended", "runs": "done", "parallel": ["quick", "slow", None],
    }  # fmt: skip
    assert seen.notes[ids["sleeps"]] == ["before", "after"]
    assert seen.notes[ids["waits"]] == ["before"]
    assert seen.notes[ids["parallel"]].count("quick") == 1
    attempts = seen.notes[ids["retries"]]
    assert attempts == sorted(attempts)
    assert seen.notes[ids["runs"]] == ["begun", "begun"]
    assert server.running.end() == 0
