"""Functions on the official Python SDK: each kind of step, and what the server asks of the SDK for it."""

from __future__ import annotations

import hashlib
import json
import re

import pytest
from live_server import error_of, output_of, until


def sha(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


@pytest.mark.protocol("step.run", "register.sync")
def test_steps_of_async_functions(server, seen):
    run = server.call("py/async-steps", {"n": 4})
    assert output_of(run) == [8, None, 9]
    assert seen.notes[run["run_id"]] == [8]
    assert seen.told(run["run_id"]) == [["StepRun double"], ["StepRun nothing"], ["StepRun plain"], 200]


@pytest.mark.protocol("step.run")
def test_steps_of_plain_functions(server, seen):
    run = server.call("py/sync-steps", {"n": 4})
    assert output_of(run) == [8, 9]
    assert seen.notes[run["run_id"]] == [8]


@pytest.mark.protocol("step.run")
def test_an_id_used_in_a_loop(server, seen):
    run = server.call("py/one-id")
    assert output_of(run) == ["a0", "a1", "a2"]
    assert seen.notes[run["run_id"]] == ["a0", "a1", "a2"]


@pytest.mark.protocol("step.sleep")
def test_sleeps(server, seen):
    run = server.call("py/sleeps")
    assert output_of(run) == "awake"
    assert run["duration_ms"] >= 550
    assert seen.told(run["run_id"]) == [["Sleep short"], ["Sleep moment"], ["Sleep past"], 200]


@pytest.mark.protocol("step.wait")
def test_a_wait_that_an_event_resolves(server):
    run_id = server.started(server.send("py/waits", {"id": "x7"}))
    server.waiting(run_id, "reply")
    server.send("py/reply", {"id": "other", "n": 5})
    server.send("py/reply", {"id": "x7", "n": 1})
    server.send("py/reply", {"id": "x7", "n": 2}, id="reply-1", ts=1_900_000_000_000)
    reply = output_of(server.ended(run_id))
    assert reply == {"name": "py/reply", "data": {"id": "x7", "n": 2}, "id": "reply-1", "ts": 1_900_000_000_000}


@pytest.mark.protocol("step.wait")
def test_a_wait_that_times_out(server):
    assert output_of(server.call("py/waits-in-vain")) is None


@pytest.mark.protocol("step.wait")
def test_a_wait_whose_expression_is_wrong(server):
    error = error_of(server.call("py/waits-wrongly"))
    told = error["output"]["error"]
    assert told["name"] == "InvalidExpression"
    assert told["message"] == "Wait for event If expression failed to compile"
    assert told["error"] == "InvalidExpression: Wait for event If expression failed to compile"
    assert told["stack"] == (
        "error compiling expression: ERROR: <input>:1:16: Syntax error: token recognition error at: '= '\n"
        " | event.data.a === async.data.a\n | ...............^"
    )


@pytest.mark.protocol("step.wait")
def test_a_wait_of_more_than_a_year_fails_the_run(server):
    assert error_of(server.call("py/waits-too-long"))["name"] == "InngestErrTimeoutTooLong"


@pytest.mark.protocol("step.send")
def test_events_sent_from_a_step(server):
    ids = output_of(server.call("py/sends"))
    assert [output_of(server.finished(one)) for one in ids] == [0, 1]


@pytest.mark.protocol("step.invoke")
def test_invoking(server):
    run = server.call("py/invokes")
    assert output_of(run) == [
        {"got": 1, "name": "inngest/function.invoked"},
        {"got": 2, "name": "inngest/function.invoked"},
        ["ValueError", "callee failed"],
        ["Error", "could not find function with ID: py-nowhere"],
        ["InngestInvokeTimeoutError", "Timed out waiting for invoked function to complete"],
    ]


@pytest.mark.protocol("parallel.together")
def test_parallel_steps_take_one_discovery_for_all(server, seen):
    run = server.call("py/parallel")
    assert output_of(run) == ["a", "b", "c", "after"]
    assert sorted(seen.notes[run["run_id"]]) == ["a", "b", "c"]
    calls = seen.calls(run["run_id"])
    assert calls[0].told == ["StepPlanned a", "StepPlanned b", "StepPlanned c"]
    assert sorted(one.told[0] for one in calls[1:4]) == ["StepRun a", "StepRun b", "StepRun c"]
    assert {one.step for one in calls[1:4]} == {sha("a"), sha("b"), sha("c")}
    assert [one.told for one in calls[4:]] == [["StepRun after"], 200]
    assert [one.body["ctx"]["disable_immediate_execution"] for one in calls] == [False, True, True, True, False, False]


@pytest.mark.protocol("parallel.race")
def test_racing_steps_take_a_discovery_each(server, seen):
    run = server.call("py/race")
    run_id = run["run_id"]
    assert output_of(run) == ["a", "b", "c"]
    assert len([one for one in seen.calls(run_id) if one.step == "step"]) == 4
    assert len([one for one in seen.calls(run_id) if one.step != "step"]) == 3


@pytest.mark.protocol("parallel.mixed")
def test_parallel_branches_of_all_kinds(server, seen):
    run = server.call("py/mixed-parallel")
    assert output_of(run) == ["step", None, None, {"got": 5, "name": "inngest/function.invoked"}]
    assert len(seen.calls(run["run_id"])) == 3


@pytest.mark.protocol("parallel.fail")
def test_failures_of_several_branches_fail_the_function_once(server):
    event = server.send("py/parallel-failures")
    run = server.finished(event)
    assert error_of(run)["message"] in {"a", "b"}
    failures = [one for one in server.get("/v1/events", limit=50) if one["name"] == "inngest/function.failed"]
    assert len([one for one in failures if one["data"]["run_id"] == run["run_id"]]) <= 1


@pytest.mark.protocol("step.error")
def test_retries_of_a_step_count_attempts(server, seen):
    run = server.call("py/flaky")
    assert output_of(run) == [2, 0]
    assert seen.notes[run["run_id"]] == [0, 1, 2]
    calls = seen.calls(run["run_id"])
    assert [one.body["ctx"]["attempt"] for one in calls] == [0, 1, 2, 0]
    assert {one.body["ctx"]["max_attempts"] for one in calls} == {4}
    assert [one["attempt"] for one in server.steps(run["run_id"])["flaky"]["attempts"]] == [0, 1]


@pytest.mark.protocol("step.error")
def test_a_failed_step_can_be_handled(server, seen):
    run = server.call("py/step-fails")
    assert output_of(run) == ["ValueError", "bad step", True, "mended"]
    assert seen.told(run["run_id"]) == [["StepError bad"], ["StepFailed bad"], ["StepRun after"], 200]


@pytest.mark.protocol("run.failure-handler")
def test_a_function_that_fails_runs_its_failure_handler(server, seen):
    run = server.call("py/fails", function="py-fails")
    assert error_of(run)["name"] == "KeyError"
    notes = until(lambda: (found := seen.notes[run["run_id"]])[3:] and found, lambda: seen.notes[run["run_id"]])
    error = notes[3].pop(1)
    assert notes == [0, 1, 2, ["on_failure", "py/fails", "py-fails"]]
    assert error.pop("stack").startswith("Traceback")
    assert error == {"error": "invalid status code: 500", "name": "KeyError", "message": "'never works'"}
    assert set(error_of(run)["output"]) >= {"name", "message", "stack"}


@pytest.mark.protocol("step.final")
def test_errors_that_are_not_worth_retrying(server, seen):
    run = server.call("py/not-retriable")
    assert error_of(run)["message"] == "no use"
    assert seen.notes[run["run_id"]] == [0]
    assert error_of(server.call("py/step-not-retriable"))["message"] == "no use"


@pytest.mark.protocol("step.retry-after")
def test_a_retry_at_the_time_the_function_asks_for(server, seen):
    run = server.call("py/retry-after")
    assert output_of(run) == 1
    first, second = seen.notes[run["run_id"]]
    assert 1.9 < second - first < 5


@pytest.mark.protocol("step.nested")
def test_a_step_in_a_step_fails(server):
    assert "ested" in error_of(server.call("py/nested"))["message"]


@pytest.mark.protocol("call.fetch")
def test_large_state_is_fetched_by_the_sdk(server, seen):
    run = server.call("py/large-state")
    assert output_of(run) == [1_500_000] * 4
    calls = seen.calls(run["run_id"])
    assert [one.body["use_api"] for one in calls] == [False, False, False, True, True]
    assert [one.body["ctx"]["use_api"] for one in calls] == [False, False, False, True, True]
    assert calls[-1].body["steps"] == {}
    assert len(calls[-1].body["events"]) == 1


@pytest.mark.protocol("call.too-large")
def test_an_output_that_is_too_large(server):
    told = error_of(server.call("py/large-output"))["output"]
    assert told == {
        "error": {
            "error": "output_too_large: Your function's response body exceeds the maximum size limit",
            "name": "output_too_large",
            "message": "Your function's response body exceeds the maximum size limit",
        }
    }


def uuid_of(server, slug):
    return next(one["id"] for one in server.get("/v1/functions") if one["slug"] == slug)


@pytest.mark.protocol("step.limits", "register.limits")
def test_the_step_limit(server):
    limit = {"functionId": uuid_of(server, "py-many-steps"), "limit": "1"}
    assert server.http.post("/fn/step-limit", params=limit).status_code == 200
    message = "The function run exceeded the step limit of 1 steps."
    assert error_of(server.call("py/many-steps"))["output"] == {
        "error": {"error": "function has too many steps", "name": "InngestErrFunctionOverflowed", "message": message}
    }
    assert server.http.request("DELETE", "/fn/step-limit", params=limit).status_code == 200
    assert output_of(server.call("py/many-steps")) == 4


@pytest.mark.protocol("step.limits", "register.limits")
def test_the_state_limit(server):
    limit = {"functionId": uuid_of(server, "py-much-state"), "limit": "1"}
    assert server.http.post("/fn/state-size-limit", params=limit).status_code == 200
    message = "The function run exceeded the state size limit of 1 bytes."
    assert error_of(server.call("py/much-state"))["output"] == {
        "error": {"error": f"InngestErrStateOverflowed: {message}", "name": "InngestErrStateOverflowed", "message": message}
    }
    assert server.http.request("DELETE", "/fn/state-size-limit", params=limit).status_code == 200
    assert output_of(server.call("py/much-state")) == 100


@pytest.mark.protocol("step.ai")
@pytest.mark.parametrize("said", ["hello", "flaky"])
def test_inference_by_the_server(server, application, said):
    run = server.call("py/infers", {"say": said})
    assert output_of(run)["choices"][0]["message"]["content"] == said.upper()
    path, headers, body = next(one for one in application.model.requests if one[2]["messages"][0]["content"] == said)
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == "Bearer sk-test"
    assert headers["x-my-header"] == "mine"
    assert {"Authorization", "X-My-Header", "Content-Type"} <= application.model.names, "written as programs expect that look at case"
    assert body["model"] == "gpt-test"


@pytest.mark.protocol("step.ai")
def test_inference_that_fails(server):
    assert error_of(server.call("py/infers", {"say": "fail"}))["name"] == "AIGatewayError"


@pytest.mark.protocol("call.body", "run.context")
def test_what_a_call_says(server, seen):
    event_id = server.send("py/shows-context", {"a": "ü"}, id="given-1", user={"id": 5}, v="3", ts=1_700_000_000_000, meta={"sessions": {"chat": "c1"}})
    run = server.finished(event_id)
    shown = {"name": "py/shows-context", "data": {"a": "ü"}, "id": "given-1", "ts": 1_700_000_000_000}
    assert output_of(run) == {"event": shown, "events": 1, "attempt": 0}
    calls = seen.calls(run["run_id"])
    first, second, third = (one.body for one in calls)
    assert first["event"] == {**shown, "user": {"id": 5}, "v": "3", "meta": {"sessions": {"chat": "c1"}}}
    assert first["events"] == [first["event"]]
    assert [one["version"] for one in (first, second, third)] == [-1, 2, 2]
    assert [one["ctx"]["stack"] for one in (first, second, third)] == [
        {"stack": [], "current": 0},
        {"stack": [sha("one")], "current": 1},
        {"stack": [sha("one"), sha("two")], "current": 2},
    ]
    assert third["steps"] == {sha("one"): {"data": 1}, sha("two"): {"data": 2}}
    ctx = first["ctx"]
    assert ctx["run_id"] == run["run_id"]
    assert (ctx["step_id"], ctx["attempt"], ctx["max_attempts"], ctx["env"]) == ("step", 0, 5, "local")
    assert ctx["fn_id"] == uuid_of(server, "py-shows-context")
    assert ctx["request_id"]
    assert ctx["job_id"]
    assert (ctx["disable_immediate_execution"], ctx["use_api"], first["use_api"]) == (False, False, False)
    assert calls[0].raw == json.dumps(first, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    headers = calls[0].headers
    assert calls[0].query == {"fnId": "py-shows-context", "stepId": "step"}
    assert headers["content-type"] == "application/json"
    assert headers["x-run-id"] == run["run_id"]
    assert headers["x-inngest-step-id"] == "step"
    assert headers["x-inngest-server-kind"] == "dev"
    assert headers["x-inngest-req-version"] == "-1"
    assert headers["x-inngest-generation-id"] == "1"
    assert headers["x-request-id"] == ctx["request_id"]
    assert headers["x-inngest-job-id"] == ctx["job_id"]
    assert re.fullmatch(r"[0-9a-f-]{36}", headers["account-id"])
    assert "x-inngest-signature" not in headers
