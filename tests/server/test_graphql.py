"""The official SDKs' tools ask by GraphQL, about runs in this process and about those of an application over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import pytest
from gql_kit import (
    GO_EVENT,
    GO_EVENT_V2,
    GO_EVENTS_V2,
    GO_FUNCTION_RUN,
    GO_FUNCTIONS,
    GO_OUTPUT,
    GO_RUN,
    GO_RUNS,
    GO_STATUS,
    GO_TRIGGER,
    PY_EVENT,
    PY_OUTPUT,
    PY_RUN,
    PY_SPANS,
    TS_EVENT,
    TS_EVENTS,
    TS_EXAMPLE,
    TS_METADATA,
    TS_OUTPUT,
    TS_RUN,
    TS_SPANS,
    TS_STREAM,
    errors,
    gql,
)
from scripted_sdk import Failed, ScriptedSdk, op, scripted_sdk, step_hash
from server_kit import Running, Start

from holdfast.base.ids import ulid_bytes, ulid_ms
from holdfast.store.reads import RunDetail

pytestmark = pytest.mark.anyio
UNKNOWN = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
AGES_AGO = "2020-01-01T00:00:00Z"


async def until(server: Running, run_id: str, fact: Callable[[RunDetail], bool]) -> RunDetail:
    """Wait until something is recorded of a run."""
    with server.engine.notices.subscribe() as notices:
        while True:
            detail = await server.engine.reader.run(run_id)
            if detail is not None and fact(detail):
                return detail
            try:
                async with asyncio.timeout(0.1):
                    await anext(aiter(notices))
            except TimeoutError:
                continue  # what only parks a run is not said; the test's own time limit ends it


async def ended(server: Running, run_id: str) -> RunDetail:
    return await until(server, run_id, lambda detail: detail.run.ended_at is not None)


async def sent(server: Running, name: str, **data: Any) -> str:
    """Send an event; the run it started."""
    return await server.run_of(await server.send(name, **data))


async def runs(server: Running, **given: Any) -> tuple[list[str], dict[str, Any]]:
    """Ask for runs as the Go SDK's tools do: ids, and the rest."""
    asked = {"first": 40, "startTime": AGES_AGO, "timeField": "QUEUED_AT", "field": "QUEUED_AT", "direction": "DESC"}
    found = (await gql(server, GO_RUNS, **{**asked, **given}))["runs"]
    return [edge["node"]["id"] for edge in found["edges"]], found


@pytest.mark.protocol("gql.python")
class TestPython:
    async def test_steps_by_name_with_their_outputs(self, start: Start):
        async with start() as server:
            run_id = await sent(server, "shop/order.paid", order_id="o1", amount=5)
            await ended(server, run_id)
            spans = (await gql(server, PY_SPANS, run_id=run_id))["run"]["trace"]["childrenSpans"]
            assert [span["name"] for span in spans] == ["charge", "function success"]
            output = await gql(server, PY_OUTPUT, output_id=spans[0]["outputID"])
            assert output["runTraceSpanOutputByID"] == {"data": '"charge-o1"', "error": None}

    async def test_an_events_runs_and_a_runs_output_and_trigger(self, start: Start):
        async with start() as server:
            event_id = await server.send("shop/order.paid", order_id="o1", amount=5)
            found = (await gql(server, PY_EVENT, event_id=event_id))["event"]["functionRuns"]
            await ended(server, found[0]["id"])
            data = await gql(server, PY_RUN, run_id=found[0]["id"])
            assert data["run"] == {"output": '"charge-o1"', "status": "COMPLETED"}
            event = json.loads(data["runTrigger"]["payloads"][0])
            assert (event["name"], event["data"]) == ("shop/order.paid", {"order_id": "o1", "amount": 5})
            assert (await gql(server, PY_EVENT, event_id=UNKNOWN))["event"] is None

    async def test_a_failed_run(self, start: Start):
        async with start() as server:
            run_id = await sent(server, "shop/doomed", message="no luck")
            await ended(server, run_id)
            data = await gql(server, PY_RUN, run_id=run_id)
            assert data["run"]["status"] == "FAILED"
            assert json.loads(data["run"]["output"])["message"] == "no luck"


