"""A shop with every rule of flow control, and runs and events that wait at each."""

from __future__ import annotations

from typing import Any

from dashboard_kit import LONG_ID, Shop, World

from holdfast import (
    App,
    Batch,
    CancelOn,
    Concurrency,
    Context,
    Debounce,
    Idempotency,
    RateLimit,
    Singleton,
    Throttle,
    Timeouts,
)

LONG_KEY = "customer-" + "k" * 110


def make_flow_app(world: World) -> App:
    """Functions whose bodies stay until the gate "door" is let go."""
    app = App("shop")

    async def stay() -> None:
        await world.gate("door").wait()

    @app.function("flow/work", id="import-catalogue", name="Import catalogue", concurrency=[Concurrency(2, key="event.data.who"), Concurrency(4)])
    async def work(ctx: Context[Any]) -> None:
        await ctx.step.run("stay", stay)

    @app.function("flow/mail", id="send-mail", name="Send mail", throttle=Throttle(1, "1h"))
    async def mail(ctx: Context[Any]) -> None: ...

    @app.function("flow/sync", id="sync-contacts", name="Sync contacts", debounce=Debounce("1h", key="event.data.who"))
    async def sync(ctx: Context[Any]) -> None: ...

    @app.function("flow/metric", id="write-metrics", name="Write metrics", batch=Batch(5, "1h"))
    async def metric(ctx: Context[Any]) -> int:
        return len(ctx.events)

    @app.function("flow/report", id="weekly-report", name="Weekly report", rate_limit=RateLimit(1, "1h"), timeouts=Timeouts(start="1d", finish="1h"), cancel_on=CancelOn("flow/stop"))
    async def report(ctx: Context[Any]) -> None:
        await ctx.step.wait_for_event("approved", "flow/approved", timeout="7d")

    @app.function("flow/index", id="rebuild-index", name="Rebuild index", singleton=Singleton("skip"))
    async def index(ctx: Context[Any]) -> None:
        await ctx.step.run("stay", stay)

    @app.function("flow/once", id="charge", name="Charge", idempotency=Idempotency("event.data.payment"))
    async def once(ctx: Context[Any]) -> None: ...

    @app.function("flow/paused", id="paused-one", name="Paused one")
    async def paused(ctx: Context[Any]) -> None: ...

    @app.function("flow/plain", id="plain", name="Plain")
    async def plain(ctx: Context[Any]) -> None: ...

    @app.function("flow/long", id=LONG_ID, name=LONG_ID, run_concurrency=Concurrency(1, key="event.data.who"))
    async def long_named(ctx: Context[Any]) -> None:
        await ctx.step.run("stay", stay)

    return app


def fill(server: Shop) -> dict[str, str]:
    """Let something wait at every rule; ids of runs and events by what they show."""
    async def event(name: str, **data: Any) -> str:
        return (await server.app.send({"name": name, "data": data})).id

    named = {}
    for n in range(5):
        named["in-line"] = server.send("flow/work", {"who": "user-7", "n": n})
    server.send("flow/work", {"who": "user-8"})
    server.send("flow/work", {"who": LONG_KEY})
    named["other-key"] = server.send("flow/work", {"who": "user-9"})
    for _ in range(3):
        named["throttled"] = server.send("flow/mail")
    named["debounced-away"] = server.call(event("flow/sync", who="user-7"))
    named["debounced"] = server.call(event("flow/sync", who="user-7"))
    server.call(event("flow/sync", who="user-8"))
    for _ in range(2):
        named["batched"] = server.call(event("flow/metric"))
    named["timed"] = server.send("flow/report")
    named["rate-limited"] = server.call(event("flow/report"))
    server.send("flow/index")
    named["singleton"] = server.call(event("flow/index"))
    server.send("flow/once", {"payment": "p1"})
    named["idempotent"] = server.call(event("flow/once", payment="p1"))
    server.call(server.app.pause("paused-one"))
    named["held"] = server.send("flow/paused")
    named["nobody"] = server.call(event("flow/nobody-listens"))
    for _ in range(2):
        named["long"] = server.send("flow/long", {"who": LONG_KEY})
    return named
