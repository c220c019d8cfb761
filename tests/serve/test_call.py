"""What is said on the wire: how many calls a run takes, and what each of them reports."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec
import pytest
from protocol_server import START, Outcome, Run, sha

from holdfast import App, Backoff, Context, Event, RetryAfterError, SyncContext
from holdfast.testing import Harness

pytestmark = pytest.mark.anyio


class Go(Event, name="c/go"):
    n: int = 0


async def run(served, server, fn) -> Outcome:
    return await asyncio.to_thread(server.run, fn.slug, {"name": "c/go", "data": {"n": 7}})


class Line(msgspec.Struct):
    sku: str


def value(n: Any = 1) -> Any:
    return n


async def test_single_steps_are_executed_at_once(protocol, served):
    app = App("c")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[int]:
        return [await ctx.step.run("one", value, 1), await ctx.step.run("one", value, 2)]

    server = protocol()
    served(app, server)
    outcome = await run(served, server, fn)
    assert outcome.told == [["StepRun one"], ["StepRun one"], ["200"]]
    assert outcome.calls[1].body[0]["userland"] == {"id": "one", "index": 1}
    assert outcome.calls[1].body[0]["id"] == sha("one:1")


async def test_parallel_steps_are_planned_and_cost_one_discovery_more(protocol, served):
    app = App("c")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> int:
        found = await asyncio.gather(ctx.step.run("a", value, 1), ctx.step.run("b", value, 2), ctx.step.run("c", value, 3))
        return sum(found) + await ctx.step.run("after", value, 4)

    server = protocol()
    served(app, server)
    outcome = await run(served, server, fn)
    assert outcome.output == 10
    assert outcome.told == [
        ["StepPlanned a", "StepPlanned b", "StepPlanned c"], ["StepRun a"], ["StepRun b"], ["StepRun c"], ["StepRun after"], ["200"],
    ]
    assert [call.planned_only for call in outcome.calls] == [False, True, True, True, False, False]


async def test_a_step_found_alone_is_planned_while_others_are_under_way(protocol, served):
    app = App("c")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[int]:
        async def chain(name: str) -> int:
            await ctx.step.run(f"{name}1", value)
            return await ctx.step.run(f"{name}2", value)

        return list(await asyncio.gather(chain("a"), chain("b")))

    server = protocol()
    served(app, server)
    outcome = await run(served, server, fn)
    assert outcome.told == [["StepPlanned a1", "StepPlanned b1"], ["StepRun a1"], ["StepRun b1"], ["StepPlanned a2", "StepPlanned b2"], ["StepRun a2"], ["StepRun b2"], ["200"]]


async def test_a_race_is_told_of_each_completion(protocol, served):
    app = App("c")
    done = []

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> str:
        won = await ctx.step.race("race", ctx.step.run("a", note, "a"), ctx.step.run("b", note, "b"), ctx.step.sleep("slow", "1h"))
        return won + await ctx.step.run("after", note, "!")

    def note(text: str) -> str:
        done.append(text)
        return text

    server = protocol()
    served(app, server)
    outcome = await run(served, server, fn)
    assert outcome.output == "a!"
    plan = outcome.calls[0].body
    assert {(op["op"], op["opts"]["parallelMode"]) for op in plan} == {("StepPlanned", "race"), ("Sleep", "race")}
    assert outcome.calls[1].body[0]["opts"]["parallelMode"] == "race"
    assert sorted(done) == ["!", "a", "b"]


async def test_who_won_a_race_stays_the_same_once_the_others_have_finished(protocol, served):
    app = App("c")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> str:
        won = await ctx.step.race("race", ctx.step.run("a", value, "a"), ctx.step.run("b", value, "b"))
        await ctx.step.sleep("nap", "1h")
        return won

    server = protocol()
    served(app, server)
    steps = {sha("a"): {"data": "a"}, sha("b"): {"data": "b"}, sha("nap"): None}
    for order, winner in (("ab", "a"), ("ba", "b")):
        drive = Run(server, fn.slug, {"name": "c/go", "data": {}})
        drive.memos, drive.stack = steps, [sha(order[0]), sha(order[1]), sha("nap")]
        assert (await asyncio.to_thread(drive.drive)).output == winner


async def test_gather_that_collects_errors_sees_no_suspension(protocol, served):
    app = App("c")
    seen = []

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[int]:
        found = await asyncio.gather(ctx.step.run("a", value, 1), ctx.step.sleep("nap", "1h"), return_exceptions=True)
        seen.append(found)
        return [found[0]]

    server = protocol()
    served(app, server)
    assert (await run(served, server, fn)).output == [1]
    assert seen == [[1, None]]


async def test_a_step_in_progress_is_reported_though_the_function_fails_beside_it(protocol, served):
    app = App("c")

    @app.function(Go, retries=0)
    async def fn(ctx: Context[Go]) -> None:
        async def fails() -> None:
            await ctx.step.run("b", value)
            raise ValueError("beside")

        async def slow() -> str:
            for _ in range(30):
                await asyncio.sleep(0)
            return "a"

        await asyncio.gather(ctx.step.run("a", slow), fails())

    server = protocol()
    served(app, server)
    drive = Run(server, fn.slug, {"name": "c/go", "data": {}})
    drive.memos, drive.stack, drive.force_plan = {sha("b"): {"data": 1}}, [sha("b")], True
    drive.queue[0].step = sha("a")
    outcome = await asyncio.to_thread(drive.drive)
    assert outcome.told == [["StepRun a"], ["500"]]
    assert (outcome.output["name"], outcome.output["message"], outcome.failed_events) == ("ValueError", "beside", 1)


@pytest.mark.parametrize("style", ["async", "def"])
async def test_a_planned_step_that_is_gone_is_an_error_that_says_so(protocol, served, style):
    app = App("c")

    @app.function(Go, id="a", retries=0)
    async def a(ctx: Context[Go]) -> int:
        return await ctx.step.run("new", value)

    @app.function(Go, id="d", retries=0)
    def d(ctx: SyncContext[Go]) -> int:
        return ctx.step.run("new", value)

    server = protocol()
    served(app, server)
    drive = Run(server, (a if style == "async" else d).slug, {"name": "c/go", "data": {}})
    drive.queue[0].step = sha("old")
    outcome = await asyncio.to_thread(drive.drive)
    assert outcome.output["name"] == "StepNotFoundError"
    assert "the function's code changed" in outcome.output["message"]


async def test_a_step_that_is_finished_already_is_not_executed_for_a_call_that_comes_late(protocol, served):
    app = App("c")
    done = []

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[Any]:
        return list(await asyncio.gather(ctx.step.run("a", done.append, "a"), ctx.step.run("b", done.append, "b")))

    server = protocol()
    served(app, server)
    drive = Run(server, fn.slug, {"name": "c/go", "data": {}})
    drive.memos, drive.stack, drive.force_plan = {sha("a"): {"data": None}}, [sha("a")], True
    drive.queue[0].step = sha("a")
    assert (await asyncio.to_thread(drive.call, drive.queue[0])).body == []
    assert done == []


async def test_edited_input_runs_a_step_with_other_arguments(protocol, served):
    app = App("c")
    got = []

    def order(n: int, go: Go, line: Line) -> str:
        got.append((n, go, line))
        return f"{n}{go.n}"

    @app.function(Go, retries=0)
    async def fn(ctx: Context[Go]) -> str:
        return await ctx.step.run("order", order, 1, ctx.event.data, Line("x"))

    server = protocol()
    served(app, server)
    said: list[str] = []
    for given, told in (([2, {"n": 3}, {"sku": "y"}], "StepRun order"), ([2, {"n": "x"}, None], "StepFailed order"), ([1], "StepFailed order"), ({"args": [4, {"n": 5}], "kwargs": {"line": {"sku": "z"}}}, "StepRun order")):
        drive = Run(server, fn.slug, {"name": "c/go", "data": {}})
        drive.memos = {sha("order"): {"input": given}}
        call = await asyncio.to_thread(drive.call, drive.queue[0])
        assert call.named == [told]
        said.append(str(call.body[0].get("error")))
    assert got[0][:2] == (2, Go(n=3))
    assert got[1] == (4, Go(n=5), Line("z"))
    assert len(got) == 2
    assert "the edited input of step 'order' does not fit order(" in said[2]


async def test_state_that_is_too_large_for_the_call_is_fetched(protocol, served):
    app = App("c")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[int]:
        return [await ctx.step.run("one", value, ctx.event.data.n), await ctx.step.run("two", value, 2)]

    server = protocol(use_api=True)
    served(app, server)
    assert (await run(served, server, fn)).output == [7, 2]
    paths = [path.rpartition("/")[2] for method, path, _ in server.requests if method == "GET"]
    assert paths == ["actions", "batch"] * 2


async def test_delays_between_attempts_are_the_functions_own(protocol, served):
    app = App("c")
    moments: list[int] = []

    @app.function(Go, retries=3, backoff=Backoff.exponential("2s", 2, jitter="none"))
    async def fn(ctx: Context[Go]) -> None:
        def fail() -> None:
            raise RetryAfterError("busy", 90) if ctx.attempt == 2 else ValueError("no")

        await ctx.step.run("fail", fail)

    @app.function(Go, id="plain", retries=1)
    async def plain(ctx: Context[Go]) -> None:
        raise ValueError("no")

    server = protocol()
    served(app, server)
    outcome = await run(served, server, fn)
    moments = [(call.at - START) // 1000 for call in outcome.calls]
    assert moments[:4] == [0, 2, 6, 96]
    assert outcome.told[:4] == [["StepError fail"]] * 3 + [["StepFailed fail"]]
    # the protocol's own table is the server's business
    assert all("retry-after" not in call.headers for call in (await run(served, server, plain)).calls)


async def test_a_steps_own_retries(protocol, served):
    app = App("c")

    @app.function(Go, retries=4)
    async def fn(ctx: Context[Go]) -> None:
        def fail() -> None:
            raise ValueError("no")

        await ctx.step.options(retries=1, backoff=Backoff.constant("3s")).run("fail", fail)

    server = protocol()
    served(app, server)
    outcome = await run(served, server, fn)
    assert outcome.told == [["StepError fail"], ["StepFailed fail"], ["500"]]
    assert [(call.at - START) // 1000 for call in outcome.calls] == [0, 3, 3]


async def test_since_is_refused_with_the_reason(protocol, served):
    app = App("c")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> None:
        await ctx.step.wait_for_event("wait", "c/x", timeout="1h", since="run")

    server = protocol()
    served(app, server)
    outcome = await run(served, server, fn)
    assert outcome.output["name"] == "StepUsageError"
    assert "since='run' is not in the protocol" in outcome.output["message"]


async def test_a_wait_is_told_as_an_expression(protocol, served):
    app = App("c")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> None:
        await ctx.step.wait_for_event("wait", "c/x", where={"order_id": "o1", "in": 2}, if_="async.data.a > 1 || true", timeout="36h")

    server = protocol()
    served(app, server)
    op = (await run(served, server, fn)).calls[0].body[0]
    assert (op["name"], op["displayName"]) == ("c/x", "wait")
    assert op["opts"] == {"event": "c/x", "timeout": "1d12h", "if": 'async.data.order_id == "o1" && (async.data["in"] == 2) && (async.data.a > 1 || true)'}


async def test_an_invocation_is_told_with_the_other_functions_id(protocol, served):
    from holdfast import FunctionRef

    app = App("c")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> None:
        await ctx.step.invoke("call", FunctionRef("billing/charge", Go, int), Go(n=3), timeout="90s")

    server = protocol()
    served(app, server)
    assert (await run(served, server, fn)).calls[0].body[0]["opts"] == {"function_id": "billing-charge", "payload": {"data": {"n": 3}}, "timeout": "1m30s"}


async def test_a_send_whose_answer_is_lost_is_repeated_with_the_same_seed(protocol, served):
    app = App("c")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[str]:
        return await ctx.step.send("send", [{"name": "c/x"}, {"name": "c/y"}])

    server = protocol()
    served(app, server)
    server.lose_answers = 1
    assert (await run(served, server, fn)).told == [["StepRun send"], ["200"]]
    assert len(server.seeds) == 2
    assert server.seeds[0] == server.seeds[1]


async def test_a_send_that_is_refused_is_tried_again(protocol, served):
    app = App("c")

    @app.function(Go, backoff=Backoff.constant("1s"))
    async def fn(ctx: Context[Go]) -> list[str]:
        return await ctx.step.send("send", {"name": "c/x"})

    server = protocol()
    served(app, server)
    server.refuse_sends = 1
    assert (await run(served, server, fn)).told == [["StepError send"], ["StepRun send"], ["200"]]
    assert [event["name"] for event in server.sent] == ["c/x"]


async def test_a_send_that_the_server_can_not_accept_is_not_tried_again(protocol, served):
    app = App("c")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[str]:
        return await ctx.step.send("send", {"name": "bad/event"})

    server = protocol()
    served(app, server)
    outcome = await run(served, server, fn)
    assert outcome.told == [["StepFailed send"], ["500"]]
    assert "not acceptable" in outcome.output["message"]


async def test_an_event_that_does_not_fit_its_model_any_more_is_not_retried(protocol, served):
    app = App("c")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> None: ...

    server = protocol()
    served(app, server)
    outcome = await asyncio.to_thread(server.run, fn.slug, {"name": "c/go", "data": {"n": "x"}})
    assert len(outcome.calls) == 1
    assert "n: input should be a valid integer" in outcome.output["message"]


async def test_lines_are_logged_once_however_often_the_function_is_called(protocol, served, caplog):
    app = App("c")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> None:
        ctx.logger.info("begin")
        await ctx.step.run("one", lambda: ctx.logger.info("in one"))
        ctx.logger.info("between")
        await asyncio.gather(ctx.step.run("a", lambda: ctx.logger.info("in a")), ctx.step.run("b", lambda: ctx.logger.info("in b")))
        ctx.logger.info("end")

    server = protocol()
    served(app, server)
    with caplog.at_level(logging.INFO, logger="holdfast.run"):
        await run(served, server, fn)
    lines = [record for record in caplog.records if record.name == "holdfast.run.fn"]
    assert [record.getMessage() for record in lines] == ["begin", "in one", "between", "in a", "in b", "end"]
    assert {record.function_id for record in lines} == {"c-fn"}


async def test_failure_handlers_are_registered_and_called(protocol, served):
    app = App("c", on_failure=None)
    seen = []

    async def handler(ctx: Context[Any]) -> None:
        seen.append((ctx.event.data.function_id, ctx.event.data.error["message"], await ctx.step.run("n", value, 1)))

    @app.function(Go, on_failure=handler)
    async def fn(ctx: Context[Go]) -> None: ...

    server = protocol()
    served(app, server)
    document = server.functions["c-fn-failure"]
    assert document["triggers"] == [{"event": "inngest/function.failed", "expression": "event.data.function_id == 'c-fn'"}]
    data = {"function_id": "c-fn", "run_id": "r", "error": {"name": "E", "message": "m"}, "event": {}, "events": [], "_inngest": {}}
    outcome = await asyncio.to_thread(server.run, "c-fn-failure", {"name": "inngest/function.failed", "data": data})
    assert outcome.status == "COMPLETED"
    assert seen == [("c-fn", "m", 1)]


async def test_a_batch_of_events(protocol, served):
    app = App("c")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[int]:
        return [event.data.n for event in ctx.events]

    server = protocol()
    url = served(app, server)
    events = [{"name": "c/go", "data": {"n": n}, "id": str(n), "ts": START} for n in range(3)]
    body = {"ctx": {"run_id": "01JABCDEFGHJKMNPQRSTVWXYZ0"}, "event": events[0], "events": events, "steps": {}}
    status, _, answer = await asyncio.to_thread(server.ask, "POST", f"{url}?fnId=c-fn&stepId=step", body)
    assert (status, answer) == (200, [0, 1, 2])


async def test_a_body_that_holds_the_functions_thread_does_not_hold_the_answer(protocol, served):
    import threading

    app = App("c")
    release = threading.Event()

    @app.function(Go, retries=0)
    def fn(ctx: SyncContext[Go]) -> None:
        ctx.step.options(timeout=0.05).run("stuck", release.wait)

    server = protocol()
    served(app, server)
    try:
        outcome = await run(served, server, fn)
    finally:
        release.set()
    assert outcome.told == [["StepFailed stuck"], ["500"]]
    assert outcome.output["name"] == "StepTimeoutError"


async def test_many_runs_at_once_keep_apart(protocol, served):
    app = App("c")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[int]:
        return list(await asyncio.gather(*(ctx.step.run(f"s{k}", value, ctx.event.data.n * 10 + k) for k in range(4))))

    server = protocol()
    served(app, server)
    outcomes = await asyncio.gather(*(asyncio.to_thread(server.run, fn.slug, {"name": "c/go", "data": {"n": n}}) for n in range(12)))
    assert [outcome.output for outcome in outcomes] == [[n * 10 + k for k in range(4)] for n in range(12)]


async def test_middleware_wraps_functions_and_bodies(protocol, served):
    from holdfast import Middleware

    told = []

    class Told(Middleware):
        async def around_function(self, ctx, call):
            told.append(f"function {ctx.attempt}")
            return await call()

        async def around_step(self, ctx, step_id, call):
            told.append(f"step {step_id} of {ctx.run_id[:4]}")
            return 2 * await call()

    app = App("c", middleware=[Told()])

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> int:
        return await ctx.step.run("n", value, 21)

    server = protocol()
    served(app, server)
    assert (await run(served, server, fn)).output == 42
    assert told == ["function 0", "step n of 01JA", "function 0"]


async def test_what_only_works_in_process_is_refused_with_the_reason(protocol, served):
    app = App("c")

    @app.function(Go)
    async def other(ctx: Context[Go]) -> None: ...

    @app.function(Go, id="parent")
    async def parent(ctx: Context[Go]) -> None:
        await ctx.step.invoke("call", other, Go(), cancel_with_parent=True)

    server = protocol()
    served(app, server)
    outcome = await run(served, server, parent)
    assert "cancel_with_parent is not in the protocol" in outcome.output["message"]


async def test_a_key_that_is_a_python_function_can_not_be_registered(protocol):
    from holdfast import Concurrency
    from holdfast.serve.handler import ServeHandler
    from holdfast.serve.http import Request
    from holdfast.serve.settings import ServeSettings

    app = App("c")

    @app.function(Go, concurrency=Concurrency(1, key=lambda event: event.n))
    async def fn(ctx: Context[Go]) -> None: ...

    handler = ServeHandler(app, ServeSettings.of({}, dev=True, base_url=protocol().url), "local")
    answer = await handler.handle(Request("PUT", "http://x/api/inngest", {}, {}, b""))
    assert answer.status == 500
    assert b"is a Python function, which a server that calls the app can't ask" in answer.body