@pytest.mark.protocol("gql.go")
class TestGo:
    async def test_functions(self, start: Start):
        async with start() as server:
            functions = {one["name"]: one for one in (await gql(server, GO_FUNCTIONS))["functions"]}
            assert functions["fulfil"]["app"]["externalID"] == functions["fulfil"]["app"]["name"] == "shop"

    async def test_a_run_with_its_tree(self, start: Start):
        async with start() as server:
            run_id = await sent(server, "shop/order.paid", order_id="o1", amount=5)
            await ended(server, run_id)
            run = (await gql(server, GO_RUN, runID=run_id, preview=False))["run"]
            assert (run["status"], run["isBatch"], run["batchCreatedAt"], run["cronSchedule"]) == ("COMPLETED", False, None, None)
            root, step, end = run["trace"], *run["trace"]["childrenSpans"]
            assert root["isRoot"]
            assert root["status"] == "COMPLETED"
            assert (step["name"], step["attempts"], step["stepOp"], step["parentSpanID"]) == ("charge", 0, "RUN", root["spanID"])
            assert step["stepInfo"] == {"__typename": "RunStepInfo", "type": None}
            assert (end["name"], end["stepOp"]) == ("function success", None)
            output = (await gql(server, GO_OUTPUT, id=root["outputID"]))["runTraceSpanOutputByID"]
            assert output == {"data": '"charge-o1"', "error": None}
            assert (await gql(server, GO_STATUS, id=run_id))["run"] == {"status": "COMPLETED"}
            assert (await gql(server, GO_FUNCTION_RUN, id=run_id))["functionRun"]["status"] == "COMPLETED"

    async def test_a_wait_under_way_and_over(self, start: Start):
        async with start() as server:
            run_id = await sent(server, "shop/order.shipped", order_id="o1")
            await until(server, run_id, lambda detail: detail.run.status == "WAITING")
            run = (await gql(server, GO_RUN, runID=run_id))["run"]
            waiting = run["trace"]["childrenSpans"][0]
            assert (run["status"], waiting["status"], waiting["endedAt"], waiting["outputID"]) == ("RUNNING", "WAITING", None, None)
            assert waiting["stepInfo"]["eventName"] == "shop/order.paid"
            assert (waiting["stepInfo"]["timedOut"], waiting["stepInfo"]["foundEventID"]) == (None, None)
            assert waiting["childrenSpans"] == []
            event_id = await server.send("shop/order.paid", order_id="o1", amount=5)
            await ended(server, run_id)
            over = (await gql(server, GO_RUN, runID=run_id))["run"]["trace"]["childrenSpans"][0]
            assert (over["status"], over["stepInfo"]["timedOut"], over["stepInfo"]["foundEventID"]) == ("COMPLETED", False, event_id)
            assert over["stepInfo"]["timeout"] == waiting["stepInfo"]["timeout"]
            output = (await gql(server, GO_OUTPUT, id=over["outputID"]))["runTraceSpanOutputByID"]
            assert json.loads(output["data"])["name"] == "shop/order.paid"

    async def test_a_wait_that_timed_out_still_tells_what_it_waited_for(self, start: Start):
        async with start() as server:
            run_id = await sent(server, "shop/order.shipped", order_id="o1")
            await until(server, run_id, lambda detail: detail.run.status == "WAITING")
            server.clock.offset = 25 * 3600 * 1000
            server.engine.timers.arm(0)  # a wall clock that is set forward is noticed within the minute
            await ended(server, run_id)
            info = (await gql(server, GO_RUN, runID=run_id))["run"]["trace"]["childrenSpans"][0]["stepInfo"]
            assert (info["eventName"], info["timedOut"], info["foundEventID"]) == ("shop/order.paid", True, None)

    async def test_a_cancelled_run(self, start: Start):
        async with start() as server:
            run_id = await sent(server, "shop/order.shipped", order_id="o1")
            await until(server, run_id, lambda detail: detail.run.status == "WAITING")
            await gql(server, "mutation($id:ULID!){ cancelRun(runID:$id){ id status } }", id=run_id)
            run = (await gql(server, GO_RUN, runID=run_id))["run"]
            assert (run["status"], run["trace"]["status"], run["trace"]["outputID"]) == ("CANCELLED", "CANCELLED", None)
            assert run["trace"]["childrenSpans"][0]["status"] == "CANCELLED"

    async def test_what_triggered_a_run(self, start: Start):
        async with start() as server:
            event_id = await server.send("shop/order.paid", order_id="o1", amount=5)
            run_id = await server.run_of(event_id)
            trigger = (await gql(server, GO_TRIGGER, id=run_id))["runTrigger"]
            assert (trigger["eventName"], trigger["IDs"], trigger["isBatch"], trigger["cron"]) == ("shop/order.paid", [event_id], False, None)
            began = server.engine.clock.now()
            moment = datetime.fromisoformat(trigger["timestamp"]).timestamp() * 1000
            assert moment < ulid_ms(ulid_bytes(run_id)) <= began + 1
            assert "there is no run" in (await errors(server, GO_TRIGGER, id=UNKNOWN))[0]

    async def test_a_schedule_as_trigger(self, start: Start):
        async with start() as server:
            crons = await server.engine.reader.crons()
            run_id = await server.engine.run_cron(crons[0].function, crons[0].schedule)
            trigger = (await gql(server, GO_TRIGGER, id=run_id))["runTrigger"]
            assert (trigger["cron"], trigger["eventName"]) == (crons[0].schedule, None)
            assert (await gql(server, GO_RUN, runID=run_id))["run"]["cronSchedule"] == crons[0].schedule

    async def test_an_event_and_its_raw_form(self, start: Start):
        async with start() as server:
            response = await server.http.post("/e/x", json={"name": "shop/none", "id": "mine"})
            event_id = response.json()["ids"][0]
            event = (await gql(server, GO_EVENT_V2, id=event_id))["eventV2"]
            assert (event["id"], event["idempotencyKey"], event["version"], event["runs"]) == (event_id, "mine", None, [])
            raw = json.loads(event["raw"])
            assert raw == {"data": {}, "id": "mine", "name": "shop/none", "ts": raw["ts"], "v": None}
            assert (await gql(server, GO_EVENT, id=event_id))["event"] == {"functionRuns": []}
            assert "there is no event" in (await errors(server, GO_EVENT_V2, id=UNKNOWN))[0]
            assert "is not an id" in (await errors(server, GO_EVENT_V2, id="x"))[0]

    async def test_events_are_filtered_and_paged(self, start: Start):
        async with start() as server:
            ids = [await server.send("some/thing", n=n) for n in range(45)]
            await sent(server, "shop/doomed")
            asked = {"from": AGES_AGO, "includeInternalEvents": False, "eventNames": ["some/thing"]}
            first = (await gql(server, GO_EVENTS_V2, **asked))["eventsV2"]
            assert [edge["node"]["id"] for edge in first["edges"]] == ids[::-1][:40]
            assert (first["totalCount"], first["pageInfo"]["hasNextPage"], first["pageInfo"]["hasPreviousPage"]) == (45, True, False)
            rest = (await gql(server, GO_EVENTS_V2, **asked, after=first["pageInfo"]["endCursor"]))["eventsV2"]
            assert [edge["node"]["id"] for edge in rest["edges"]] == ids[::-1][40:]
            assert (rest["pageInfo"]["hasNextPage"], rest["pageInfo"]["hasPreviousPage"]) == (False, True)
            some = (await gql(server, GO_EVENTS_V2, **asked, query="event.data.n > 41\nevent.data.n != 43"))["eventsV2"]
            assert [json.loads(edge["node"]["raw"])["data"]["n"] for edge in some["edges"]] == [44, 42]
            wide = {"from": AGES_AGO, "includeInternalEvents": True, "eventNames": None}
            everything = (await gql(server, GO_EVENTS_V2, **wide))["eventsV2"]["edges"]
            assert {edge["node"]["name"] for edge in everything} >= {"inngest/function.failed", "shop/doomed"}


