"""What must not type-check in declaring, sending and starting. Each line that is marked must be an error, and no other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from holdfast import App, Backoff, Context, Cron, CronTick, Event, FunctionRef, On, RetryPolicy


class Paid(Event, name="shop/paid"):
    order_id: str
    amount: int = 0


class Shipped(Event, name="shop/shipped"):
    order_id: str


class NotAnEvent:
    order_id: str = ""


app = App("shop")
no_id = App()  # error
strange = App("shop", event=[Paid])  # error
wrong_events = App("shop", events=[NotAnEvent])  # error

missing = Paid()  # error
misspelt = Paid(order_id="o1", amout=5)  # error
wrong_type = Paid(order_id="o1", amount="5")  # error
positional = Paid("o1")  # error


@app.function(Paid)  # error
async def wrong_context(ctx: Context[Shipped]) -> None: ...


@app.function(Paid)  # error
async def not_a_context(ctx: Paid) -> None: ...


@app.function(Paid)  # error
def plain_def_with_async_context(ctx: Context[Paid]) -> None: ...


@app.function(Paid)  # error
async def two_arguments(ctx: Context[Paid], order_id: str) -> None: ...


@app.function(Paid)  # error
async def generator(ctx: Context[Paid]) -> AsyncIterator[int]:
    yield 1


@app.function(Paid, Shipped)  # error
async def too_narrow(ctx: Context[Paid]) -> None: ...


@app.function(Cron("@hourly"))  # error
async def cron_has_ticks(ctx: Context[Paid]) -> None: ...


@app.function(Paid, Cron("@hourly"))  # error
async def cron_and_event(ctx: Context[CronTick]) -> None: ...


@app.function(On(Paid, if_="event.data.amount > 5"))  # error
async def conditional(ctx: Context[Shipped]) -> None: ...


@app.function(NotAnEvent)  # error
async def not_an_event(ctx: Context[Any]) -> None: ...


@app.function(Paid, retrys=3)  # error
async def unknown_setting(ctx: Context[Paid]) -> None: ...


@app.function(Paid, retries="3")  # error
async def wrong_setting(ctx: Context[Paid]) -> None: ...


@app.function(Paid, backoff="1s")  # error
async def wrong_backoff(ctx: Context[Paid]) -> None: ...


async def not_a_handler(ctx: Context[Paid]) -> None: ...


@app.function(Paid, on_failure=not_a_handler)  # error
async def wrong_handler(ctx: Context[Paid]) -> None: ...


@app.function(Paid)
async def good(ctx: Context[Paid]) -> str:
    ctx.event.data.order  # error
    ctx.event.amount  # error
    return ctx.event.data.amount  # error


Cron(5)  # error
Cron("@daily", catch_up="never")  # error
Cron("@daily", "UTC", "30s")  # error
Cron("@daily", jitter=None, catch_up_limit="ten")  # error
RetryPolicy(5)  # error
Backoff.exponential(jitter="sometimes")  # error
Backoff.exponential(base=None)  # error


async def main() -> None:
    await app.send("shop/paid")  # error
    await app.send(Paid)  # error
    await app.send(Paid(order_id="o1"), ident="x")  # error
    await app.send(Paid(order_id="o1"), id=5)  # error
    await app.send_many(Paid(order_id="o1"))  # error
    await app.start(good, Shipped(order_id="o1"))  # error
    await app.start("good", Paid(order_id="o1"))  # error
    handle = await app.start(good, Paid(order_id="o1"))
    number: int = await handle.result()  # error
    print(number)
    FunctionRef("billing/charge", NotAnEvent, str)  # error
