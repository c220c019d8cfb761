"""Triggers, contexts and results: every type is known to the checker."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, assert_type

from pydantic import ConfigDict
from pydantic.alias_generators import to_camel

from holdfast import (
    App,
    Backoff,
    Context,
    Cron,
    CronTick,
    Event,
    Function,
    FunctionCancelled,
    FunctionFailed,
    FunctionFinished,
    FunctionRef,
    Middleware,
    On,
    ReceivedEvent,
    RetryPresets,
    RunHandle,
    Sent,
    SyncContext,
)


class Paid(Event, name="shop/paid"):
    order_id: str
    amount: int = 0


class Shipped(Event, name="shop/shipped"):
    order_id: str


class Returned(Event, name="shop/returned"):
    order_id: str
    reason: str | None = None


class Camel(Event, name="email/purchase-confirmation"):
    model_config = ConfigDict(alias_generator=to_camel)

    order_id: str
    customer_email: str


app = App("shop", events=[Paid, Shipped, Returned, Camel], retries=2, backoff=Backoff.exponential("1s", jitter="none"))


@app.function(Paid)
async def one(ctx: Context[Paid]) -> str:
    assert_type(ctx.event, ReceivedEvent[Paid])
    assert_type(ctx.event.data.amount, int)
    assert_type(ctx.events[0].data, Paid)
    assert_type(ctx.run_id, str)
    return ctx.event.data.order_id


assert_type(one, Function[Paid, str])


@app.function(Paid, Shipped)
async def two(ctx: Context[Paid | Shipped]) -> int:
    data = ctx.event.data
    assert_type(data, Paid | Shipped)
    if isinstance(data, Paid):
        return data.amount
    return len(data.order_id)


assert_type(two, Function[Paid | Shipped, int])


@app.function(Paid, Shipped, Returned)
async def three(ctx: Context[Paid | Shipped | Returned]) -> None:
    assert_type(ctx.event.data.order_id, str)


assert_type(three, Function[Paid | Shipped | Returned, None])


@app.function(Paid, Shipped, Returned, Camel)
async def four(ctx: Context[Paid | Shipped | Returned | Camel]) -> None:
    assert_type(ctx.event.data.order_id, str)


@app.function(Cron("0 9 * * mon-fri", tz="Europe/Paris"))
async def nightly(ctx: Context[CronTick]) -> None:
    assert_type(ctx.event.data.cron, str)


@app.function(Paid, Cron("@hourly"))
async def either(ctx: Context[Paid | CronTick]) -> None:
    assert_type(ctx.event.data, Paid | CronTick)


@app.function(Cron("@hourly"), Cron("@daily"))
def crons(ctx: SyncContext[CronTick]) -> None:
    assert_type(ctx.event.data, CronTick)


@app.function(On(Paid, if_="event.data.amount > 100"))
async def large(ctx: Context[Paid]) -> int:
    return ctx.event.data.amount


assert_type(large, Function[Paid, int])


@app.function(On(Paid, if_="event.data.amount > 100"), On(Shipped))
async def large_or_shipped(ctx: Context[Paid | Shipped]) -> None:
    assert_type(ctx.event.data, Paid | Shipped)


@app.function("shop/*")
async def everything(ctx: Context[Any]) -> str:
    name: str = ctx.event.name
    return name + str(ctx.event.data["order_id"])


assert_type(everything, Function[Any, str])


@app.function("shop/paid", "shop/shipped")
def by_name(ctx: SyncContext[Any]) -> None:
    print(ctx.event.data)


@app.function(Paid)
async def wider_than_needed(ctx: Context[Paid | Shipped]) -> None:
    """A function that can take more than its trigger sends is fine."""


@app.function(Paid, id="plain-def")
def plain(ctx: SyncContext[Paid]) -> list[str]:
    total = ctx.step.run("sum", sum, [1, 2, 3])
    assert_type(total, int)
    return [str(total)]


assert_type(plain, Function[Paid, list[str]])


async def handler(ctx: Context[FunctionFailed]) -> None:
    assert_type(ctx.event.data.run_id, str)


def sync_handler(ctx: SyncContext[FunctionFailed]) -> None:
    assert_type(ctx.event.data.function_id, str)


@app.function(
    Shipped,
    id="all-settings",
    name="All settings",
    aliases=["former"],
    retries=RetryPresets.scraper,
    backoff=Backoff.table(),
    step_timeout=timedelta(minutes=5),
    on_failure=handler,
    middleware=[Middleware()],
)
async def settings(ctx: Context[Shipped]) -> None: ...


@app.function(Returned, on_failure=sync_handler, step_timeout="5m")
async def text_duration(ctx: Context[Returned]) -> None: ...


remote = FunctionRef("billing/charge", Paid, str)
assert_type(remote, FunctionRef[Paid, str])


async def main() -> None:
    sent = await app.send(Paid(order_id="o1", amount=5), id="payment-1")
    assert_type(sent, Sent)
    assert_type(sent.id, str)
    assert_type(await app.send({"name": "shop/paid", "data": {"order_id": "o1"}}), Sent)
    await app.send(Camel(order_id="o1", customer_email="a@example.org"))
    assert_type(await app.send_many([Paid(order_id="o1"), Shipped(order_id="o1"), {"name": "x"}]), list[Sent])
    assert_type(app.send_sync(Shipped(order_id="o1")), Sent)
    handle = await app.start(one, Paid(order_id="o1"))
    assert_type(handle, RunHandle[str])
    assert_type(await handle.result(timeout="1m"), str)
    assert_type(await (await app.start(two, Shipped(order_id="o1"))).result(), int)
    assert_type(await app.handle("01J", plain).result(), list[str])
    async for run in app.runs(status="FAILED", function=one, limit=5):
        assert_type(run.duration, timedelta | None)


@app.function(
    Cron("0 9 * * *", tz="Europe/Paris", jitter="30s", catch_up="all", catch_up_limit=10),
    Cron("@daily", jitter=timedelta(minutes=1), catch_up="skip"),
)
async def scheduled(ctx: Context[CronTick]) -> None:
    assert_type(ctx.event.data.fireAt, str)


@app.function(FunctionFinished, On(FunctionCancelled, if_="event.data.function_id == 'shop-one'"))
async def ended(ctx: Context[FunctionFinished | FunctionCancelled]) -> None:
    assert_type(ctx.event.data.correlation_id, str | None)