@pytest.mark.protocol("gql.search")
class TestRuns:
    async def test_expressions_over_events_outputs_and_errors(self, start: Start):
        scripts = {
            "count": lambda call, _step: {"num": call["event"]["data"]["idx"] * 2},
            "fail": lambda call, _step: fail(call),
        }
        async with start() as server:
            with scripted_sdk("remote", scripts) as sdk:
                await registered(server, sdk)
                made = []
                for idx in range(8):
                    made.append(await sent(server, "remote/count", idx=idx, b=idx % 2 == 0, n=None if idx < 3 else idx))
                failed = await sent(server, "remote/fail", idx=100)
                for run_id in [*made, failed]:
                    await ended(server, run_id)
                cases = {
                    "event.data.idx > 5 && event.data.idx < 100": made[6:],
                    "output.num > 11": made[6:],
                    'error.message == "fail"': [failed],
                    "event.data.b == true": made[::2],
                    "event.data.n == null\nevent.name == 'remote/count'": made[:3],
                    "event.data.n != null": made[3:],
                    "event.data.idx > 5\noutput.num < 13": made[6:7],
                    "event.data.idx == 1\nerror.message == 'fail'": [],
                    "output.other == null\nevent.data.idx < 2": made[:2],
                }
                for query, expected in cases.items():
                    ids, found = await runs(server, query=query)
                    assert ids == expected[::-1], query
                    assert found["totalCount"] == len(expected), query
                response = await server.http.post(
                    "/v0/gql", json={"query": GO_RUNS, "variables": {
                        "first": 1, "startTime": AGES_AGO, "timeField": "QUEUED_AT", "field": "QUEUED_AT", "direction": "ASC", "query": "event. ==",
                    }},
                )  # fmt: skip
                assert "not a valid expression" in response.json()["errors"][0]["message"]

    async def test_orders_pages_and_filters(self, start: Start):
        async with start() as server:
            made = [await sent(server, "shop/order.paid", order_id=f"o{n}", amount=n) for n in range(5)]
            failed = await sent(server, "shop/doomed")
            waiting = await sent(server, "shop/order.shipped", order_id="z")
            for run_id in [*made, failed]:
                await ended(server, run_id)
            await until(server, waiting, lambda detail: detail.run.status == "WAITING")
            everything = [*made, failed, waiting]
            assert (await runs(server))[0] == everything[::-1]
            assert (await runs(server, direction="ASC"))[0] == everything
            assert (await runs(server, status=["FAILED"]))[0] == [failed]
            assert (await runs(server, status=["RUNNING"]))[0] == [waiting]
            assert (await runs(server, timeField="ENDED_AT"))[1]["totalCount"] == 6
            assert (await runs(server, endTime=AGES_AGO))[0] == []
            functions = {one["name"]: one["id"] for one in (await gql(server, GO_FUNCTIONS))["functions"]}
            assert (await runs(server, functionIDs=[functions["doomed"]]))[0] == [failed]
            for field in ("QUEUED_AT", "STARTED_AT", "ENDED_AT"):
                for direction in ("ASC", "DESC"):
                    whole, _ = await runs(server, field=field, direction=direction)
                    walked, after = [], None
                    while True:
                        ids, found = await runs(server, field=field, direction=direction, first=3, after=after)
                        walked += ids
                        after = found["pageInfo"]["endCursor"]
                        assert found["totalCount"] == 7
                        if not found["pageInfo"]["hasNextPage"]:
                            break
                    assert walked == whole
                    times = [edge["node"]["endedAt"] for edge in (await runs(server, field=field, direction=direction))[1]["edges"]]
                    if field == "ENDED_AT":
                        assert times[-1] is None
                        assert times[:-1] == sorted(times[:-1], reverse=direction == "DESC")
            response = await server.http.post("/v0/gql", json={"query": GO_RUNS, "variables": {
                "first": 1, "startTime": AGES_AGO, "timeField": "QUEUED_AT", "field": "QUEUED_AT", "direction": "ASC", "after": "x",
            }})  # fmt: skip
            assert "is no cursor" in response.json()["errors"][0]["message"]


