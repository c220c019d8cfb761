"""Functions of an application on the official Python SDK: steps, errors, parallel branches."""

from __future__ import annotations

import asyncio
import functools
from datetime import UTC, datetime, timedelta
from typing import Any

import inngest
from inngest.experimental.ai import openai
from watched import Watched

SECOND = timedelta(seconds=1)


def on(event: str, expression: str | None = None) -> inngest.TriggerEvent:
    return inngest.TriggerEvent(event=event, expression=expression)


def step_functions(client: inngest.Inngest, seen: Watched, model_url: str) -> list[inngest.Function[Any]]:
    """Functions about steps; each notes what it does under its run."""
    functions: list[inngest.Function[Any]] = []

    def function(fn_id: str, event: str | None = None, **options: Any) -> Any:
        def add(handler: Any) -> Any:
            made = client.create_function(fn_id=fn_id, trigger=on(event or f"py/{fn_id}"), **options)(handler)
            functions.append(made)
            return made

        return add

    @function("async-steps")
    async def async_steps(ctx: inngest.Context) -> list[Any]:
        async def double() -> int:
            return seen.note(ctx.run_id, ctx.event.data["n"] * 2)

        first = await ctx.step.run("double", double)
        nothing = await ctx.step.run("nothing", lambda: _later(None))
        return [first, nothing, await ctx.step.run("plain", lambda: first + 1)]

    @function("sync-steps")
    def sync_steps(ctx: inngest.ContextSync) -> list[Any]:
        first = ctx.step.run("double", lambda: seen.note(ctx.run_id, ctx.event.data["n"] * 2))
        ctx.step.sleep("nap", 10)
        return [first, ctx.step.run("plain", lambda: first + 1)]

    @function("one-id")
    async def one_id(ctx: inngest.Context) -> list[str]:
        return [await ctx.step.run("same", lambda n=n: _later(seen.note(ctx.run_id, f"a{n}"))) for n in range(3)]

    @function("sleeps")
    async def sleeps(ctx: inngest.Context) -> str:
        await ctx.step.sleep("short", timedelta(milliseconds=300))
        await ctx.step.sleep_until("moment", datetime.now(UTC) + timedelta(milliseconds=300))
        await ctx.step.sleep_until("past", datetime(2020, 1, 1, tzinfo=UTC))
        return "awake"

    @function("waits")
    async def waits(ctx: inngest.Context) -> Any:
        reply = await ctx.step.wait_for_event(
            "reply", event="py/reply", if_exp="event.data.id == async.data.id && async.data.n > 1", timeout=timedelta(minutes=5)
        )
        return None if reply is None else reply.model_dump()

    @function("waits-in-vain")
    async def waits_in_vain(ctx: inngest.Context) -> Any:
        return await ctx.step.wait_for_event("reply", event="py/never", timeout=SECOND)

    @function("waits-wrongly")
    async def waits_wrongly(ctx: inngest.Context) -> Any:
        return await ctx.step.wait_for_event("reply", event="py/reply", if_exp="event.data.a === async.data.a", timeout=SECOND)

    @function("waits-too-long")
    async def waits_too_long(ctx: inngest.Context) -> Any:
        return await ctx.step.wait_for_event("reply", event="py/reply", timeout=timedelta(days=400))

    @function("sends")
    async def sends(ctx: inngest.Context) -> list[str]:
        return await ctx.step.send_event("send", [inngest.Event(name="py/sent", data={"n": n}) for n in range(2)])

    @function("receives", "py/sent")
    async def receives(ctx: inngest.Context) -> Any:
        return ctx.event.data["n"]

    # -- invoke --------------------------------------------------------------------------------------------------------

    @function("callee", "py/callee", retries=0)
    async def callee(ctx: inngest.Context) -> Any:
        if ctx.event.data.get("fail"):
            raise ValueError("callee failed")
        if ctx.event.data.get("sleep"):
            await ctx.step.sleep("long", timedelta(minutes=5))
        return {"got": ctx.event.data["n"], "name": ctx.event.name}

    @function("invokes", retries=0)
    async def invokes(ctx: inngest.Context) -> list[Any]:
        by_function = await ctx.step.invoke("by function", function=callee, data={"n": 1})
        by_id = await ctx.step.invoke_by_id("by id", app_id=client.app_id, function_id="callee", data={"n": 2})
        out: list[Any] = [by_function, by_id]
        for name, options in {
            "failing": {"function_id": "callee", "data": {"fail": True}},
            "unknown": {"function_id": "nowhere"},
            "late": {"function_id": "callee", "data": {"sleep": True, "n": 3}, "timeout": SECOND},
        }.items():
            try:
                await ctx.step.invoke_by_id(name, app_id=client.app_id, **options)
            except inngest.StepError as error:
                out.append([error.name, error.message])
        return out

    # -- parallel --------------------------------------------------------------------------------------------------------

    def branch(ctx: inngest.Context, name: str, seconds: float = 0.0) -> Any:
        async def body() -> str:
            seen.note(ctx.run_id, name)
            await asyncio.sleep(seconds)
            return name

        return functools.partial(ctx.step.run, name, body)

    @function("parallel")
    async def parallel(ctx: inngest.Context) -> list[Any]:
        found = await ctx.group.parallel((branch(ctx, "a"), branch(ctx, "b", 0.1), branch(ctx, "c", 0.2)))
        return [*found, await ctx.step.run("after", lambda: _later("after"))]

    @function("race")
    async def race(ctx: inngest.Context) -> Any:
        seen.note(ctx.run_id, "call")
        return await ctx.group.parallel(
            (branch(ctx, "a", 0.0), branch(ctx, "b", 0.3), branch(ctx, "c", 0.6)), parallel_mode=inngest.ParallelMode.RACE
        )

    @function("mixed-parallel")
    async def mixed_parallel(ctx: inngest.Context) -> list[Any]:
        found = await ctx.group.parallel(
            (
                branch(ctx, "step"),
                functools.partial(ctx.step.sleep, "nap", timedelta(milliseconds=200)),
                functools.partial(ctx.step.wait_for_event, "wait", event="py/never", timeout=SECOND),
                functools.partial(ctx.step.invoke, "invoke", function=callee, data={"n": 5}),
            )
        )
        return list(found)

    @function("parallel-failures", retries=0)
    async def parallel_failures(ctx: inngest.Context) -> list[Any]:
        async def bad(name: str) -> None:
            raise ValueError(name)

        return list(await ctx.group.parallel(tuple(functools.partial(ctx.step.run, n, functools.partial(bad, n)) for n in "ab")))

    # -- errors ----------------------------------------------------------------------------------------------------------

    @function("flaky", retries=3)
    async def flaky(ctx: inngest.Context) -> list[Any]:
        async def body() -> int:
            seen.note(ctx.run_id, ctx.attempt)
            if ctx.attempt < 2:
                raise ConnectionError("down")
            return ctx.attempt

        first = await ctx.step.run("flaky", body)
        return [first, ctx.attempt]

    @function("step-fails", retries=1)
    async def step_fails(ctx: inngest.Context) -> list[Any]:
        try:
            await ctx.step.run("bad", lambda: _raise(ValueError("bad step")))
        except inngest.StepError as error:
            return [error.name, error.message, bool(error.stack), await ctx.step.run("after", lambda: _later("mended"))]
        return []

    async def failed(ctx: inngest.Context) -> Any:
        data = ctx.event.data
        seen.note(str(data["run_id"]), ["on_failure", data["error"], data["event"]["name"], data["function_id"]])
        return "handled"

    @function("fails", retries=2, on_failure=failed)
    async def fails(ctx: inngest.Context) -> None:
        seen.note(ctx.run_id, ctx.attempt)
        raise KeyError("never works")

    @function("not-retriable", retries=3)
    async def not_retriable(ctx: inngest.Context) -> None:
        seen.note(ctx.run_id, ctx.attempt)
        raise inngest.NonRetriableError("no use")

    @function("step-not-retriable", retries=3)
    async def step_not_retriable(ctx: inngest.Context) -> None:
        await ctx.step.run("never", lambda: _raise(inngest.NonRetriableError("no use")))

    @function("retry-after", retries=3)
    async def retry_after(ctx: inngest.Context) -> int:
        seen.note(ctx.run_id, asyncio.get_running_loop().time())
        if ctx.attempt == 0:
            raise inngest.RetryAfterError("busy", timedelta(seconds=2))
        return ctx.attempt

    @function("nested", retries=0)
    async def nested(ctx: inngest.Context) -> None:
        await ctx.step.run("outer", lambda: ctx.step.run("inner", lambda: _later(1)))

    # -- large and remote --------------------------------------------------------------------------------------------------

    @function("large-state")
    async def large_state(ctx: inngest.Context) -> list[int]:
        parts = [await ctx.step.run("part", lambda n=n: _later(str(n) * 1_500_000)) for n in range(4)]
        return [len(part) for part in parts]

    @function("large-output", retries=0)
    async def large_output(ctx: inngest.Context) -> str:
        return "x" * 9_000_000

    @function("many-steps", retries=0)
    async def many_steps(ctx: inngest.Context) -> int:
        for n in range(4):
            await ctx.step.run("step", lambda n=n: _later(n))
        return 4

    @function("much-state", retries=0)
    async def much_state(ctx: inngest.Context) -> int:
        return len(await ctx.step.run("step", lambda: _later("x" * 100)))

    @function("infers", retries=1)
    async def infers(ctx: inngest.Context) -> Any:
        adapter = openai.Adapter(auth_key="sk-test", base_url=model_url, headers={"x-my-header": "mine"}, model="gpt-test")
        return await ctx.step.ai.infer("ask", adapter=adapter, body={"messages": [{"role": "user", "content": ctx.event.data["say"]}]})

    @function("shows-context")
    async def shows_context(ctx: inngest.Context) -> Any:
        await ctx.step.run("one", lambda: _later(1))
        await ctx.step.run("two", lambda: _later(2))
        return {"event": ctx.event.model_dump(), "events": len(ctx.events), "attempt": ctx.attempt}

    return functions


async def _later(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


async def _raise(error: Exception) -> None:
    raise error
