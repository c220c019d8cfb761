"""The application under test: every kind of step, and a ledger line for all that its bodies do and its functions see."""

from __future__ import annotations

import asyncio
import uuid

from fault_ledger import Ledger
from holdfast import App, Backoff, Context, Cron, CronTick, Event, FunctionFailed, SyncContext


class Order(Event, name="shop/order"):
    n: int


class Shipped(Event, name="shop/shipped"):
    n: int


class Report(Event, name="shop/report"):
    n: int


class Doom(Event, name="shop/doom"):
    n: int


class Pack(Event, name="shop/pack"):
    n: int


NAP_MS = 30
BACKOFF_MS = 20
EVERY_MINUTE = "* * * * *"

EXPECTED = {
    "shop/order": {"faults-order": 1, "faults-wait-for-shipping": 1},
    "shop/report": {"faults-report": 1},
    "shop/doom": {"faults-doomed": 1},
}
"""How many runs of which function an acknowledged event stands for."""


class Phases:
    """Where a process can be caught. Does nothing unless somebody aims."""

    def reached(self, phase: str) -> None:
        """A moment has come."""


def make_app(ledger: Ledger, phases: Phases | None = None) -> App:
    """The application. `phases` hears of the moments before and after each side effect."""
    phases = phases or Phases()
    app = App("faults", retries=2, backoff=Backoff.constant(BACKOFF_MS / 1000))

    def effect(run: str, key: str) -> str:
        """A side effect with a value that no other execution has."""
        ledger.write("start", run=run, step=key)
        phases.reached("body before")
        value = uuid.uuid4().hex
        ledger.write("end", run=run, step=key, value=value)
        phases.reached("body after")
        return value

    def saw(run: str, key: str, value: object) -> None:
        ledger.write("saw", run=run, step=key, value=value)

    async def body(run: str, key: str) -> str:
        await asyncio.sleep(0)
        return effect(run, key)

    async def flaky(run: str) -> str:
        if not ledger.has("refused", run=run):
            ledger.write("refused", run=run)
            raise OSError("the first try fails")
        ledger.write("retried", run=run)
        return effect(run, "flaky")

    @app.function(Order)
    async def order(ctx: Context[Order]) -> str:
        run, n = ctx.run_id, ctx.event.data.n
        left, right = await asyncio.gather(
            ctx.step.run("left", body, run, "left"), ctx.step.run("right", body, run, "right")
        )
        saw(run, "left", left)
        saw(run, "right", right)
        saw(run, "flaky", await ctx.step.run("flaky", flaky, run))
        await ctx.step.sleep("nap", NAP_MS / 1000)
        ledger.write("woke", run=run)
        saw(run, "invoke", await ctx.step.invoke("invoke", pack, Pack(n=n)))
        await ctx.step.send("announce", Shipped(n=n))
        last = await ctx.step.run("last", effect, run, "last")
        saw(run, "last", last)
        return last

    @app.function(Pack)
    async def pack(ctx: Context[Pack]) -> str:
        value = await ctx.step.run("pack", body, ctx.run_id, "pack")
        saw(ctx.run_id, "pack", value)
        return value

    @app.function(Order)
    async def wait_for_shipping(ctx: Context[Order]) -> int:
        run, n = ctx.run_id, ctx.event.data.n
        shipped = await ctx.step.wait_for_event("shipped", Shipped, where={"n": n}, since="run", timeout="1h")
        assert shipped is not None, "nothing was shipped in an hour"
        saw(run, "shipped", shipped.data.n)
        saw(run, "thanks", await ctx.step.run("thanks", body, run, "thanks"))
        return n

    @app.function(Shipped)
    async def on_shipped(ctx: Context[Shipped]) -> None:
        saw(ctx.run_id, "note", await ctx.step.run("note", body, ctx.run_id, "note"))

    @app.function(Report)
    def report(ctx: SyncContext[Report]) -> str:
        run = ctx.run_id
        first = ctx.step.run("first", effect, run, "first")
        saw(run, "first", first)
        second = ctx.step.run("second", effect, run, "second")
        saw(run, "second", second)
        return second

    async def on_doom(ctx: Context[FunctionFailed]) -> None:
        saw(ctx.run_id, "condolence", await ctx.step.run("condolence", body, ctx.run_id, "condolence"))

    async def cure(n: int) -> str:
        if not ledger.has("cured"):
            raise OSError("not cured yet")
        return "cured"

    @app.function(Doom, retries=1, on_failure=on_doom)
    async def doomed(ctx: Context[Doom]) -> str:
        n = ctx.event.data.n
        # under the event's number and not the run's id: a redriven run must not do it again
        prepared = await ctx.step.run("prepare", body, f"doom-{n}", "prepare")
        saw(f"doom-{n}", "prepare", prepared)
        return await ctx.step.run("cure", cure, n)

    @app.function(Cron(EVERY_MINUTE))
    async def every_minute(ctx: Context[CronTick]) -> None:
        saw(ctx.run_id, "tick", await ctx.step.run("tick", body, ctx.run_id, "tick"))

    return app