@pytest.mark.protocol("gql.typescript")
class TestTypeScript:
    async def test_the_preview_of_a_run(self, start: Start):
        async with start() as server:
            event_id = await server.send("shop/order.paid", order_id="o1", amount=5)
            run_id = await server.run_of(event_id)
            await ended(server, run_id)
            run = (await gql(server, TS_RUN, runId=run_id))["run"]
            assert run["trace"]["status"] == run["status"] == "COMPLETED"
            output = await gql(server, TS_OUTPUT, traceID=run["trace"]["outputID"])
            assert output["runTraceSpanOutputByID"] == {"data": '"charge-o1"', "error": None}
            spans = (await gql(server, TS_SPANS, runID=run_id))["run"]["trace"]
            assert (spans["name"], [span["name"] for span in spans["childrenSpans"]]) == ("Run", ["charge", "Finalization"])
            assert spans["childrenSpans"][0]["stepID"] == "charge"
            children = (await gql(server, TS_METADATA, runID=run_id, preview=True))["run"]["trace"]["childrenSpans"]
            assert [child["metadata"] for child in children] == [[], []]
            example = (await gql(server, TS_EXAMPLE, runID=run_id))["run"]["trace"]["childrenSpans"]
            assert [span["stepType"] for span in example] == ["RUN", "FINALIZATION"]
            event = (await gql(server, TS_EVENT, id=event_id))["eventV2"]
            assert (event["idempotencyKey"], event["name"]) == (event_id, "shop/order.paid")
            stream = (await gql(server, TS_STREAM))["stream"]
            assert stream == [{"id": event_id, "trigger": "shop/order.paid", "runs": [{"id": run_id, "function": {"name": "fulfil"}}]}]
            events = (await gql(server, TS_EVENTS, query={}))["events"]
            assert (events[0]["id"], json.loads(events[0]["payload"])["order_id"]) == (event_id, "o1")


