"""A shop in a process of its own, which kills itself at one point: `python shop_process.py <database> <store> <point>`.

Two points are in code that only sends, the others in a process that runs the shop. With point `none` it goes on until all is
done, and prints what came of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any

import aiosqlite
import psycopg

from holdfast import App, Context, Database, Event, Middleware
from holdfast.compose import build_engine
from holdfast.core.relaying import Relay, TakeOutbox
from holdfast.engine.engine import EngineOptions

DATABASE, STORE, POINT = sys.argv[1:4]
OPEN = {"QUEUED", "RUNNING", "WAITING"}
ORDER = "INSERT INTO orders (name) VALUES ('{}')"


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Placed(Event, name="shop/order.placed"):
    order: str


class Charged(Event, name="shop/charged"):
    order: str


class Points(Middleware):
    async def around_step(self, ctx, step_id, call):
        value = await call()
        if POINT == "step committed":
            die()
        return value


app = App("shop", databases=[DATABASE], middleware=[Points()])
ended = asyncio.Event()


@app.function(Placed)
async def handle(ctx: Context[Placed]) -> str:
    if POINT not in {"step not committed", "step committed", "none"}:
        await asyncio.Event().wait()  # this process dies before it comes to that
    return await ctx.step.transaction("charge", Database(DATABASE), charge, ctx.event.data.order)


async def charge(connection: Any, order: str) -> str:
    await connection.execute(ORDER.format(order))
    await app.send(Charged(order=order), connection=connection)
    if POINT == "step not committed":
        die()
    return f"receipt of {order}"


@app.function(Charged)
async def ship(ctx: Context[Charged]) -> None:
    ended.set()


async def send() -> None:
    conn: Any = await connect()
    order = "o1" if POINT == "committed" else "never"
    await conn.execute(ORDER.format(f"{order}, placed"))
    await app.send(Placed(order=order), connection=conn)
    if POINT == "committed":
        await conn.commit()
    die()


async def connect() -> Any:
    if DATABASE.startswith("postgres"):
        return await psycopg.AsyncConnection.connect(DATABASE)
    return await aiosqlite.connect(DATABASE.removeprefix("sqlite:///"))


async def run() -> None:
    # whatever nobody is told of is found at the next start
    async with build_engine([app], STORE, options=EngineOptions(relay_every_ms=200)) as engine:
        group = engine.store.group

        def at(*plans: type) -> bool:
            return any(isinstance(plan, plans) for plan in group.committing)

        def before() -> None:
            if POINT == "not accepted" and at(Relay, TakeOutbox):
                die()

        def after() -> None:
            if POINT == "accepted" and at(Relay, TakeOutbox):
                die()

        group.before_commit, group.after_commit = before, after
        if POINT == "deleted":
            opened = engine.relays._outboxes[0]._opened
            delete = opened.delete_events
            opened.delete_events = lambda ids: (delete(ids), die())
        async with asyncio.timeout(60):
            await ended.wait()
            # what a dead process held is taken over only when its lease has ended
            while engine.relays.looking or any([run.status in OPEN async for run in engine.list_runs()]):
                await asyncio.sleep(0.01)
        found = [event.name async for event in names(engine)]
        print(json.dumps({"events": sorted(found), "runs": [run.status async for run in engine.list_runs()]}))


async def names(engine: Any):
    for view in (await engine.reader.events(limit=100))[0]:
        yield view


asyncio.run(send() if POINT in {"not committed", "committed"} else run())
