"""Functions that take the process down with them, and ones that mean no harm."""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
from pathlib import Path
from typing import Any

from fault_ledger import Ledger
from fault_worker import rows, store_of
from holdfast import App, Backoff, Context, Event
from holdfast.compose import build_engine
from holdfast.engine.engine import EngineOptions

GOOD = 5


class Poison(Event, name="poison/taken"):
    pass


class Good(Event, name="poison/none"):
    n: int


def leave() -> None:
    os._exit(3)


def segfault() -> None:
    ctypes.string_at(0)


def out_of_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
    hoard = []
    while True:
        hoard.append(bytearray(1 << 26))


KINDS = {"leave": leave, "segfault": segfault, "out_of_memory": out_of_memory}


def make_app(ledger: Ledger, kind: str, *, in_step: bool) -> App:
    app = App("poison", retries=2, backoff=Backoff.constant(0.01))

    @app.function(Poison)
    async def poison(ctx: Context[Poison]) -> None:
        await ctx.step.run("fine", str, 1)
        ledger.write("poisoned", run=ctx.run_id)
        if in_step:
            await ctx.step.run("poison", KINDS[kind])
        else:
            KINDS[kind]()

    @app.function(Good)
    async def good(ctx: Context[Good]) -> int:
        n = ctx.event.data.n

        async def work(part: int) -> int:
            ledger.write("start", run=ctx.run_id, step=str(part))
            await asyncio.sleep(0.002)
            return n

        for part in range(3):
            await ctx.step.run(f"part-{part}", work, part)
        return n

    return app


async def main(config: dict[str, Any]) -> None:
    """One life: send everything, in the first; then go on until nothing is queued."""
    store = store_of(config)
    ledger = Ledger(Path(config["ledger"]))
    app = make_app(ledger, config["kind"], in_step=config["in_step"])
    async with build_engine([app], store, options=EngineOptions(max_crashes=3)) as engine:
        if not ledger.has("sent"):
            await app.send_many([Good(n=n) for n in range(GOOD)] + [Poison()])
            ledger.write("sent")
            await app.send_many([Good(n=n) for n in range(GOOD)])
            ledger.write("sent more")
        while rows(store, "SELECT count(*) FROM queue") != [(0,)]:
            await engine.idle()
            await asyncio.sleep(0.01)