def fail(call: dict[str, Any]) -> Any:
    raise Failed({"name": "Error", "message": "fail", "stack": "at fail"})


async def registered(server: Running, sdk: ScriptedSdk, **configs: dict[str, Any]) -> None:
    sdk.server_url = str(server.http.base_url).rstrip("/")
    answer = await server.http.post("/fn/register", json=sdk.document(**configs))
    assert answer.status_code == 200, answer.text


class TestRemote:
    """Runs of an application over HTTP."""

    async def test_names_kinds_retries_and_outputs(self, start: Start):
        def steps(call: dict[str, Any], step: str) -> Any:
            known = call["steps"]
            if step_hash("Charge the card") not in known:
                if call["ctx"]["attempt"] == 0:
                    return [op("StepError", "Charge the card", error={"name": "Declined", "message": "not now"})]
                return [op("StepRun", "Charge the card", data={"id": 7})]
            if step_hash("nap") not in known:
                return [op("Sleep", "nap", opts={"duration": "50ms"})]
            return {"charge": known[step_hash("Charge the card")]["data"]["id"]}

        async with start(retry_interval_ms=10) as server:
            with scripted_sdk("remote", {"steps": steps}) as sdk:
                await registered(server, sdk)
                run_id = await sent(server, "remote/steps")
                await ended(server, run_id)
                trace = (await gql(server, GO_RUN, runID=run_id, preview=False))["run"]["trace"]
                charge, nap, end = trace["childrenSpans"]
                assert (charge["name"], charge["attempts"], charge["stepOp"]) == ("Charge the card", 1, "RUN")
                below = [(one["name"], one["status"], one["attempts"]) for one in charge["childrenSpans"]]
                assert below == [("Attempt 0", "FAILED", 0), ("Attempt 1", "COMPLETED", 1)]
                outputs = [
                    (await gql(server, GO_OUTPUT, id=one["outputID"]))["runTraceSpanOutputByID"]
                    for one in [charge, *charge["childrenSpans"]]
                ]
                assert [one["data"] and json.loads(one["data"]) for one in outputs] == [{"id": 7}, None, {"id": 7}]
                assert outputs[1]["error"]["message"] == "not now"
                assert (nap["stepOp"], nap["stepInfo"]["__typename"], nap["outputID"]) == ("SLEEP", "SleepStepInfo", None)
                assert end["name"] == "function success"
                assert json.loads((await gql(server, PY_RUN, run_id=run_id))["run"]["output"]) == {"charge": 7}

    async def test_a_function_that_failed_and_then_waited(self, start: Start):
        def waits(call: dict[str, Any], step: str) -> Any:
            if call["ctx"]["attempt"] == 0 and not call["steps"]:
                raise Failed({"name": "Error", "message": "first"}, no_retry=False)
            if step_hash("answer") not in call["steps"]:
                return [op("WaitForEvent", "answer", opts={"event": "remote/answer", "timeout": "1h"})]
            return call["steps"][step_hash("answer")]["data"]

        async with start(retry_interval_ms=10) as server:
            with scripted_sdk("remote", {"waits": waits}) as sdk:
                await registered(server, sdk)
                run_id = await sent(server, "remote/waits")
                await until(server, run_id, lambda detail: any(step.kind == "wait_event" for step in detail.steps))
                event_id = await server.send("remote/answer", yes=True)
                await ended(server, run_id)
                wait = (await gql(server, GO_RUN, runID=run_id))["run"]["trace"]["childrenSpans"][0]
                assert (wait["name"], wait["attempts"]) == ("answer", 0)
                assert [(one["name"], one["status"]) for one in wait["childrenSpans"]] == [("Attempt 0", "FAILED"), ("Attempt 1", "COMPLETED")]
                assert (wait["stepInfo"]["foundEventID"], wait["stepInfo"]["eventName"]) == (event_id, "remote/answer")

    async def test_invoke_while_it_runs_and_after(self, start: Start):
        def calls(call: dict[str, Any], step: str) -> Any:
            if step_hash("ask") not in call["steps"]:
                return [op("InvokeFunction", "ask", opts={"function_id": "remote-slow", "payload": {"data": {"a": 1}}})]
            return call["steps"][step_hash("ask")]

        def slow(call: dict[str, Any], step: str) -> Any:
            if step_hash("go") not in call["steps"]:
                return [op("WaitForEvent", "go", opts={"event": "remote/go", "timeout": "1h"})]
            return "went"

        async with start() as server:
            with scripted_sdk("remote", {"calls": calls, "slow": slow}) as sdk:
                await registered(server, sdk)
                run_id = await sent(server, "remote/calls")
                await until(server, run_id, lambda detail: bool(detail.children) and detail.children[0].status == "WAITING")
                before = (await gql(server, GO_RUN, runID=run_id, preview=True))["run"]["trace"]["childrenSpans"][0]
                child = (await server.engine.reader.run(run_id)).children[0]
                assert (before["name"], before["stepInfo"]["runID"], before["status"]) == ("ask", child.id, "WAITING")
                assert before["stepInfo"]["functionID"] == "remote-slow"
                assert before["stepInfo"]["triggeringEventID"] == child.event_id
                await server.send("remote/go")
                await ended(server, run_id)
                after = (await gql(server, GO_RUN, runID=run_id))["run"]["trace"]["childrenSpans"][0]
                assert (after["stepInfo"]["timedOut"], after["stepInfo"]["runID"]) == (False, child.id)
                assert after["stepInfo"]["returnEventID"]
                output = (await gql(server, GO_OUTPUT, id=after["outputID"]))["runTraceSpanOutputByID"]
                assert output["data"] == '"went"'

    async def test_batches(self, start: Start):
        async with start() as server:
            with scripted_sdk("remote", {"batch": lambda call, _step: len(call["events"])}) as sdk:
                await registered(server, sdk, batch={"batchEvents": {"maxSize": 2, "timeout": "60s"}})
                ids = [await server.send("remote/batch", n=n) for n in range(4)]
                made = [await server.run_of(ids[0]), await server.run_of(ids[2])]
                for run_id in made:
                    await ended(server, run_id)
                found, rest = await runs(server, query="event.data.n >= 0")
                assert (sorted(found), rest["totalCount"]) == (sorted(made), 2)
                assert (await runs(server, query="event.data.n == 1"))[0] == made[:1]
                trigger = (await gql(server, GO_TRIGGER, id=made[0]))["runTrigger"]
                assert (trigger["isBatch"], trigger["IDs"]) == (True, ids[:2])
                assert [json.loads(one)["data"]["n"] for one in trigger["payloads"]] == [0, 1]
                run = (await gql(server, GO_RUN, runID=made[0]))["run"]
                assert (run["isBatch"], run["batchCreatedAt"] is not None) == (True, True)


