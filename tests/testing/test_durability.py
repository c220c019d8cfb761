"""`assert_durable`: silent on functions that survive each crash, and precise about those that don't."""

from __future__ import annotations

import asyncio
import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from holdfast import (
    App,
    Backoff,
    ConfigurationError,
    Context,
    Cron,
    CronTick,
    Event,
    NonRetriableError,
    StepError,
    SyncContext,
)
from holdfast.testing import AsyncHarness, NotDurableError, assert_durable

pytestmark = pytest.mark.anyio

START = datetime(2030, 1, 1, tzinfo=UTC)


class OrderPaid(Event, name="shop/order.paid"):
    order_id: str
    amount: int = 5


class OrderShipped(Event, name="shop/order.shipped"):
    order_id: str


class ReceiptWanted(Event, name="shop/receipt.wanted"):
    order_id: str


class Told(Event, name="shop/told"):
    order_id: str
    token: str = ""


ORDER = OrderPaid(order_id="o1")


def shop(bodies: list[str]) -> App:
    """Every kind of step, in parallel and in turn."""
    app = App("shop")

    async def charge(order_id: str, amount: int) -> str:
        bodies.append("charge")
        await asyncio.sleep(0)
        return f"charge-{order_id}"

    def pack(order_id: str) -> int:
        bodies.append("pack")
        return len(order_id)

    def flaky() -> str:
        bodies.append("flaky")
        if bodies.count("flaky") < 2:
            raise ConnectionResetError("line is bad")
        return "through"

    def refuse() -> None:
        raise NonRetriableError("no")

    @app.function(ReceiptWanted)
    async def make_receipt(ctx: Context[ReceiptWanted]) -> str:
        await ctx.step.sleep("print", "10s")
        return f"receipt for {ctx.event.data.order_id}"

    @app.function(Told)
    async def told(ctx: Context[Told]) -> str:
        return ctx.event.data.order_id

    @app.function(OrderPaid, retries=3, backoff=Backoff.constant(60))
    async def fulfil(ctx: Context[OrderPaid]) -> dict[str, object]:
        order = ctx.event.data
        ctx.logger.info("order %s", order.order_id)
        charge_id, parcel = await asyncio.gather(
            ctx.step.run("charge", charge, order.order_id, order.amount), ctx.step.run("pack", pack, order.order_id)
        )
        token = await ctx.step.run("token", lambda: uuid.uuid4().hex)
        await ctx.step.sleep("cool-off", timedelta(seconds=1))
        try:
            await ctx.step.run("refuse", refuse)
        except StepError:
            pass
        called = await ctx.step.run("call", flaky)
        shipped = await ctx.step.wait_for_event(
            "shipped", OrderShipped, where={"order_id": order.order_id}, timeout=timedelta(days=7)
        )
        late = await ctx.step.wait_for_event("more", OrderShipped, timeout="1d")
        await ctx.step.send("tell", [Told(order_id="a", token=token), Told(order_id="b")])
        receipt = await ctx.step.invoke("receipt", make_receipt, ReceiptWanted(order_id=order.order_id))
        return {
            "charge": charge_id, "parcel": parcel, "call": called, "shipped": shipped is not None,
            "late": late is not None, "receipt": receipt, "token": token,
        }

    return app


async def ship(h: AsyncHarness) -> None:
    await h.advance("2m")
    await h.send(OrderShipped(order_id="o1"))


async def test_a_function_with_every_kind_of_step_survives_each_crash(harness_store):
    bodies: list[str] = []
    checked = []

    async def check(h: AsyncHarness) -> None:
        (run,) = await h.runs(app.functions["fulfil"])
        checked.append({**run.output, "token": None})
        assert run.step("refuse").error.message == "no"
        assert h.clock.time == START + timedelta(days=1, minutes=2, seconds=10)

    app = shop(bodies)
    begin = time.perf_counter()
    survived = await assert_durable(app, ORDER, setup=bodies.clear, meanwhile=ship, check=check, start=START)
    took = time.perf_counter() - begin
    assert survived > 60
    assert len(checked) == survived + 3  # two without a crash, and the last, for which no commit was left
    assert checked == [checked[0]] * len(checked)
    assert (checked[0]["shipped"], checked[0]["late"], checked[0]["receipt"]) == (True, False, "receipt for o1")
    assert took < 60 or harness_store != "sqlite"


async def test_each_body_is_repeated_by_some_crash_and_no_recorded_one_by_any():
    counts: list[list[str]] = []
    bodies: list[str] = []
    app = App("t")

    @app.function(OrderPaid)
    async def fn(ctx: Context[OrderPaid]) -> None:
        await ctx.step.run("one", bodies.append, "one")
        await ctx.step.run("two", bodies.append, "two")

    await assert_durable(app, ORDER, setup=bodies.clear, check=lambda h: counts.append(list(bodies)))
    assert counts[:2] == [["one", "two"]] * 2
    assert sorted(map(tuple, {tuple(seen) for seen in counts})) == [
        ("one", "one", "two"), ("one", "two"), ("one", "two", "two"),
    ]


