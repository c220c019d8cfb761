"""Functions of an application on the official Python SDK: flow control, triggers, cancellation."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import inngest
from watched import Watched

SECOND = timedelta(seconds=1)


def flow_functions(client: inngest.Inngest, seen: Watched) -> list[inngest.Function[Any]]:
    """Functions about flow control; each notes under its own id what it does."""
    functions: list[inngest.Function[Any]] = []

    def function(fn_id: str, *triggers: inngest.TriggerEvent | inngest.TriggerCron, **options: Any) -> Any:
        def add(handler: Any) -> Any:
            chosen = list(triggers) or [inngest.TriggerEvent(event=f"py/{fn_id}")]
            made = client.create_function(fn_id=fn_id, trigger=chosen, **options)(handler)
            functions.append(made)
            return made

        return add

    @function("cancelled", cancel=[inngest.Cancel(event="py/cancel", if_exp="event.data.id == async.data.id")])
    async def cancelled(ctx: inngest.Context) -> None:
        await ctx.step.sleep("long", timedelta(minutes=5))

    @function("one-at-a-time", concurrency=[inngest.Concurrency(limit=1, key="event.data.who")])
    async def one_at_a_time(ctx: inngest.Context) -> None:
        async def body() -> None:
            seen.note("one-at-a-time", ("in", ctx.event.data["who"]))
            await asyncio.sleep(0.2)
            seen.note("one-at-a-time", ("out", ctx.event.data["who"]))

        await ctx.step.run("work", body)

    @function("throttled", throttle=inngest.Throttle(limit=1, period=SECOND, burst=1))
    async def throttled(ctx: inngest.Context) -> None:
        seen.note("throttled", asyncio.get_running_loop().time())

    @function("rate-limited", rate_limit=inngest.RateLimit(limit=2, period=timedelta(minutes=1), key="event.data.who"))
    async def rate_limited(ctx: inngest.Context) -> None:
        pass

    @function("debounced", debounce=inngest.Debounce(period=SECOND, key="event.data.who"))
    async def debounced(ctx: inngest.Context) -> Any:
        return ctx.event.data["n"]

    @function("batched", batch_events=inngest.Batch(max_size=3, timeout=SECOND, key="event.data.who"))
    async def batched(ctx: inngest.Context) -> Any:
        return [event.data["n"] for event in ctx.events]

    @function("large-batch", batch_events=inngest.Batch(max_size=2, timeout=timedelta(seconds=30)))
    async def large_batch(ctx: inngest.Context) -> Any:
        return [len(str(event.data["text"])) for event in ctx.events]

    @function(
        "prioritised",
        concurrency=[inngest.Concurrency(limit=1)],
        priority=inngest.Priority(run="event.data.urgent ? 120 : 0"),
    )
    async def prioritised(ctx: inngest.Context) -> None:
        seen.note("prioritised", ctx.event.data["n"])
        await asyncio.sleep(0.2)

    @function("single-skip", singleton=inngest.Singleton(mode="skip", key="event.data.who"))
    async def single_skip(ctx: inngest.Context) -> None:
        await ctx.step.sleep("nap", SECOND)

    @function("single-cancel", singleton=inngest.Singleton(mode="cancel", key="event.data.who"))
    async def single_cancel(ctx: inngest.Context) -> Any:
        await ctx.step.sleep("nap", SECOND)
        return ctx.event.data["n"]

    @function("idempotent", idempotency="event.data.order")
    async def idempotent(ctx: inngest.Context) -> Any:
        return {"order": ctx.event.data["order"]}

    @function("finish-timeout", timeouts=inngest.Timeouts(finish=SECOND))
    async def finish_timeout(ctx: inngest.Context) -> None:
        await ctx.step.sleep("long", timedelta(minutes=5))

    @function("start-timeout", timeouts=inngest.Timeouts(start=SECOND), concurrency=[inngest.Concurrency(limit=1)])
    async def start_timeout(ctx: inngest.Context) -> None:
        await ctx.step.run("work", lambda: asyncio.sleep(2.0))

    @function("every-minute", inngest.TriggerCron(cron="* * * * *"))
    async def every_minute(ctx: inngest.Context) -> Any:
        return [ctx.event.name, ctx.event.data]

    @function(
        "hears",
        inngest.TriggerEvent(event="inngest/function.finished", expression="event.data.function_id == 'py-idempotent'"),
        inngest.TriggerEvent(event="inngest/function.cancelled", expression="event.data.function_id == 'py-cancelled'"),
    )
    async def hears(ctx: inngest.Context) -> None:
        seen.note(str(ctx.event.data["run_id"]), [ctx.event.name, ctx.event.data])

    @function(
        "triggers",
        inngest.TriggerEvent(event="py/first"),
        inngest.TriggerEvent(event="py/second", expression="event.data.n > 1"),
        inngest.TriggerEvent(event="py-wild/*"),
        inngest.TriggerEvent(event="pywild.*"),
    )
    async def triggers(ctx: inngest.Context) -> Any:
        return ctx.event.name

    return functions