@pytest.mark.protocol("gql.changes")
class TestMutations:
    async def test_applications_come_and_go(self, start: Start):
        async with start() as server:
            with scripted_sdk("remote", {"one": lambda _call, _step: 1}) as sdk:
                sdk.server_url = str(server.http.base_url).rstrip("/")
                created = await gql(server, "mutation($url:String!){ createApp(input:{url:$url}){ id externalID url functionCount } }", url=sdk.url)
                assert (created["createApp"]["externalID"], created["createApp"]["functionCount"]) == ("remote", 1)
                deleted = await gql(server, "mutation($id:String!){ deleteApp(id:$id) }", id=created["createApp"]["id"])
                assert deleted == {"deleteApp": created["createApp"]["id"]}
                assert "there is no application" in (await errors(server, "mutation($id:String!){ deleteApp(id:$id) }", id=created["createApp"]["id"]))[0]
                assert await gql(server, 'mutation{ deleteAppByName(name:"remote") }') == {"deleteAppByName": False}
            said = await errors(server, "mutation($url:String!){ createApp(input:{url:$url}){ id } }", url=sdk.url)
            assert "nothing listens" in said[0]

    async def test_invoking_and_running_again(self, start: Start):
        invoke: Callable[..., Awaitable[Any]] = lambda server, **given: gql(  # noqa: E731
            server, "mutation($slug:String!,$data:Map){ invokeFunction(functionSlug:$slug,data:$data) }", **given
        )
        async with start() as server:
            with scripted_sdk("remote", {"one": lambda call, _step: call["event"]["data"].get("a")}) as sdk:
                await registered(server, sdk)
                assert await invoke(server, slug="remote-one", data={"a": 3}) == {"invokeFunction": True}
                (run_id,), _ = await runs(server)
                await ended(server, run_id)
                assert (await gql(server, PY_RUN, run_id=run_id))["run"]["output"] == "3"
                again = (await gql(server, "mutation($id:ULID!){ rerun(runID:$id) }", id=run_id))["rerun"]
                await ended(server, again)
                assert (await gql(server, PY_RUN, run_id=again))["run"]["output"] == "3"
                audit = [entry.action for entry in await server.engine.reader.audit()]
                assert audit[:2] == ["run.rerun", "function.invoke"]
            assert "there is no function" in (
                await errors(server, 'mutation{ invokeFunction(functionSlug:"none") }')
            )[0]
            assert "is no run" in (await errors(server, "mutation($id:ULID!){ cancelRun(runID:$id){ id } }", id=UNKNOWN))[0]


    async def test_a_run_starts_again_at_a_step(self, start: Start):
        rerun = "mutation($id:ULID!,$step:String!,$input:Bytes){ rerun(runID:$id, fromStep:{stepID:$step, input:$input}) }"
        async with start() as server:
            run_id = await sent(server, "shop/order.paid", order_id="o1", amount=5)
            await ended(server, run_id)
            again = (await gql(server, rerun, id=run_id, step="charge"))["rerun"]
            detail = await ended(server, again)
            assert (again != run_id, detail.run.status, detail.run.parent_id) == (True, "COMPLETED", run_id)
            assert "nothing" in (await errors(server, rerun, id=run_id, step="nothing"))[0]
            assert "must be JSON" in (await errors(server, rerun, id=run_id, step="charge", input="{"))[0]

    async def test_a_dead_letter_of_an_application_goes_on_where_it_failed(self, start: Start):
        healed = False

        def flaky(call: dict[str, Any], step: str) -> Any:
            if step_hash("one") not in call["steps"]:
                return [op("StepRun", "one", data=1)]
            if not healed:
                raise Failed({"name": "Error", "message": "not yet"})
            return call["steps"][step_hash("one")]["data"] + 1

        async with start() as server:
            with scripted_sdk("remote", {"flaky": flaky}) as sdk:
                await registered(server, sdk)
                run_id = await sent(server, "remote/flaky")
                await ended(server, run_id)
                healed = True
                again = (await server.http.post(f"/v1/runs/{run_id}/redrive")).json()["data"]["run_id"]
                await ended(server, again)
                assert (await gql(server, PY_RUN, run_id=again))["run"] == {"output": "2", "status": "COMPLETED"}