async def test_a_plain_function_survives_each_crash():
    app = App("t")
    bodies: list[str] = []

    def body(name: str) -> str:
        bodies.append(name)
        return name

    @app.function(OrderPaid, retries=1)
    def fn(ctx: SyncContext[OrderPaid]) -> list[str]:
        first = ctx.step.run("first", body, "a")
        ctx.step.sleep("hour", "1h")
        ctx.step.send("tell", Told(order_id="x"))
        reply = ctx.step.wait_for_event("told", Told, timeout="1h", since="run")
        return [first, ctx.step.run("second", body, "b"), "none" if reply is None else reply.data.order_id]

    async def check(h: AsyncHarness) -> None:
        (run,) = await h.runs(fn)
        assert run.output == ["a", "b", "x"]

    assert await assert_durable(app, ORDER, check=check, setup=bodies.clear) > 15


async def test_a_scheduled_function_and_one_function_alone():
    app = App("t")

    @app.function(Cron("@daily"))
    async def nightly(ctx: Context[CronTick]) -> str:
        await ctx.step.sleep("a", "1h")
        return "done"

    @app.function(OrderPaid)
    async def first(ctx: Context[OrderPaid]) -> str:
        return await ctx.step.run("a", lambda: "a")

    @app.function(OrderPaid)
    async def second(ctx: Context[OrderPaid]) -> None:
        raise NonRetriableError("not me")

    async def only(h: AsyncHarness) -> None:
        assert [run.function for run in await h.runs()] == ["t-first"]

    async def both(h: AsyncHarness) -> None:
        assert sorted((run.function, run.status) for run in await h.runs()) == [
            ("t-first", "COMPLETED"), ("t-second", "FAILED"),
        ]

    await assert_durable(app, fn=nightly)
    await assert_durable(app, ORDER, fn=first, check=only)
    await assert_durable(app, {"order_id": "o1"}, fn=first, check=only)
    await assert_durable(app, {"name": "shop/order.paid", "data": {"order_id": "o1"}}, fn=first, check=only)
    await assert_durable(app, ORDER, check=both)
    with pytest.raises(ConfigurationError, match="needs an event"):
        await assert_durable(app)


async def test_what_real_time_decides_may_be_named():
    app = App("t")
    took = [12, 12, 13]

    @app.function(OrderPaid)
    async def fn(ctx: Context[OrderPaid]) -> list[dict[str, int]]:
        return [await ctx.step.run("measure", lambda: {"took": took.pop(0) if took else 14, "size": 3})]

    with pytest.raises(NotDurableError, match="recorded .*'took': 13.* instead of .*'took': 12(.|\n)*may be named in `varies`"):
        await assert_durable(app, ORDER)
    took[:] = [12, 12, 13]
    await assert_durable(app, ORDER, varies=["took"])
    took[:] = [12, 12, 13]
    with pytest.raises(NotDurableError):
        await assert_durable(app, ORDER, varies=["size"])
    with pytest.raises(ConfigurationError, match=r'varies=\["took"\]'):
        await assert_durable(app, ORDER, varies="took")


async def test_a_step_chosen_by_a_global_counter_is_reported_with_the_crash_and_the_steps():
    app = App("t")
    calls: list[int] = []

    @app.function(OrderPaid)
    async def fn(ctx: Context[OrderPaid]) -> None:
        calls.append(1)
        await ctx.step.run("first", lambda: 1)
        await ctx.step.run("odd" if len(calls) % 2 else "even", lambda: 2)

    with pytest.raises(NotDurableError) as caught:
        await assert_durable(app, ORDER, setup=calls.clear)
    message = str(caught.value)
    assert "with a crash right before commit 2, the result of step 'first' of t-fn" in message
    assert "t-fn recorded other steps: 'first' -> 'even' instead of 'first' -> 'odd'" in message
    assert "code outside steps has to do the same each time" in message


async def test_recorded_steps_that_a_replay_passes_by_are_reported_though_nothing_else_differs():
    app = App("t")
    calls: list[int] = []

    @app.function(OrderPaid)
    async def fn(ctx: Context[OrderPaid]) -> None:
        calls.append(1)
        if len(calls) < 3:
            await ctx.step.run("early", lambda: 1)
        await ctx.step.sleep("nap", 1)
        await ctx.step.run("late", lambda: 2)

    with pytest.raises(NotDurableError, match="right before commit 2, the result of step 'early' of t-fn, holdfast noted on t-fn: .*'early'"):
        await assert_durable(app, ORDER, setup=calls.clear)


