"""What must not type-check in a function's body. Each line that is marked must be an error, and no other."""

from __future__ import annotations

import asyncio

from holdfast import App, Context, Event, FunctionRef, SyncContext

app = App("shop")


class Paid(Event, name="shop/paid"):
    order_id: str


class Shipped(Event, name="shop/shipped"):
    order_id: str


async def charge(order_id: str, amount: int) -> str:
    return order_id * amount


def pack(order_id: str) -> int:
    return len(order_id)


def add_points(connection: object, customer: str) -> int:
    return len(customer)


remote = FunctionRef("billing/charge", Paid, str)


@app.function(Shipped)
async def child(ctx: Context[Shipped]) -> str:
    return ctx.event.data.order_id


@app.function(Paid)
async def steps(ctx: Context[Paid]) -> None:
    step = ctx.step
    await step.run("charge", charge, "o1")  # error
    await step.run("charge", charge, "o1", "1")  # error
    await step.transaction("points", "default", add_points)  # error
    await step.transaction("points", "default", add_points, 1)  # error
    await step.run("charge", charge, "o1", amout=1)  # error
    await step.run("charge", charge("o1", 1))  # error
    await step.run(charge, "o1", 1)  # error
    await step.run(1, charge, "o1", 1)  # error
    wrong: int = await step.run("charge", charge, "o1", 1)  # error
    not_awaited: str = step.run("charge", charge, "o1", 1)  # error
    text, number = await asyncio.gather(step.run("a", charge, "o1", 1), step.run("b", pack, "o1"))
    number.upper()  # error
    text.bit_length()  # error
    await step.sleep("nap")  # error
    await step.sleep("nap", None)  # error
    await step.sleep_until("nap", None)  # error
    await step.wait_for_event("w", Shipped)  # error
    await step.wait_for_event("w", Shipped, timeout="1d", whre={"order_id": "o1"})  # error
    shipped = await step.wait_for_event("w", Shipped, timeout="1d")
    shipped.data.order_id  # error
    if shipped is not None:
        shipped.data.parcel  # error
    await step.invoke("c", child, Paid(order_id="o1"))  # error
    await step.invoke("c", child, {"order_id": "o1"})  # error
    await step.invoke("c", "child", Shipped(order_id="o1"))  # error
    await step.invoke("c", charge, Shipped(order_id="o1"))  # error
    result: int = await step.invoke("c", child, Shipped(order_id="o1"))  # error
    await step.invoke("c", remote, Shipped(order_id="o1"))  # error
    await step.send("s", "shop/paid")  # error
    await step.send("s", Paid)  # error
    await step.options(retry=5).run("x", pack, "o1")  # error
    await step.options(5).run("x", pack, "o1")  # error
    step.nothing  # error
    print(wrong, not_awaited, result)


@app.function(Paid)
def sync_steps(ctx: SyncContext[Paid]) -> None:
    ctx.step.run("charge", charge, "o1")  # error
    number: str = ctx.step.run("pack", pack, "o1")  # error
    ctx.step.wait_for_event("w", Shipped)  # error
    shipped = ctx.step.wait_for_event("w", Shipped, timeout="1d")
    shipped.data  # error
    ctx.step.race("r")  # error
    print(number)


@app.function(Paid, id="signals")
async def signals(ctx: Context[Paid]) -> None:
    step = ctx.step
    await step.wait_for_signal("a", "approve", type=str)  # error
    await step.wait_for_signal("b", "approve", timeout="1d", on_conflict="wait")  # error
    await step.wait_for_signal("c", Shipped, timeout="1d")  # error
    approved: int | None = await step.wait_for_signal("d", "approve", type=str, timeout="1d")  # error
    await step.send_signal("e", "approve")  # error
    await step.invoke("f", child, Shipped(order_id="o1"), cancel_with_parent="yes")  # error
    await app.send_signal("approve")  # error