@pytest.mark.protocol("gql.transport")
class TestTransport:
    @pytest.mark.parametrize("body", ["", "x", "[]", "{}", '{"query":1}'])
    async def test_no_question(self, start: Start, body):
        async with start() as server:
            response = await server.http.post("/v0/gql", content=body)
            assert (response.status_code, response.json()["code"]) == (400, "bad_request")

    @pytest.mark.parametrize(
        ("query", "said"),
        [
            ("query{", "Syntax Error"),
            ("query{ nothing }", "Cannot query field 'nothing'"),
            ("query{ functions{ id " + "name " * 6000 + "} }", "tokens"),
            ("query A{ functions{id} } query B{ functions{id} }", "operation name"),
        ],
    )
    async def test_what_can_not_be_answered(self, start: Start, query, said):
        async with start() as server:
            assert said in (await errors(server, query))[0]

    async def test_what_goes_round_in_circles_ends(self, start: Start):
        async with start() as server:
            circles = "app{ functions{ " * 10 + "id" + " } }" * 10
            assert "more than 16 deep" in (await errors(server, f"query{{ functions{{ {circles} }} }}"))[0]
            names = " ".join(f"n{n}: name" for n in range(400))
            wide = "app{ functions{ " * 3 + names + " } }" * 3
            assert await errors(server, f"query{{ functions{{ {wide} }} }}") == ["the answer has more than 50,000 fields; ask for less at once"]

    async def test_an_unknown_run_is_null_and_its_output_an_error(self, start: Start):
        async with start() as server:
            assert await gql(server, GO_STATUS, id=UNKNOWN) == {"run": None}
            assert await gql(server, GO_STATUS, id="no id") == {"run": None}
            assert "no output id" in (await errors(server, PY_OUTPUT, output_id="x"))[0]