async def test_the_same_of_a_plain_function():
    app = App("t")
    calls: list[int] = []

    @app.function(OrderPaid)
    def fn(ctx: SyncContext[OrderPaid]) -> int:
        calls.append(1)
        ctx.step.run("first", lambda: 1)
        return len(calls)

    with pytest.raises(NotDurableError, match=r"right before commit 2, the result of step 'first' of t-fn, t-fn returned 2 instead of 1"):
        await assert_durable(app, ORDER, setup=calls.clear)


async def test_state_that_setup_does_not_reset_shows_without_any_crash():
    app = App("t")
    calls: list[int] = []

    @app.function(OrderPaid)
    async def fn(ctx: Context[OrderPaid]) -> None:
        calls.append(1)
        await ctx.step.run("odd" if len(calls) % 2 else "even", lambda: 2)

    with pytest.raises(NotDurableError, match=r"two executions without any crash differ, t-fn recorded other steps: 'even' instead of 'odd'"):
        await assert_durable(app, ORDER)


async def test_an_event_sent_inside_a_body_without_an_id_starts_work_twice():
    app = App("t")

    @app.function(Told)
    async def told(ctx: Context[Told]) -> None: ...

    @app.function(OrderPaid)
    async def fn(ctx: Context[OrderPaid]) -> None:
        async def tell() -> None:
            await app.send(Told(order_id="x"))

        await ctx.step.run("tell", tell)

    with pytest.raises(NotDurableError, match="function 't-told' ran 2 times instead of once"):
        await assert_durable(app, ORDER)


async def test_an_effect_that_must_not_repeat_can_be_checked():
    app = App("t")
    mails: list[str] = []

    @app.function(OrderPaid)
    async def fn(ctx: Context[OrderPaid]) -> None:
        await ctx.step.run("mail", mails.append, "hello")

    def check(h: AsyncHarness) -> None:
        assert mails == ["hello"], "mailed twice"

    with pytest.raises(AssertionError, match="mailed twice"):
        await assert_durable(app, ORDER, setup=mails.clear, check=check)


async def test_random_values_made_in_steps_are_not_compared_but_what_follows_from_them_is_there():
    app = App("t")

    @app.function(OrderPaid)
    async def fn(ctx: Context[OrderPaid]) -> dict[str, object]:
        token = await ctx.step.run("token", lambda: uuid.uuid4().hex)
        await ctx.step.send("tell", Told(order_id="o1", token=token))
        return {"token": token, "parts": [1, token]}

    await assert_durable(app, ORDER)


async def test_random_values_made_outside_steps_are_seen_when_a_crash_tears_them_apart():
    app = App("t")

    @app.function(OrderPaid)
    async def fn(ctx: Context[OrderPaid]) -> bool:
        token = uuid.uuid4().hex  # belongs into a step
        recorded = await ctx.step.run("token", lambda: token)
        return recorded == token

    with pytest.raises(NotDurableError, match="right after commit 2, the result of step 'token' of t-fn, t-fn returned False instead of True"):
        await assert_durable(app, ORDER)


async def test_races_and_failure_handlers_survive_each_crash():
    handled: list[str] = []

    async def on_failure(ctx: Context) -> None:
        await ctx.step.run("note", handled.append, ctx.event.data.error["message"])

    app = App("t", on_failure=on_failure)

    def charge() -> None:
        raise ConnectionRefusedError("closed")

    @app.function(OrderPaid, retries=1, backoff=Backoff.constant(5))
    async def fn(ctx: Context[OrderPaid]) -> None:
        winner = await ctx.step.race(
            "either", ctx.step.wait_for_event("shipped", OrderShipped, timeout="3d"),
            ctx.step.wait_for_event("told", Told, timeout="2d"),
        )
        assert winner is None
        await ctx.step.run("charge", charge)

    async def check(h: AsyncHarness) -> None:
        runs = {run.function: run.status for run in await h.runs()}
        assert runs == {"t-fn": "FAILED", "t-app-failure": "COMPLETED"}

    await assert_durable(app, ORDER, setup=handled.clear, check=check)


async def test_an_engine_that_does_not_recover_is_found_out(monkeypatch):
    app = App("t")

    @app.function(OrderPaid)
    async def fn(ctx: Context[OrderPaid]) -> None:
        await ctx.step.run("one", lambda: 1)

    monkeypatch.setattr("holdfast.core.claiming.Recover.decide", lambda plan, tx: 0)
    with pytest.raises(NotDurableError, match=r"right after commit 1, the acceptance of event 'shop/order.paid', t-fn recorded other steps: none instead of 'one'"):
        await assert_durable(app, ORDER)
