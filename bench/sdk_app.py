"""An application on the official Python SDK, as its users run it: FastAPI under uvicorn. Started by `http_sdk`.

Usage: python -m bench.sdk_app PORT HOLDFAST_URL
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import fastapi
import inngest
import inngest.fast_api
import uvicorn


def application(url: str) -> fastapi.FastAPI:
    """The application; `/seen` tells how often it was called, and when a function reached its first line last."""
    quiet = logging.getLogger("bench.sdk")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    client = inngest.Inngest(
        app_id="bench", api_base_url=url, event_api_base_url=url, is_production=False, logger=quiet
    )
    seen: dict[str, Any] = {"calls": 0, "lines": 0, "line_at": 0.0}

    def on(name: str) -> inngest.TriggerEvent:
        return inngest.TriggerEvent(event=f"bench/{name}")

    @client.create_function(fn_id="line", trigger=on("line"))
    async def line(ctx: inngest.Context) -> None:
        seen["line_at"] = time.time()
        seen["lines"] += 1

    @client.create_function(fn_id="one", trigger=on("one"))
    async def one(ctx: inngest.Context) -> None:
        await ctx.step.run("step", _nothing)

    @client.create_function(fn_id="ten", trigger=on("ten"))
    async def ten(ctx: inngest.Context) -> None:
        for number in range(10):
            await ctx.step.run(f"step {number}", _nothing)

    web = fastapi.FastAPI()

    @web.middleware("http")
    async def count(request: fastapi.Request, call_next: Any) -> Any:
        seen["calls"] += request.method == "POST"
        return await call_next(request)

    @web.get("/seen")
    async def tell() -> dict[str, Any]:
        return seen

    inngest.fast_api.serve(web, client, [line, one, ten])
    return web


async def _nothing() -> None:
    return None


if __name__ == "__main__":
    uvicorn.run(application(sys.argv[2]), port=int(sys.argv[1]), log_level="warning", access_log=False)
