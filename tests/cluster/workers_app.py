"""An app whose bodies write down which process executes them. `WORKERS_LEDGER` is where; a file beside it lets slow ones go on."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from holdfast import App, Context, Event, SyncContext


class Work(Event, name="workers/work"):
    n: int


class Slow(Event, name="workers/slow"):
    n: int


class Poison(Event, name="workers/poison"):
    n: int


class Told(Event, name="workers/told"):
    n: int


def note(word: str, n: int) -> int:
    """One line; the process's id."""
    with Path(os.environ["WORKERS_LEDGER"]).open("a") as file:
        file.write(f"{word} {n} {os.getpid()}\n")
    return os.getpid()


@asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[str]:
    note("opened", 0)
    yield "resource"
    note("closed", 0)


app = App("workers", retries=0, lifespan=lifespan)


@app.function(Work)
def work(ctx: SyncContext[Work]) -> int:
    assert ctx.resources == "resource"

    def body(n: int) -> int:
        note("work", n)
        time.sleep(0.05)
        return os.getpid()

    pid = ctx.step.run("body", body, ctx.event.data.n)
    ctx.step.sleep("nap", 0.01)
    return pid


@app.function(Slow)
async def slow(ctx: Context[Slow]) -> list[int]:
    n = ctx.event.data.n

    def body() -> int:
        pid = note("begin", n)
        while not Path(os.environ["WORKERS_LEDGER"] + ".go").exists():
            time.sleep(0.02)
        note("end", n)
        return pid

    async def tell() -> None:
        await app.send(Told(n=n))

    before = await ctx.step.run("before", note, "before", n)
    pid = await ctx.step.run("slow", body)
    await ctx.step.run("tell", tell)
    return [before, pid]


@app.function(Told)
async def told(ctx: Context[Told]) -> None:
    await ctx.step.run("note", note, "told", ctx.event.data.n)


@app.function(Poison)
async def poison(ctx: Context[Poison]) -> None:
    await ctx.step.run("die", lambda: os._exit(note("dying", ctx.event.data.n) & 0 or 7))
