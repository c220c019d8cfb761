"""An application under load: `python load_app.py <store url>` sends events as fast as they are taken, and says which were."""

from __future__ import annotations

import asyncio
import itertools
import sys
import uuid

from holdfast import App, Context, Event


class Order(Event, name="load/order"):
    n: int


class Packed(Event, name="load/packed"):
    n: int


def make_app() -> App:
    app = App("load")

    def once() -> str:
        return uuid.uuid4().hex

    @app.function(Order)
    async def fulfil(ctx: Context[Order]) -> str:
        first = await ctx.step.run("first", once)
        await ctx.step.sleep("a bit", 0.05)
        await ctx.step.send("packed", Packed(n=ctx.event.data.n))
        return first + (await ctx.step.run("second", once))

    @app.function(Packed, concurrency=3)
    async def note(ctx: Context[Packed]) -> int:
        await ctx.step.run("note", once)
        return ctx.event.data.n

    return app


async def main(url: str) -> None:
    app = make_app()
    async with app.running(store=url):
        for n in itertools.count():
            await app.send(Order(n=n), id=f"order-{n}")
            print("taken", n, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
