"""P3: invoking other functions: across apps, with time-outs, and how the other run's end reaches the caller."""

from __future__ import annotations

import asyncio
import json

import pytest

from holdfast import (
    App,
    Context,
    Event,
    FunctionRef,
    InvokeCancelledError,
    InvokeTimeoutError,
    NonRetriableError,
    RunCancelledError,
    RunFailedError,
    StepError,
    SyncContext,
)
from holdfast.base.ids import ulid_text
from holdfast.engine.crash import kill
from holdfast.testing import AsyncHarness

pytestmark = pytest.mark.anyio


class Go(Event, name="test/go"):
    n: int = 0


class Charge(Event, name="billing/charge"):
    amount: int


class CardDeclined(Exception): ...


billing = FunctionRef("billing/charge", Charge, int)


def apps(timeout: str | None = None) -> tuple[App, App, object]:
    shop, bank = App("shop"), App("billing")

    @bank.function(Charge, id="charge", retries=0)
    async def charge(ctx: Context[Charge]) -> int:
        if ctx.event.data.amount < 0:
            raise CardDeclined("no money")
        await ctx.step.sleep("nap", "1h" if ctx.event.data.amount > 100 else "10ms")
        return ctx.event.data.amount * 2

    @shop.function(Go, id="caller")
    async def caller(ctx: Context[Go]) -> str:
        try:
            return str(await ctx.step.invoke("charge", billing, Charge(amount=ctx.event.data.n), timeout=timeout))
        except StepError as error:
            known = [cls.__name__ for cls in (CardDeclined, RunCancelledError) if error.matches(cls)]
            return f"{type(error).__name__} {error.name} {known}: {error.message}"

    return shop, bank, caller


async def test_a_function_of_another_app_is_invoked_by_reference(engine_for):
    shop, bank, caller = apps()
    async with engine_for(shop, bank, linger_ms=0):
        assert await (await shop.start(caller, Go(n=21))).result(timeout=60) == "42"


async def test_its_failure_reaches_the_caller_with_its_class(engine_for):
    shop, bank, caller = apps()
    async with engine_for(shop, bank, linger_ms=0):
        assert await (await shop.start(caller, Go(n=-1))).result(timeout=60) == "StepError CardDeclined ['CardDeclined']: no money"


async def test_its_cancellation_reaches_the_caller_as_an_error_of_its_own(engine_for, query):
    shop, bank, caller = apps()
    async with engine_for(shop, bank, linger_ms=0) as engine:
        handle = await shop.start(caller, Go(n=200))
        await engine.idle()
        ((child,),) = query("SELECT id FROM runs WHERE parent_id IS NOT NULL")
        await shop.cancel(ulid_text(child))
        assert (
            await handle.result(timeout=60)
            == "InvokeCancelledError InvokeCancelledError ['RunCancelledError']: the invoked run was cancelled"
        )


async def test_after_the_time_out_it_goes_on_by_itself(engine_for, query):
    shop, bank, caller = apps("30ms")
    async with engine_for(shop, bank, linger_ms=0) as engine:
        handle = await shop.start(caller, Go(n=200))
        assert (
            await handle.result(timeout=60)
            == "InvokeTimeoutError InvokeTimeoutError []: Timed out waiting for invoked function to complete"
        )
        await engine.idle()
    assert query("SELECT status FROM runs WHERE parent_id IS NOT NULL") == [(1,)]


async def test_a_time_out_inside_the_callee_is_not_one_of_the_callers_own_step(engine_for):
    app = App("t")

    @app.function(Go, id="slow")
    async def slow(ctx: Context[Go]) -> None:
        await ctx.step.sleep("long", "1h")

    @app.function(Go, id="middle", retries=0)
    async def middle(ctx: Context[Go]) -> None:
        await ctx.step.invoke("slow", slow, Go(), timeout="20ms")

    @app.function(Go, id="outer")
    async def outer(ctx: Context[Go]) -> str:
        try:
            await ctx.step.invoke("middle", middle, Go(), timeout="1h")
        except StepError as error:
            return f"{type(error).__name__}, {error.matches(InvokeTimeoutError)}"
        return ""

    async with engine_for(app, linger_ms=0):
        assert await (await app.start(outer, Go())).result(timeout=60) == "StepError, True"


async def test_an_unknown_function_is_refused_in_the_protocols_words_and_on_record(engine_for, query):
    app = App("t")
    seen: list[str] = []

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> None:
        try:
            await ctx.step.invoke("call", FunctionRef("nowhere/nothing", Go, int), Go())
        except StepError as error:
            seen.append(f"{error.name}: {error.message}")
        await ctx.step.sleep("nap", 0.02)
        await ctx.step.invoke("call", FunctionRef("nowhere/nothing", Go, int), Go())

    async with engine_for(app, linger_ms=0):
        with pytest.raises(RunFailedError) as failed:
            await (await app.start(fn, Go())).result(timeout=60)
    assert (failed.value.name, failed.value.message) == ("Error", "could not find function with ID: nowhere-nothing")
    assert seen == ["Error: could not find function with ID: nowhere-nothing"] * 2
    assert query("SELECT key, state, kind FROM steps WHERE key LIKE 'call%' ORDER BY seq") == [("call", 1, 4), ("call:1", 1, 4)]


