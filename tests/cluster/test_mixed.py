"""The ways to run holdfast, side by side on one database: `holdfast start`, `holdfast dev`, and an engine within the application."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from commandline import Cli

from holdfast import App, Context, Event
from holdfast.compose import build_engine
from holdfast.engine.engine import EngineOptions

pytestmark = pytest.mark.anyio

KEYS = {"INNGEST_EVENT_KEY": "canary-event-key-0123456789abcdef", "INNGEST_SIGNING_KEY": "signkey-prod-" + "c0ffee" * 10 + "cafe"}
APP = """
import os
from holdfast import App, Context, Event

app = App("mixed")

class Go(Event, name="mixed/go"):
    n: int

@app.function(Go)
async def work(ctx: Context[Go]) -> str:
    async def body() -> str:
        return os.environ["MIXED_NAME"]
    return await ctx.step.run("body", body)
"""


class Go(Event, name="mixed/go"):
    n: int


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """The command in a directory with the application; whatever it started is gone afterwards."""
    cli = Cli(tmp_path)
    cli.write("app.py", APP)
    yield cli
    for running in cli.started:
        running.kill()


async def test_start_dev_and_an_embedded_engine_share_the_work_and_each_may_leave(cli, postgres_url):
    app = App("mixed")

    @app.function(Go)
    async def work(ctx: Context[Go]) -> str:
        async def body() -> str:
            return "embedded"

        return await ctx.step.run("body", body)

    async with build_engine([app], postgres_url, options=EngineOptions(capacity=0)) as engine:
        started = cli.start("start", "app.py", "--host", "127.0.0.1", "--port", "0", "--store", postgres_url, **KEYS, MIXED_NAME="start")
        production = await asyncio.to_thread(started.url)
        developing = cli.start("dev", "app.py", "--port", "0", "--store", postgres_url, MIXED_NAME="dev")
        development = await asyncio.to_thread(developing.url)

        async def results(count: int) -> set[str]:
            handles = [await app.start(work, Go(n=n)) for n in range(count)]
            return {await handle.result(timeout=60) for handle in handles}

        # this one has no room: the two others do it, and its callers get the results
        assert await results(40) <= {"start", "dev"}
        async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
            for url, key in ((production, KEYS["INNGEST_EVENT_KEY"]), (development, "any")):
                answer = await client.post(f"{url}/e/{key}", json={"name": "mixed/go", "data": {"n": 1}})
                assert answer.status_code == 200, answer.text
            nodes = (await client.get(f"{development}/v1/nodes")).json()["data"]
            assert [node["state"] for node in nodes] == ["alive"] * 3
        listed = await asyncio.to_thread(cli.run, "nodes", "--url", development)
        assert (listed.code, listed.out.count("alive"), listed.out.count("leads")) == (0, 3, 1)
        assert await asyncio.to_thread(developing.end) == 0
        assert await results(5) == {"start"}
        engine.capacity = 100
        assert await asyncio.to_thread(started.end) == 0
        assert await results(5) == {"embedded"}
        assert {run.status async for run in engine.list_runs()} == {"COMPLETED"}
