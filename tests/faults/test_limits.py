"""Limits at one byte less, exactly, and one byte more; many at once; and what was sent to burst them."""

from __future__ import annotations

import asyncio
import gzip
import os
from typing import Any

import pytest

from holdfast import App, Context, EventInvalidError
from holdfast.base.limits import MAX_EVENT_BYTES, MAX_JSON_DEPTH, MAX_NAME_LENGTH, MAX_STEP_OUTPUT_BYTES
from holdfast.compose import build_engine
from holdfast.engine.engine import EngineOptions
from holdfast.server.serve import serving
from holdfast.server.settings import ServerSettings
from holdfast.testing import AsyncHarness

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
LESS, EXACTLY, MORE = -1, 0, 1
AROUND = pytest.mark.parametrize("by", [LESS, EXACTLY, MORE])


def sized(app: App, where: str) -> Any:
    @app.function("limits/go", id="sized", retries=0)
    async def function(ctx: Context[Any]) -> Any:
        text = "x" * ctx.event.data["characters"]  # with its quotes, two bytes more
        if where == "result":
            return text
        if where == "nested":
            return await ctx.step.run("make", lambda: {"a": [text[:-8]]})
        return len(await ctx.step.run("make", lambda: text))

    return function


@AROUND
@pytest.mark.parametrize("where", ["step", "result", "nested"])
async def test_what_a_step_or_function_returns(where, by):
    app = App("limits")
    function = sized(app, where)
    async with AsyncHarness(app) as harness:
        run = await harness.run(function, {"characters": MAX_STEP_OUTPUT_BYTES - 2 + by})
        assert run.status == ("FAILED" if by == MORE else "COMPLETED"), run.error
        if by == MORE:
            assert run.error.name in {"NotSerializableError", "StepError"}
            for part in (f"{MAX_STEP_OUTPUT_BYTES + 1} bytes", f"{MAX_STEP_OUTPUT_BYTES} are allowed", "store it elsewhere"):
                assert part in run.error.message
        after = await harness.run(function, {"characters": 9})
        assert after.status == "COMPLETED", "and the next run is as good as ever"


@AROUND
async def test_an_event_that_is_sent_in_process(by):
    app = App("limits")
    got: list[int] = []

    @app.function("limits/go", id="fn")
    async def fn(ctx: Context[Any]) -> int:
        got.append(len(ctx.event.data["a"]))
        return 1

    async with AsyncHarness(app) as harness:
        around = len('{"name":"limits/go","data":{"a":""}}')
        accepted = None
        for slack in range(200):  # the envelope counts too: find the largest that fits
            try:
                await app.send({"name": "limits/go", "data": {"a": "x" * (MAX_EVENT_BYTES - around + 100 - slack)}})
            except EventInvalidError as error:
                assert f"{MAX_EVENT_BYTES}" in str(error).replace(",", "") or "max size" in str(error), error
                assert error.status in {400, 413}
            else:
                accepted = MAX_EVENT_BYTES - around + 100 - slack
                break
        assert accepted is not None
        text = "x" * (accepted + by)
        if by == MORE:
            with pytest.raises(EventInvalidError):
                await app.send({"name": "limits/go", "data": {"a": text}})
        else:
            await app.send({"name": "limits/go", "data": {"a": text}})
            await harness.settle()
            assert len(text) in got


@AROUND
@pytest.mark.parametrize("character", ["n", "é"])
async def test_names_of_events(by, character):
    app = App("limits", events=None)
    name = character * (MAX_NAME_LENGTH + by)
    async with AsyncHarness(app):
        if by == MORE:
            with pytest.raises(EventInvalidError, match=f"longer than {MAX_NAME_LENGTH} characters"):
                await app.send({"name": name})
        else:
            await app.send({"name": name})


@AROUND
async def test_depth_of_results(by):
    app = App("limits")

    @app.function("limits/go", id="fn", retries=0)
    async def fn(ctx: Context[Any]) -> int:
        value: Any = 1
        for _ in range(ctx.event.data["depth"]):
            value = [value]
        await ctx.step.run("make", lambda: value)
        return 1

    async with AsyncHarness(app) as harness:
        run = await harness.run(fn, {"depth": MAX_JSON_DEPTH + by})
        assert run.status == ("FAILED" if by == MORE else "COMPLETED")
        if by == MORE:
            assert f"nested deeper than {MAX_JSON_DEPTH} levels" in run.error.message


async def fan_out(tmp_path, width: int, seconds: float) -> None:
    """One event starts a function that starts as many runs, each of which is done once."""
    app = App("fan")
    seen: dict[int, int] = {}

    @app.function("fan/child", id="child")
    async def child(ctx: Context[Any]) -> None:
        n = ctx.event.data["n"]

        async def body() -> int:
            seen[n] = seen.get(n, 0) + 1
            return n

        await ctx.step.run("one", body)

    @app.function("fan/out", id="out")
    async def out(ctx: Context[Any]) -> int:
        for begin in range(0, width, 5000):
            events = [{"name": "fan/child", "data": {"n": n}} for n in range(begin, min(begin + 5000, width))]
            await ctx.step.send(f"from {begin}", events)
        return width

    async with build_engine([app], f"sqlite:///{tmp_path}/x.db", options=EngineOptions(capacity=500)) as engine:
        await app.send({"name": "fan/out"})
        async with asyncio.timeout(seconds):
            while len(seen) < width or engine.live:
                await asyncio.sleep(0.05)
    assert set(seen) == set(range(width))
    assert set(seen.values()) == {1}


async def test_a_fan_out_of_thousands(tmp_path):
    await fan_out(tmp_path, 10_000, 100)


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_a_fan_out_of_a_hundred_thousand(tmp_path):
    await fan_out(tmp_path, 100_000, 1700)


async def test_a_compressed_bomb_is_refused_unopened(tmp_path):
    import httpx

    bomb = gzip.compress(b'{"name":"a","data":{"x":"' + b"0" * 50_000_000 + b'"}}', 9)
    assert len(bomb) < 60_000
    async with build_engine([App("limits")], f"sqlite:///{tmp_path}/x.db") as engine:
        async with serving(engine, ServerSettings(port=0)) as where, httpx.AsyncClient(base_url=where.url, trust_env=False) as http:
            before = resident()
            for path in ("/e/k", "/fn/register", "/v0/gql", "/v1/runs/01ARZ3NDEKTSV4RRFFQ69G5FAV/rerun", "/v1/signals"):
                for encoding in ("gzip", "deflate", "br", "zstd", "gzip, identity"):
                    answer = await http.post(path, content=bomb, headers={"content-encoding": encoding, "content-type": "application/json"})
                    assert answer.status_code in {400, 413, 415}, (path, encoding, answer.text)
            assert resident() - before < 40_000_000
            assert (await http.post("/e/k", json={"name": "a"})).status_code == 200


def resident() -> int:
    """Bytes of memory that this process has now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
