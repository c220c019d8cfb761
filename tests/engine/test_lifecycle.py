"""P3: what the end of a run announces: the protocol's events, as triggers, without recursion."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from holdfast import (
    App,
    Context,
    Event,
    FunctionCancelled,
    FunctionFailed,
    FunctionFinished,
    NonRetriableError,
    On,
    RunFailedError,
)

pytestmark = pytest.mark.anyio


class Go(Event, name="test/go"):
    n: int = 0


def working_app() -> App:
    app = App("t")

    @app.function(Go, id="work", retries=0)
    async def work(ctx: Context[Go]) -> dict[str, int]:
        if ctx.event.data.n < 0:
            raise NonRetriableError("negative")
        if ctx.event.data.n > 100:
            await ctx.step.sleep("long", "1h")
        return {"n": ctx.event.data.n}

    @app.function("test/call", id="call")
    async def call(ctx: Context[Any]) -> None:
        await ctx.step.invoke("down", work, Go(n=ctx.event.data["n"]))

    return app


def stored(query: Any, name: str) -> list[tuple[str | None, dict[str, Any]]]:
    return [(key, json.loads(raw)) for key, raw in query("SELECT key, data FROM events WHERE name = ? ORDER BY id", name)]


@pytest.mark.protocol("run.lifecycle")
async def test_the_payloads_are_the_protocols(engine_for, query):
    app = working_app()
    work = app.functions["work"]

    @app.function(FunctionFinished, id="listener")
    async def listener(ctx: Context[FunctionFinished]) -> None: ...

    async with engine_for(app, linger_ms=0) as engine:
        done = await app.start(work, Go(n=1), id="mine")
        await done.result(timeout=60)
        failed = await app.start(work, Go(n=-1))
        await engine.idle()
        cancelled = await app.start(work, Go(n=200))
        await engine.idle()
        await cancelled.cancel()
        await engine.idle()
    finished = {data["run_id"]: (key, data) for key, data in stored(query, "inngest/function.finished")}
    assert set(finished) == {done.id, failed.id, cancelled.id}
    key, data = finished[done.id]
    assert key is None
    assert {**data, "events": None, "event": None} == {
        "function_id": "t-work", "run_id": done.id, "app_id": "t", "result": {"n": 1}, "event": None, "events": None,
        "_inngest": {"status": "Completed"},
    }  # fmt: skip
    assert data["events"] == [data["event"]]
    assert (data["event"]["name"], data["event"]["id"], data["event"]["data"]) == ("test/go", "mine", {"n": 1})
    ((key, data),) = stored(query, "inngest/function.failed")
    assert key == failed.id
    assert data == finished[failed.id][1]
    assert data["_inngest"] == {"status": "Failed"}
    assert (data["error"]["name"], data["error"]["message"]) == ("NonRetriableError", "negative")
    assert "result" not in data
    ((key, data),) = stored(query, "inngest/function.cancelled")
    assert key == cancelled.id
    assert data["_inngest"] == {"status": "Cancelled"}
    assert not {"error", "result", "correlation_id"} & set(data)


async def test_an_invoked_run_says_for_which_step_it_was(engine_for, query):
    app = working_app()
    seen: list[FunctionFailed] = []

    @app.function(FunctionFailed, id="listener")
    async def listener(ctx: Context[FunctionFailed]) -> None:
        seen.append(ctx.event.data)

    async with engine_for(app) as engine:
        await app.send({"name": "test/call", "data": {"n": -1}})
        await engine.idle()
    by_function = {failed.function_id: failed for failed in seen}
    ((caller,),) = query("SELECT lower(hex(parent_id)) FROM runs WHERE parent_id IS NOT NULL")
    from holdfast.base.ids import ulid_text

    assert by_function["t-work"].correlation_id == f"{ulid_text(bytes.fromhex(caller))}.down"
    assert by_function["t-call"].correlation_id is None


@pytest.mark.protocol("run.lifecycle")
async def test_each_can_be_a_trigger_with_a_condition(engine_for):
    app = working_app()
    seen: list[str] = []

    @app.function(On(FunctionFinished, if_="event.data._inngest.status == 'Completed'"), id="completed")
    async def completed(ctx: Context[FunctionFinished]) -> None:
        seen.append(f"finished {ctx.event.data.function_id} {ctx.event.data.result}")

    @app.function(FunctionCancelled, id="cancelled")
    async def cancelled(ctx: Context[FunctionCancelled]) -> None:
        seen.append(f"cancelled {ctx.event.data.function_id}")

    async with engine_for(app, linger_ms=0) as engine:
        await (await app.start(app.functions["work"], Go(n=7))).result(timeout=60)
        long = await app.start(app.functions["work"], Go(n=200))
        await engine.idle()
        await long.cancel()
        await engine.idle()
    # the handler of a cancellation finishes as well; the handlers of function.finished announce nothing themselves
    assert sorted(seen) == ["cancelled t-work", "finished t-cancelled None", "finished t-work {'n': 7}"]


@pytest.mark.protocol("run.lifecycle")
async def test_the_failure_of_a_cancellation_handler_is_announced_and_that_of_a_failure_handler_is_not(engine_for, query):
    app = working_app()

    @app.function(FunctionCancelled, id="on-cancel", retries=0)
    async def on_cancel(ctx: Context[FunctionCancelled]) -> None:
        raise NonRetriableError("first")

    @app.function(FunctionFailed, id="on-failure", retries=0)
    async def on_failure(ctx: Context[FunctionFailed]) -> None:
        raise NonRetriableError("second")

    async with engine_for(app, linger_ms=0) as engine:
        long = await app.start(app.functions["work"], Go(n=200))
        await engine.idle()
        await long.cancel()
        await engine.idle()
        await asyncio.sleep(0)
    assert [data["function_id"] for _, data in stored(query, "inngest/function.failed")] == ["t-on-cancel"]


async def test_finished_is_stored_only_where_something_listens(engine_for, query):
    app = working_app()
    async with engine_for(app, linger_ms=0) as engine:
        await app.send({"name": "test/call", "data": {"n": 1}})
        await engine.idle()
        # an invocation waits for a run, not for the event
        await app.send({"name": "test/call", "data": {"n": 2}})
        await engine.idle()
    assert stored(query, "inngest/function.finished") == []


@pytest.mark.protocol("run.lifecycle")
async def test_a_run_can_wait_for_the_end_of_another(engine_for):
    app = working_app()

    @app.function("test/wait", id="waiting")
    async def waiting(ctx: Context[Any]) -> Any:
        got = await ctx.step.wait_for_event("end", FunctionFinished, where={"function_id": "t-work"}, timeout="1h")
        return got and got.data.result

    async with engine_for(app, linger_ms=0) as engine:
        handle = await app.start(waiting, {})
        await engine.idle()
        await app.start(app.functions["work"], Go(n=5))
        assert await handle.result(timeout=60) == {"n": 5}


@pytest.mark.protocol("events.labels")
async def test_sessions_travel_to_what_follows(engine_for, query):
    from holdfast.sdk.sender import Outgoing

    app = working_app()
    async with engine_for(app) as engine:
        event = Outgoing("test/go", b'{"n": -1}', user=b'{"id": 1}', meta=b'{"sessions": {"cart": "c1"}}')
        await engine.send([event])
        await engine.idle()
    ((meta,),) = query("SELECT meta FROM events WHERE name = 'inngest/function.failed'")
    assert json.loads(meta) == {"meta": {"sessions": {"cart": "c1"}}}


async def test_a_step_that_nobody_catches_ends_the_run_with_its_own_error_and_its_name(engine_for, query):
    app = App("t")
    told: list[FunctionFailed] = []

    class ShopShutError(Exception):
        pass

    def shut() -> None:
        raise ShopShutError("the shop is shut")

    async def failed(ctx: Context[FunctionFailed]) -> None:
        told.append(ctx.event.data)

    @app.function(Go, id="buy", retries=0, on_failure=failed)
    async def buy(ctx: Context[Go]) -> None:
        await ctx.step.run("enter", shut)

    async with engine_for(app) as engine:
        handle = await app.start(buy, Go())
        with pytest.raises(RunFailedError, match="at step 'enter': ShopShutError: the shop is shut") as raised:
            await handle.result(timeout=30)
        await engine.idle()
        (letter,), _ = await engine.reader.dead_letters()
    assert (raised.value.name, raised.value.message, raised.value.step) == ("ShopShutError", "the shop is shut", "enter")
    (failure,) = told
    assert {key: failure.error[key] for key in ("name", "message", "step")} == {
        "name": "ShopShutError", "message": "the shop is shut", "step": "enter",
    }
    assert "ShopShutError: the shop is shut" in failure.error["stack"]
    assert letter.error == "ShopShutError: the shop is shut"
