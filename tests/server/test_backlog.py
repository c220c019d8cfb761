"""P9: a handler that enqueues answers at once, however much is queued."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from holdfast import App, Context, Event
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

pytestmark = pytest.mark.anyio
CONCURRENT = 20
BOUND_SECONDS = 0.5


class Wanted(Event, name="backlog/wanted"):
    n: int


@asynccontextmanager
async def web_of(jobs: App) -> AsyncIterator[str]:
    """A web application whose handler enqueues, behind a real server on the engine's loop; its address."""

    async def enqueue(request: Request) -> JSONResponse:
        sent = await jobs.send(Wanted(n=int(request.path_params["n"])))
        return JSONResponse({"event": sent.id}, 202)

    web = Starlette(routes=[Route("/work/{n}", enqueue, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(web, port=0, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await serving


@pytest.mark.parametrize(
    "queued", [2_000, pytest.param(100_000, marks=pytest.mark.long)], ids=["two thousand", "a hundred thousand"]
)
async def test_p9_a_handler_that_enqueues_answers_while_everything_waits(tmp_path: Path, queued: int) -> None:
    app = App("backlog")
    done: list[int] = []

    @app.function(Wanted)
    async def work(ctx: Context[Wanted]) -> None:
        done.append(ctx.event.data.n)

    async with app.running(store=f"sqlite:///{tmp_path / 'backlog.db'}"):
        await app.pause(work)  # nothing is worked off meanwhile: each event waits behind all before it
        for start in range(0, queued, 1000):
            await app.send_many([Wanted(n=n) for n in range(start, start + 1000)])
        async with web_of(app) as url, httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
            seconds: list[float] = []

            async def ask(first: int) -> None:
                for n in range(first, first + 10):
                    began = time.monotonic()
                    answer = await client.post(f"/work/{queued + n}")
                    seconds.append(time.monotonic() - began)
                    assert answer.status_code == 202

            await asyncio.gather(*(ask(10 * one) for one in range(CONCURRENT)))
        assert len(seconds) == 10 * CONCURRENT
        assert done == [], "every answer came while all the work waited"
        if queued == 100_000:  # on a machine of its own, which the short one need not have
            assert sorted(seconds)[len(seconds) * 99 // 100 - 1] < BOUND_SECONDS
