"""Sending, starting and awaiting from Python, on the real engine and a real database file."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Annotated, Any
from uuid import UUID

import pytest
from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from holdfast import (
    App,
    ConfigurationError,
    Context,
    Event,
    EventInvalidError,
    FunctionFailed,
    Middleware,
    NonRetriableError,
    NotRunningError,
    RunCancelledError,
    RunFailedError,
    RunNotFoundError,
    StepError,
    SyncContext,
    UnknownEventError,
)


pytestmark = pytest.mark.anyio


class Paid(Event, name="shop/paid"):
    order_id: str
    amount: int = 0


class Confirmation(Event, name="email/purchase-confirmation"):
    model_config = ConfigDict(alias_generator=to_camel)

    order_id: str


@dataclass
class Receipt:
    number: str
    at: datetime


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def store(tmp_path):
    return f"sqlite:///{tmp_path / 'shop.db'}"


def make_app(**settings):
    app = App("shop", **settings)

    @app.function(Paid, retries=0)
    async def pay(ctx: Context[Paid]) -> Receipt:
        amount = await ctx.step.run("amount", lambda: ctx.event.data.amount)
        if amount < 0:
            raise NonRetriableError("nothing to charge")
        return Receipt(ctx.event.data.order_id, datetime(2024, 1, 1, tzinfo=UTC))

    @app.function("shop/wait")
    async def forever(ctx: Context[Any]) -> None:
        await ctx.step.sleep("long", timedelta(days=30))

    @app.function(Confirmation)
    def confirm(ctx: SyncContext[Confirmation]) -> str:
        return ctx.step.run("name", lambda: threading.current_thread().name) + " " + ctx.event.data.order_id

    return app


async def the_only_run(app, **where):
    runs = [run async for run in app.runs(**where)]
    assert len(runs) == 1
    return runs[0]


async def test_a_started_function_gives_its_result_with_its_type(store):
    app = make_app()
    async with app.running(store=store):
        handle = await app.start(app.functions["pay"], Paid(order_id="o1", amount=5))
        assert await handle.result(timeout="5s") == Receipt("o1", datetime(2024, 1, 1, tzinfo=UTC))
        info = await handle.info()
        assert (info.status, info.function, info.event_name, info.error) == ("COMPLETED", "shop-pay", "shop/paid", None)
        assert info.duration >= timedelta(0)
        assert await app.handle(handle.id, app.functions["pay"]).result() == await handle.result()
        assert (await app.handle(handle.id).result())["number"] == "o1"
        assert await handle.cancel() is False


async def test_data_alone_is_enough_to_start_a_function_and_is_validated(store):
    app = make_app()
    async with app.running(store=store):
        handle = await app.start(app.functions["confirm"], {"orderId": "o1"})
        assert (await handle.result(timeout=60)).endswith(" o1")
        with pytest.raises(EventInvalidError, match="orderId: field required"):
            await app.start(app.functions["confirm"], {"name": "email/purchase-confirmation", "data": {}})


async def test_a_failed_run_raises_with_the_reason(store):
    app = make_app()
    async with app.running(store=store):
        handle = await app.start(app.functions["pay"], Paid(order_id="o1", amount=-1))
        with pytest.raises(RunFailedError, match="NonRetriableError: nothing to charge") as caught:
            await handle.result(timeout=60)
        assert (caught.value.run_id, caught.value.name) == (handle.id, "NonRetriableError")
        assert "nothing to charge" in caught.value.stack


async def test_a_result_can_be_given_up_on_and_the_run_cancelled(store):
    app = make_app()
    async with app.running(store=store):
        handle = await app.start(app.functions["forever"], {"anything": 1})
        with pytest.raises(TimeoutError):
            await handle.result(timeout=0.05)
        assert await handle.cancel() is True
        with pytest.raises(RunCancelledError):
            await handle.result(timeout=60)
        assert (await the_only_run(app, status="CANCELLED")).id == handle.id
        for missing in ("01ARZ3NDEKTSV4RRFFQ69G5FAV", "nonsense"):
            with pytest.raises(RunNotFoundError):
                await app.cancel(missing)


async def test_an_id_starts_each_function_once(store):
    app = make_app()
    async with app.running(store=store):
        first = await app.send(Paid(order_id="o1"), id="payment-1")
        again = await app.send({"name": "shop/paid", "data": {"order_id": "o1"}, "id": "payment-1"})
        assert (first.duplicate, again.duplicate) == (False, True)
        assert first.id != again.id
        run = await the_only_run(app, function="shop-pay")
        handles = await asyncio.gather(*[app.start(app.functions["pay"], Paid(order_id="o2"), id="x") for _ in range(5)])
        assert len({handle.id for handle in handles}) == 1
        assert run.id not in {handle.id for handle in handles}


async def test_a_typed_app_refuses_a_name_it_does_not_declare(store):
    app = make_app(events=[Paid, Confirmation])
    async with app.running(store=store):
        with pytest.raises(UnknownEventError, match="app 'shop' declares no event 'shop/payed'; did you mean 'shop/paid'?"):
            await app.send({"name": "shop/payed", "data": {}})

        class Other(Event, name="shop/other"):
            pass

        with pytest.raises(UnknownEventError, match="'shop/other'"):
            await app.send(Other())
        assert [run async for run in app.runs()] == []


async def test_a_mapping_is_validated_by_the_same_schema(store):
    app = make_app()
    async with app.running(store=store):
        sent = await app.send({"name": "email/purchase-confirmation", "data": {"orderId": "o1"}})
        assert sent.id
        for data, reason in [
            ({}, "orderId: field required"),
            ({"orderId": "x", "extra": 1}, "extra: extra inputs are not permitted"),
            ([1], "data must be an object, not list"),
        ]:
            with pytest.raises(EventInvalidError, match=reason):
                await app.send({"name": "email/purchase-confirmation", "data": data})


WRONG = [
    ({"data": {}}, "an event needs a name"),
    ({"name": 5}, "an event needs a name"),
    ("shop/paid", "an event needs a name"),
    (None, "an event needs a name"),
    ({"name": ""}, "event name is empty"),
    ({"name": "x" * 256}, "longer than 255"),
    ({"name": "inngest/function.failed"}, "reserved for internal use"),
    ({"name": "INNGEST/x"}, "reserved for internal use"),
    ({"name": "x", "payload": {}}, "unknown field 'payload'; what it carries belongs into 'data'"),
    ({"name": "x", "data": "text"}, "data must be an object, not str"),
    ({"name": "x", "data": {"a": float("nan")}}, r"event 'x': nan at \$\.a"),
    ({"name": "x", "data": {"a": object()}}, r"event 'x': a value of type builtins.object at \$\.a"),
    ({"name": "x", "id": 5}, "an id is a non-empty string, not 5"),
    ({"name": "x", "id": ""}, "an id is a non-empty string"),
    ({"name": "x", "ts": "now"}, "ts is a datetime or milliseconds"),
    ({"name": "x", "ts": True}, "ts is a datetime or milliseconds"),
    ({"name": "x", "ts": 1_700_000_000}, "it is milliseconds since 1970, not seconds"),
    ({"name": "x", "ts": datetime(2101, 1, 1, tzinfo=UTC)}, "not between 1980 and 2100"),
    (FunctionFailed(function_id="f", run_id="r"), "reserved for internal use"),
    ({"name": "x", "data": {"a": "x" * 3_200_000}}, "over the max size"),
]


@pytest.mark.parametrize(("event", "reason"), WRONG, ids=[str(n) for n in range(len(WRONG))])
async def test_what_is_no_event_is_refused_with_the_reason(store, event, reason):
    app = make_app()
    async with app.running(store=store):
        for send in (app.send(event), app.send_many([Paid(order_id="o1"), event])):
            with pytest.raises(EventInvalidError, match=reason):
                await send
        assert [run async for run in app.runs()] == [], "all are accepted or none"


async def test_many_are_sent_at_once(store):
    app = make_app()
    async with app.running(store=store):
        sent = await app.send_many([Paid(order_id=str(n)) for n in range(100)])
        assert len({one.id for one in sent}) == 100
        assert len([run async for run in app.runs(function=app.functions["pay"], limit=1000)]) == 100
        assert len([run async for run in app.runs(limit=7)]) == 7
        assert await app.send_many([]) == []


async def test_an_event_of_the_future_starts_its_function_then(store):
    app = make_app()
    async with app.running(store=store):
        await app.send(Paid(order_id="o1"), ts=datetime.now(UTC) + timedelta(days=1))
        assert (await the_only_run(app)).status == "QUEUED"


async def test_threads_send_and_block_until_it_is_on_disk(store):
    app = make_app()
    async with app.running(store=store):
        sent = await asyncio.to_thread(app.send_sync, Paid(order_id="o1"), id="x")
        assert sent.duplicate is False
        with pytest.raises(NotRunningError, match="await app.send"):
            app.send_sync(Paid(order_id="o1"))
        with pytest.raises(EventInvalidError):
            await asyncio.to_thread(app.send_sync, {"name": ""})


async def test_without_anything_running_the_error_says_what_to_do(monkeypatch):
    for name in ("INNGEST_DEV", "INNGEST_BASE_URL", "INNGEST_EVENT_API_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(NotRunningError, match=r"app 'shop' is not running here: enter `async with app.running\(\):`, or set INNGEST_DEV=1"):
        await make_app().send(Paid(order_id="o1"))


async def test_an_app_that_only_sends_cannot_start_functions(monkeypatch):
    monkeypatch.setenv("INNGEST_DEV", "http://127.0.0.1:9")
    app = make_app()
    with pytest.raises(NotRunningError, match="can only send from here"):
        await app.start(app.functions["pay"], Paid(order_id="o1"))
    with pytest.raises(NotRunningError, match="no holdfast server answers at http://127.0.0.1:9 .*holdfast dev"):
        await app.send(Paid(order_id="o1"))


class Tracing(Middleware):
    def __init__(self, name, seen):
        self.name = name
        self.seen = seen

    async def around_function(self, ctx, call):
        self.seen.append(f"{self.name} function {ctx.function_id}")
        result = await call()
        self.seen.append(f"{self.name} result")
        return result

    async def around_step(self, ctx, step_id, call):
        self.seen.append(f"{self.name} step {step_id}")
        return await call()

    async def around_send(self, events, call):
        self.seen.append(f"{self.name} send {[event.name for event in events]}")
        return await call(events)


async def test_middleware_wraps_sends_functions_and_steps_from_the_outside_in(store):
    seen: list[str] = []
    app = App("shop", middleware=[Tracing("outer", seen), Tracing("inner", seen)])

    @app.function(Paid, middleware=[Tracing("own", seen)])
    async def pay(ctx: Context[Paid]) -> int:
        return await ctx.step.run("one", lambda: 1)

    async with app.running(store=store):
        await app.send(Paid(order_id="x"))
        run = await the_only_run(app)
        assert await app.handle(run.id).result(timeout=60) == 1
        with pytest.raises(ConfigurationError, match="send_sync does not pass through async around_send middleware"):
            await asyncio.to_thread(app.send_sync, Paid(order_id="x"))
    assert seen == [
        "outer send ['shop/paid']", "inner send ['shop/paid']", "outer function shop-pay", "inner function shop-pay", "own function shop-pay",
        "outer step one", "inner step one", "own step one", "own result", "inner result", "outer result",
    ]  # fmt: skip


async def test_failure_handlers_run_once_for_their_function_and_the_apps_for_all(store):
    seen: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    async def for_all(ctx: Context[FunctionFailed]) -> None:
        await ctx.step.run("tell", seen.put, ("app", ctx.event.data.function_id))

    async def for_one(ctx: Context[FunctionFailed]) -> None:
        await seen.put(("own", ctx.event.data.error["message"]))

    app = App("shop", on_failure=for_all)

    @app.function(Paid, retries=0, on_failure=for_one)
    async def pay(ctx: Context[Paid]) -> None:
        raise ValueError(ctx.event.data.order_id)

    @app.function(Confirmation, retries=0)
    async def confirm(ctx: Context[Confirmation]) -> None:
        await ctx.step.run("x", int, ctx.event.data.order_id)

    async with app.running(store=store):
        await app.send(Paid(order_id="o1"))
        await app.send(Confirmation(order_id="o2"))
        async with asyncio.timeout(60):
            got = {await seen.get() for _ in range(3)}
    assert got == {("own", "o1"), ("app", "shop-pay"), ("app", "shop-confirm")}


async def test_an_apps_failure_handler_leaves_other_apps_alone(store):
    seen: asyncio.Queue[str] = asyncio.Queue()

    async def tell(ctx: Context[FunctionFailed]) -> None:
        await seen.put(ctx.event.data.function_id)

    shop = App("shop", on_failure=tell)
    abroad = App("shop-eu")

    @abroad.function(Paid, retries=0)
    async def pay(ctx: Context[Paid]) -> None:
        raise ValueError

    @shop.function(Confirmation, retries=0)
    async def confirm(ctx: Context[Confirmation]) -> None:
        raise ValueError

    async with shop.running(store=store, apps=[abroad]):
        handle = await abroad.start(pay, Paid(order_id="x"))
        with pytest.raises(RunFailedError):
            await handle.result(timeout=60)
        await shop.send(Confirmation(order_id="x"))
        async with asyncio.timeout(60):
            assert await seen.get() == "shop-confirm"


async def test_a_lifespan_surrounds_the_time_the_app_runs(store):
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan(app):
        seen.append("open")
        yield {"database": "connected"}
        seen.append("close")

    app = App("shop", lifespan=lifespan)

    @app.function(Paid)
    async def pay(ctx: Context[Paid]) -> str:
        return ctx.resources["database"]

    async with app.running(store=store):
        assert await (await app.start(pay, Paid(order_id="x"))).result(timeout=60) == "connected"
        assert seen == ["open"]
    assert seen == ["open", "close"]


class CardDeclined(Exception):
    pass


class Expired(CardDeclined):
    pass


async def test_a_failed_step_is_told_apart_by_class_live_and_replayed(store):
    app = App("shop")
    seen: list[str] = []

    def charge() -> None:
        seen.append("charged")
        raise Expired("card o1")

    @app.function(Paid)
    async def pay(ctx: Context[Paid]) -> list[Any]:
        try:
            await ctx.step.options(retries=0).run("charge", charge)
        except StepError as error:
            seen.append(f"caught {ctx.attempt}")
            if not ctx.attempt:
                raise_later = True
            else:
                raise_later = False
            found = [error.matches(CardDeclined), error.matches(ValueError), error.step_id, error.name, error.message]
        if raise_later:
            from holdfast import RetryAfterError

            raise RetryAfterError("again", 0)
        return found

    async with app.running(store=store):
        handle = await app.start(pay, Paid(order_id="x"))
        assert await handle.result(timeout=60) == [True, False, "charge", "Expired", "card o1"]
    assert seen == ["charged", "caught 0", "caught 1"]


class Carrier(Enum):
    POST = "post"


class Shipped(Event, name="shop/shipped"):
    order_id: Annotated[str, Field(alias="order-id")]
    carrier: Carrier
    parcel: UUID


@pytest.mark.parametrize("order", [["order_id", "carrier", "parcel"], ["parcel", "order_id", "carrier"], ["carrier", "parcel", "order_id"]])
async def test_a_wait_compares_every_field_whatever_it_is_called(store, order):
    app = App("shop")
    values = {"order_id": "o1", "carrier": Carrier.POST, "parcel": UUID(int=7)}

    @app.function(Paid)
    async def pay(ctx: Context[Paid]) -> str:
        where = {name: values[name] for name in order}
        shipped = await ctx.step.wait_for_event("shipped", Shipped, where=where, timeout="1d", since="run")
        return "never" if shipped is None else f"parcel {shipped.data.parcel.int}, event {shipped.id}"

    async with app.running(store=store):
        handle = await app.start(pay, Paid(order_id="o1"))
        fields = {"order-id": "o1", "carrier": "post", "parcel": str(UUID(int=7))}
        await app.send({"name": "shop/shipped", "data": fields | {"order-id": "o2"}, "id": "not this"})
        await app.send({"name": "shop/shipped", "data": fields | {"parcel": str(UUID(int=8))}, "id": "nor this"})
        await app.send({"name": "shop/shipped", "data": fields, "id": "this"})
        assert await handle.result(timeout=60) == "parcel 7, event this"
