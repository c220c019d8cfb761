"""Every kind of step keeps the types of what it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from sqlite3 import Connection
from typing import Any, assert_type

from holdfast import (
    App,
    Backoff,
    Context,
    Database,
    Event,
    FunctionRef,
    ReceivedEvent,
    RetryPresets,
    StepCall,
    StepError,
    SyncContext,
)

app = App("shop")


class Paid(Event, name="shop/paid"):
    order_id: str
    amount: int = 0


class Shipped(Event, name="shop/shipped"):
    order_id: str
    parcel: int | None = None


@dataclass
class Receipt:
    number: str


class Gateway:
    async def charge(self, order_id: str, *, amount: int = 0) -> Receipt:
        return Receipt(order_id)

    def lookup(self, order_id: str) -> dict[str, int]:
        return {order_id: 1}


async def charge(order_id: str, amount: int) -> str:
    return order_id * amount


def pack(order_id: str) -> int:
    return len(order_id)


async def nothing() -> None: ...


shop = Database("sqlite:///shop.db")


def add_points(connection: Connection, customer: str, points: int) -> int:
    return points


async def add_points_later(connection: Connection, customer: str) -> str:
    return customer


def awaitable(text: str) -> Awaitable[bytes]:
    raise NotImplementedError(text)


@app.function(Shipped)
async def child(ctx: Context[Shipped]) -> list[Receipt]:
    return []


@app.function(Paid)
async def steps(ctx: Context[Paid]) -> None:
    step = ctx.step
    order_id = ctx.event.data.order_id
    gateway = Gateway()
    assert_type(step.run("charge", charge, order_id, 1), StepCall[str])
    assert_type(await step.run("charge", charge, order_id, amount=1), str)
    assert_type(await step.run("pack", pack, order_id), int)
    assert_type(await step.run("nothing", nothing), None)
    assert_type(step.transaction("points", shop, add_points, order_id, points=1), StepCall[int])
    assert_type(await step.transaction("points", "default", add_points_later, order_id), str)
    assert_type(await step.run("awaitable", awaitable, "x"), bytes)
    assert_type(await step.run("method", gateway.charge, order_id, amount=3), Receipt)
    assert_type(await step.run("sync-method", gateway.lookup, order_id), dict[str, int])
    assert_type(await step.run("partial", partial(charge, order_id), 1), str)
    assert_type(await step.run("lambda", lambda: 5), int)
    assert_type(await step.run("class", Receipt, "r1"), Receipt)
    assert_type(await step.options(retries=5, timeout="30s", backoff=Backoff.constant(1)).run("o", pack, order_id), int)
    assert_type(await step.options(retries=RetryPresets.ai_api).run("p", charge, order_id, 1), str)

    charged, packed = await asyncio.gather(step.run("a", charge, order_id, 1), step.run("b", pack, order_id))
    assert_type(charged, str)
    assert_type(packed, int)
    a, b, c, d = await asyncio.gather(
        step.run("c", charge, order_id, 1),
        step.sleep("d", "1h"),
        step.invoke("e", child, Shipped(order_id=order_id)),
        step.wait_for_event("f", Shipped, timeout="1d"),
    )
    assert_type(a, str)
    assert_type(b, None)
    assert_type(c, list[Receipt])
    assert_type(d, ReceivedEvent[Shipped] | None)
    numbers = await asyncio.gather(*[step.run(f"n-{n}", pack, order_id) for n in range(3)])
    assert_type(numbers, list[int])

    async with asyncio.TaskGroup() as group:
        task = group.create_task(step.run("t", charge, order_id, 1))
        other = group.create_task(step.run("u", pack, order_id))
    assert_type(task.result(), str)
    assert_type(other.result(), int)

    await step.sleep("cool-off", timedelta(seconds=1))
    await step.sleep_until("morning", datetime(2030, 1, 1, tzinfo=UTC))
    shipped = await step.wait_for_event("shipped", Shipped, where={"order_id": order_id}, timeout=timedelta(days=7))
    assert_type(shipped, ReceivedEvent[Shipped] | None)
    if shipped is not None:
        assert_type(shipped.data.parcel, int | None)
        assert_type(shipped.time, datetime)
    by_name = await step.wait_for_event("by-name", "shop/shipped", match="data.order_id", timeout="1d", since="run")
    assert_type(by_name, ReceivedEvent[Any] | None)

    assert_type(await step.invoke("ref", FunctionRef("billing/charge", Paid, str), Paid(order_id=order_id)), str)
    assert_type(await step.send("one", Shipped(order_id=order_id)), list[str])
    assert_type(await step.send("many", [Shipped(order_id=order_id), {"name": "x", "data": {}}]), list[str])
    first = await step.race("first", step.run("left", pack, order_id), step.run("right", pack, order_id))
    assert_type(first, int)
    mixed = await step.race("mixed", step.run("l", pack, order_id), step.run("r", charge, order_id, 1))
    assert_type(mixed, int | str)
    timed = await step.race("timed", step.run("w", pack, order_id), step.sleep("limit", "1h"))
    assert_type(timed, int | None)
    assert_type(await ctx.now(), datetime)
    try:
        await step.run("fails", nothing)
    except StepError as error:
        assert_type(error.matches(ValueError, KeyError), bool)


@app.function(Paid)
def sync_steps(ctx: SyncContext[Paid]) -> str:
    step = ctx.step
    order_id = ctx.event.data.order_id
    assert_type(step.run("pack", pack, order_id), int)
    assert_type(step.run("charge", charge, order_id, 1), str)
    assert_type(step.options(retries=1).run("pack", pack, order_id), int)
    step.sleep("nap", "1s")
    step.sleep_until("morning", "2030-01-01T00:00:00Z")
    assert_type(step.wait_for_event("w", Shipped, timeout="1d"), ReceivedEvent[Shipped] | None)
    assert_type(step.invoke("child", child, Shipped(order_id=order_id)), list[Receipt])
    assert_type(step.send("send", {"name": "x"}), list[str])
    assert_type(ctx.now(), datetime)
    return order_id


@app.function(Paid, id="signals")
async def signals(ctx: Context[Paid]) -> None:
    step = ctx.step
    assert_type(await step.wait_for_signal("a", "approve", type=Receipt, timeout="1d"), Receipt | None)
    assert_type(await step.wait_for_signal("b", "approve", type=str, timeout=5, on_conflict="replace"), str | None)
    assert_type(await step.wait_for_signal("c", "approve", timeout=timedelta(days=1)), Any)
    assert_type(await step.send_signal("d", "approve", Receipt("1")), str | None)
    assert_type(await step.send_signal("e", "approve", None), str | None)
    one, two = await asyncio.gather(
        step.wait_for_signal("f", "x", type=Receipt, timeout=1), step.send_signal("g", "y", {"z": 1})
    )
    assert_type(one, Receipt | None)
    assert_type(two, str | None)
    assert_type(await app.send_signal("approve", {"by": "me"}), str | None)


@app.function(Paid, id="plain-signals")
def plain_signals(ctx: SyncContext[Paid]) -> None:
    assert_type(ctx.step.wait_for_signal("a", "approve", type=Receipt, timeout="1d"), Receipt | None)
    assert_type(ctx.step.wait_for_signal("b", "approve", timeout="1d"), Any)
    assert_type(ctx.step.send_signal("c", "approve", 1), str | None)
