"""The application of the storm: every kind of step and most rules of flow control, and a ledger line for all that happens."""

from __future__ import annotations

import asyncio
import random
import uuid
from typing import Any

from holdfast import (
    App,
    Backoff,
    Concurrency,
    Context,
    Cron,
    CronTick,
    Event,
    Idempotency,
    RateLimit,
    Singleton,
    Throttle,
)
from storm_ledger import Ledger

PACE = 10
"""How many seconds pass for the nodes in one of the machine's: a schedule of each minute fires every six seconds."""
BODY_SECONDS = (0.01, 0.02, 0.02, 0.3)
"""Of the machine's time."""
NAP, BACKOFF = 2.0, 3.0
"""Seconds of the nodes' time."""
CAP, CAP_PER_TENANT, RUN_CAP = 3, 2, 3
THROTTLE, RATE = (40, 4), (5, 20)
"""So many starts in so many seconds of the nodes' time."""
TENANT = "event.data.tenant"
BY_EVENT = ("capped", "whole", "spread", "limited", "single", "order", "waiter", "once")
MAY_REFUSE = ("limited", "single")
"""Functions whose rules let an event start nothing."""


class Job(Event, name="storm/job"):
    n: int
    tenant: str


class Pack(Event, name="storm/pack"):
    n: int


class Shipped(Event, name="storm/shipped"):
    n: int


class Teller:
    """Bodies and sightings of one run, as the ledger has them."""

    def __init__(self, ledger: Ledger, ctx: Context[Any], function: str, tenant: str = "") -> None:
        self._ledger = ledger
        self._ctx = ctx
        self._about = {"function": function, "run": ctx.run_id, "tenant": tenant}

    def write(self, what: str, **fields: Any) -> None:
        """A line about this run, under the lease it is executed with."""
        self._ledger.write(what, node=self._ctx._scope.lease.owner, **self._about, **fields)  # type: ignore[attr-defined]

    async def run(self, step: str, *, fails: bool = False) -> None:
        """A step that takes a while, whose value no other execution has."""
        self.write("saw", step=step, value=await self._ctx.step.run(step, self._body, step, fails))

    async def _body(self, step: str, fails: bool) -> str:
        self.write("enter", step=step)
        try:
            await asyncio.sleep(random.choice(BODY_SECONDS))
        finally:
            self.write("leave", step=step)
        if fails and not any(
            line["what"] == "refused" and line["run"] == self._ctx.run_id for line in self._ledger.lines()
        ):
            self.write("refused", step=step)
            raise OSError("the first try fails")
        return uuid.uuid4().hex

    async def nap(self) -> None:
        """A durable sleep."""
        self.write("sleeping")
        await self._ctx.step.sleep("nap", NAP)
        self.write("woke")


def make_storm(ledger: Ledger) -> App:
    """The functions, all but two of them started by the same event."""
    app = App("storm", retries=4, backoff=Backoff.constant(BACKOFF))

    def declare(name: str, *, parallel: int = 1, nap: bool = False, **rules: Any) -> None:
        @app.function(Job, id=name, **rules)
        async def work(ctx: Context[Job]) -> None:
            teller = Teller(ledger, ctx, name, ctx.event.data.tenant)
            await asyncio.gather(*(teller.run(f"body-{i}") for i in range(parallel)))
            if nap:
                await teller.nap()
                await teller.run("after")

    declare("capped", parallel=2, nap=True, concurrency=[Concurrency(CAP), Concurrency(CAP_PER_TENANT, key=TENANT)])
    declare("whole", nap=True, run_concurrency=Concurrency(RUN_CAP))
    declare("spread", throttle=Throttle(THROTTLE[0], THROTTLE[1]))
    declare("limited", rate_limit=RateLimit(RATE[0], RATE[1], key=TENANT))
    declare("single", nap=True, singleton=Singleton(key=TENANT))
    declare("once", idempotency=Idempotency("event.data.n"))

    @app.function(Pack)
    async def pack(ctx: Context[Pack]) -> int:
        await Teller(ledger, ctx, "pack").run("pack")
        return ctx.event.data.n

    @app.function(Job)
    async def order(ctx: Context[Job]) -> int:
        teller, n = Teller(ledger, ctx, "order"), ctx.event.data.n
        await asyncio.gather(teller.run("left"), teller.run("right"))
        await teller.run("flaky", fails=True)
        await teller.nap()
        assert await ctx.step.invoke("invoke", pack, Pack(n=n)) == n
        await ctx.step.send("announce", Shipped(n=n))
        await teller.run("last")
        return n

    @app.function(Job)
    async def waiter(ctx: Context[Job]) -> int:
        teller, n = Teller(ledger, ctx, "waiter"), ctx.event.data.n
        shipped = await ctx.step.wait_for_event("shipped", Shipped, where={"n": n}, since="run", timeout="30d")
        assert shipped is not None
        await teller.run("thanks")
        return shipped.data.n

    @app.function(Cron("* * * * *", catch_up="all"))
    async def minutely(ctx: Context[CronTick]) -> None:
        teller = Teller(ledger, ctx, "minutely")
        teller.write("tick", occurrence=ctx.event.data.scheduledAt)
        await teller.run("body")

    return app
