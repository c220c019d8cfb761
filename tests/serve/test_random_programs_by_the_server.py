"""The functions made at random, called by holdfast's own server: they come to their end, and every call sees what the last one saw."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from test_random_programs_over_http import Asked, Go, Interpreter, program

from holdfast import App, Backoff, Context
from holdfast.server.serve import serving
from holdfast.server.settings import ServerSettings
from holdfast.testing import Harness

pytestmark = pytest.mark.anyio


async def play(seeds: range, served_by: Any) -> None:
    app = App("random")
    executions: dict[int, list[list[str]]] = {}
    tries: dict[int, dict[str, int]] = {}

    @app.function(Asked)
    async def callee(ctx: Context[Asked]) -> int:
        await ctx.step.sleep("nap", timedelta(seconds=ctx.event.data.n))
        return ctx.event.data.n + 1

    @app.function(Go, retries=3, backoff=Backoff.constant(1))
    async def fn(ctx: Context[Go]) -> list[str]:
        seed = ctx.event.data.seed
        interpreter = Interpreter(ctx, callee, tries.setdefault(seed, {}))
        executions.setdefault(seed, []).append(interpreter.trace)
        await interpreter.execute(program(random.Random(seed)), "p")
        return interpreter.trace

    hub = App("hub")
    async with (
        Harness(hub, start=datetime(2030, 1, 1, tzinfo=UTC), patience=60) as h,
        serving(h.engine, ServerSettings(port=0)) as where,
    ):
        await asyncio.to_thread(served_by, app, f"http://127.0.0.1:{where.port}")
        sent = {seed: await h.send({"name": "random/go", "data": {"seed": seed}}) for seed in seeds}
        await h.settle()
        for seed, event in sent.items():
            about = f"seed {seed}: {program(random.Random(seed))}"
            run = await h._read((await h.engine.reader.event_runs(event.id))[0].id)
            assert run.status == "COMPLETED", f"{about}\n{run.status} {run.error}"
            for trace in executions[seed]:
                assert run.output[: len(trace)] == trace, about
            assert all(count == 1 for name, count in tries[seed].items() if name.startswith("done ")), about


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 24, 8))
async def test_they_come_to_their_end(first: int, served_by: Any) -> None:
    await play(range(first, first + 8), served_by)
