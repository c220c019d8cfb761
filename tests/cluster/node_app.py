"""A node of its own process: `python node_app.py <store url> <ledger>`. Executes until its input ends."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from holdfast import App, Concurrency, Context, Event
from holdfast.compose import build_engine
from holdfast.engine.engine import EngineOptions


class Go(Event, name="cluster/go"):
    n: int
    seconds: float = 0.0


class Wanted(Event, name="cluster/wanted"):
    n: int


class Came(Event, name="cluster/came"):
    n: int


class Narrow(Event, name="cluster/narrow"):
    n: int


class Told(Event, name="cluster/told"):
    n: int


def make_app(ledger: Path | None = None) -> App:
    app = App("cluster")

    def note(word: str, n: int) -> None:
        if ledger is not None:
            with ledger.open("a") as file:
                file.write(f"{word} {n} {os.getpid()}\n")

    @app.function(Go)
    async def work(ctx: Context[Go]) -> int:
        async def body(n: int, seconds: float) -> int:
            note("begin", n)
            try:
                await asyncio.sleep(seconds)
            except asyncio.CancelledError:
                note("cancelled", n)
                raise
            note("end", n)
            return os.getpid()

        return await ctx.step.run("body", body, ctx.event.data.n, ctx.event.data.seconds)

    @app.function(Wanted)
    async def wait(ctx: Context[Wanted]) -> int:
        n = ctx.event.data.n
        await ctx.step.run("before", lambda: note("waiting", n))
        came = await ctx.step.wait_for_event("came", Came, where={"n": n}, timeout="5m")
        await ctx.step.run("after", lambda: note("came", n))
        return 0 if came is None else came.data.n

    @app.function(Told)
    async def tell(ctx: Context[Told]) -> int:
        ctx.progress(0.5, f"half of {ctx.event.data.n}")
        await ctx.step.wait_for_event("came", Came, where={"n": ctx.event.data.n}, timeout="5m")
        return os.getpid()

    @app.function(Narrow, concurrency=Concurrency(2))
    async def narrow(ctx: Context[Narrow]) -> None:
        async def body(n: int) -> None:
            note("in", n)
            await asyncio.sleep(0.02)
            note("out", n)

        await ctx.step.run("body", body, ctx.event.data.n)

    return app


async def main(url: str, ledger: str) -> None:
    engine = build_engine([make_app(Path(ledger))], url, options=EngineOptions(capacity=4, claim_batch=2))
    async with engine:
        print("ready", engine.store.boot, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
