"""An application with every rule of flow control at once, whose bodies write when they are inside: what the storm runs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from fault_app import Phases
from fault_ledger import Ledger
from fault_worker import Aim, ShiftedClock, announce, rows, store_of, watch_commits
from holdfast import App, Batch, Concurrency, Context, Debounce, Event, Idempotency, RateLimit, Singleton, Throttle
from holdfast.base.codec import encode_json
from holdfast.compose import build_engine
from holdfast.engine.engine import EngineOptions
from holdfast.sdk.sender import Outgoing

BODY_SECONDS = 0.004
CAP, CAP_PER_TENANT, RUN_CAP, THROTTLE, RATE = 4, 2, 3, (40, 1000), (6, 400)
TENANTS = "abcd"
TENANT = "event.data.tenant"
FUNCTIONS = ("capped", "whole", "spread", "limited", "single", "settled", "gathered", "once")


class Job(Event, name="storm/job"):
    n: int
    tenant: str


def make_storm(ledger: Ledger, phases: Phases) -> App:
    """One function for each rule, all started by the same event."""
    app = App("storm", retries=0)

    async def body(function: str, run: str, key: str, numbers: list[int], tenant: str) -> int:
        ledger.write("enter", function=function, run=run, step=key, numbers=numbers, tenant=tenant, pid=os.getpid())
        phases.reached("body before")
        try:
            await asyncio.sleep(BODY_SECONDS)
        finally:
            ledger.write("leave", function=function, run=run, step=key, pid=os.getpid())
        phases.reached("body after")
        return len(numbers)

    def declare(name: str, *, parallel: int = 1, nap: bool = False, **rules: Any) -> None:
        @app.function(Job, id=name, **rules)
        async def work(ctx: Context[Job]) -> None:
            jobs = [event.data for event in ctx.events]
            numbers, tenant = [job.n for job in jobs], jobs[0].tenant
            steps = (
                ctx.step.run(f"body-{i}", body, name, ctx.run_id, f"body-{i}", numbers, tenant) for i in range(parallel)
            )
            await asyncio.gather(*steps)
            if nap:
                await ctx.step.sleep("nap", 0.005)
                await ctx.step.run("after", body, name, ctx.run_id, "after", numbers, tenant)

    declare("capped", parallel=2, nap=True, concurrency=[Concurrency(CAP), Concurrency(CAP_PER_TENANT, key=TENANT)])
    declare("whole", nap=True, run_concurrency=Concurrency(RUN_CAP))
    declare("spread", throttle=Throttle(*(THROTTLE[0], "1s")))
    declare("limited", rate_limit=RateLimit(RATE[0], f"{RATE[1]}ms", key=TENANT))
    declare("single", singleton=Singleton(key=TENANT), nap=True)
    declare("settled", debounce=Debounce("1s", key=TENANT))
    declare("gathered", batch=Batch(5, "1s", key=TENANT))
    declare("once", idempotency=Idempotency("event.data.n"))
    return app


async def life(config: dict[str, Any]) -> None:
    """Send events until told to finish (or killed), then let everything end and fill the caps once more."""
    store, finish = store_of(config), Path(config["finish"])
    ledger = Ledger(Path(config["ledger"]))
    app = make_storm(ledger, Aim(config.get("phase"), config.get("nth", 1)))
    options = EngineOptions(linger_ms=0, max_crashes=1_000_000)
    engine = build_engine([app], store, clock=ShiftedClock(0), options=options)
    watch_commits(engine, config, Aim(config.get("phase"), config.get("nth", 1)))
    async with engine:
        n = config["first"]
        while not finish.exists():
            for _ in range(3):
                n += 1
                await send(engine, ledger, n, TENANTS[n * 7 % 11 % 4])
            await send(engine, ledger, n, TENANTS[n * 7 % 11 % 4])  # delivered twice
            await asyncio.sleep(0.004)
        await quiet(engine, store)
        ledger.write("storm is over")
        await asyncio.gather(*(send(engine, ledger, 1_000_000 + i, TENANTS[i % 4]) for i in range(40)))
        await quiet(engine, store)
        left = {gate: used for gate, used in engine.store.lease_counts.items() if used}
        ledger.write("quiet", left=left, lanes=len(list(engine.store.lanes)))
    announce(done=True)


async def send(engine: Any, ledger: Ledger, n: int, tenant: str) -> None:
    """One event under an id of its own, acknowledged in the ledger."""
    await engine.send([Outgoing("storm/job", encode_json({"n": n, "tenant": tenant}, "data"), f"job-{n}")])
    ledger.write("acknowledged", n=n, tenant=tenant)


async def quiet(engine: Any, store: str) -> None:
    """Wait until nothing is queued, gathered or to be cancelled."""
    while True:
        await engine.idle()
        ((left,),) = rows(store, "SELECT (SELECT count(*) FROM queue) + (SELECT count(*) FROM gathers) + (SELECT count(*) FROM alarms)")
        if left == 0:
            return
        await asyncio.sleep(0.01)