async def test_the_event_says_who_invoked_and_the_function_does_not_see_it(engine_for, query):
    app = App("t")
    seen: list[object] = []

    @app.function("some/thing", id="callee")
    async def callee(ctx: Context[object]) -> None:
        seen.append((ctx.event.name, ctx.event.data))

    @app.function(Go)
    def fn(ctx: SyncContext[Go]) -> None:
        ctx.step.invoke("call", callee, Go(n=3), timeout=60)

    async with engine_for(app) as engine:
        before = engine.clock.now()
        handle = await app.start(fn, Go())
        await handle.result(timeout=60)
    assert seen == [("inngest/function.invoked", {"n": 3})]
    ((raw,),) = query("SELECT data FROM events WHERE name = 'inngest/function.invoked'")
    about = json.loads(raw)["_inngest"]
    assert about["correlation_id"] == f"{handle.id}.call"
    assert about["name"] == "t-callee"
    assert before + 60_000 <= about["expire"] <= before + 65_000
    assert {"source_app_id", "source_fn_id", "source_fn_v", "fn_id", "gid"} < set(about)


def family() -> tuple[App, object, list[str]]:
    app = App("t")
    cleaned: list[str] = []

    @app.function(Go, id="grandchild")
    async def grandchild(ctx: Context[Go]) -> None:
        await ctx.step.sleep("long", "2h")

    @app.function(Go, id="child")
    async def child(ctx: Context[Go]) -> None:
        try:
            await ctx.step.invoke("down", grandchild, Go(), cancel_with_parent=True)
        finally:
            cleaned.append("child")

    @app.function(Go, id="parent")
    async def parent(ctx: Context[Go]) -> None:
        await asyncio.gather(
            ctx.step.invoke("bound", child, Go(n=1), cancel_with_parent=True),
            ctx.step.invoke("free", grandchild, Go(n=2)),
            ctx.step.sleep("long", "3h"),
        )

    return app, parent, cleaned


async def statuses(harness: AsyncHarness) -> dict[str, str]:
    rows = harness.engine.store._conn.execute(
        "SELECT f.slug || coalesce('/' || r.parent_step, ''), r.status FROM runs r JOIN functions f ON f.id = r.function_id"
    )
    return dict(rows.fetchall())


async def test_cancelling_a_parent_cancels_those_that_are_bound_to_it_and_no_others():
    app, parent, _ = family()
    async with AsyncHarness(app) as harness:
        run = await harness.start(parent, Go())
        assert await app.cancel(run.id)
        await harness.clock.quiesce()
        assert await statuses(harness) == {
            "t-parent": 4,
            "t-child/bound": 4,
            "t-grandchild/down": 4,
            "t-grandchild/free": 1,
        }
        await harness.clock.advance("3h")
        assert (await statuses(harness))["t-grandchild/free"] == 2


async def test_a_crash_between_parent_and_child_is_made_up_for_at_the_start():
    app, parent, _ = family()
    async with AsyncHarness(app) as harness:
        run = await harness.start(parent, Go())
        harness.engine.children.parent_cancelled = lambda _run_id: None  # type: ignore[method-assign]
        assert await app.cancel(run.id)
        await harness.clock.quiesce()
        assert (await statuses(harness))["t-child/bound"] == 1
        kill(harness.engine)
        await harness.clock.quiesce()
        assert await statuses(harness) == {
            "t-parent": 4,
            "t-child/bound": 4,
            "t-grandchild/down": 4,
            "t-grandchild/free": 1,
        }


async def test_a_failing_parent_leaves_its_children_alone(engine_for, query):
    app = App("t")

    @app.function(Go, id="child")
    async def child(ctx: Context[Go]) -> None:
        await ctx.step.sleep("long", "1h")

    @app.function(Go, id="parent")
    async def parent(ctx: Context[Go]) -> None:
        async def fail() -> None:
            await ctx.step.sleep("short", 0.02)
            raise NonRetriableError("enough")

        await asyncio.gather(ctx.step.invoke("call", child, Go(), cancel_with_parent=True), fail())

    async with engine_for(app, linger_ms=0) as engine:
        with pytest.raises(RunFailedError, match="enough"):
            await (await app.start(parent, Go())).result(timeout=60)
        await engine.idle()
    assert query("SELECT status FROM runs WHERE parent_id IS NOT NULL") == [(1,)]


async def test_a_function_may_be_what_cancels_a_parent():
    app, parent, _ = family()

    @app.function(Go, id="canceller")
    async def canceller(ctx: Context[Go]) -> bool:
        # outside of steps, so that what follows in the engine has its context
        return await app.cancel(target[0])

    target: list[str] = []
    async with AsyncHarness(app) as harness:
        target.append((await harness.start(parent, Go())).id)
        assert (await harness.run(canceller, Go())).output is True
        await harness.clock.quiesce()
        assert (await statuses(harness))["t-grandchild/down"] == 4


def test_the_errors_are_step_errors():
    assert issubclass(InvokeCancelledError, StepError)
    assert issubclass(InvokeTimeoutError, StepError)
