"""Applications on the official TypeScript SDK: two majors, with and without checkpointing, behind Express, Node, Next and Remix."""

from __future__ import annotations

import time

import pytest
from live_server import error_of, output_of, until
from node_apps import APPS, CHECKPOINTING, SMOKE


@pytest.fixture
def server(node):
    return node.server


@pytest.fixture(params=APPS)
def app(request):
    return request.param


@pytest.fixture
def call(server, app):
    def run(name, data=None, **fields):
        return server.call(f"{app}/{name}", data, f"{app}-{name}", **fields)

    return run


@pytest.fixture
def start(server, app):
    def run(name, data=None):
        return server.started(server.send(f"{app}/{name}", data), f"{app}-{name}")

    return run


@pytest.fixture
def calls(node, app):
    """The calls for a run, as the application saw them."""
    return lambda run: node.seen(run["run_id"], app[-1])["calls"]


@pytest.fixture
def notes(node, app):
    """What functions noted for a run, or under a name."""
    return lambda run: node.seen(run if isinstance(run, str) else run["run_id"], app[-1])["notes"]


@pytest.mark.protocol("register.adapters")
@pytest.mark.parametrize("route", SMOKE)
def test_each_adapter_syncs_and_runs(server, route):
    assert output_of(server.call(f"{route}/hello", {"name": "ann"})) == ["hello ann", 2]


@pytest.mark.protocol("step.run", "register.sync")
def test_steps(server, call, app, calls, notes):
    run = call("steps", {"n": 4})
    assert output_of(run) == [8, None, 9]
    assert notes(run) == [8]
    assert list(server.steps(run["run_id"])) == ["double", "nothing", "more"]
    told = [one["told"] for one in calls(run)]
    if app == CHECKPOINTING:  # it checkpoints its steps within one call
        assert [op.split()[0] for op in told[0]] == ["RunComplete"]
        assert len(told) == 1
    else:
        assert told == [["StepRun double"], ["StepRun nothing"], ["StepRun more"], 200]


@pytest.mark.protocol("checkpoint.async")
def test_steps_that_are_reported_some_at_a_time(server, node):
    run = server.call("buffered4/steps", {"n": 4}, "buffered4-steps")
    assert output_of(run) == [8, None, 9]
    assert list(server.steps(run["run_id"])) == ["double", "nothing", "more"]
    assert node.seen(run["run_id"], "4")["notes"] == [8]
    run = server.call("buffered4/flaky", None, "buffered4-flaky")
    assert output_of(run) == [2, 0, 4]


@pytest.mark.protocol("step.run")
def test_an_id_used_in_a_loop(call, notes):
    run = call("one-id")
    assert output_of(run) == ["a0", "a1", "a2"]
    assert notes(run) == ["a0", "a1", "a2"]


@pytest.mark.protocol("step.sleep")
def test_sleeps(call, app):
    run = call("sleeps")
    assert output_of(run) == "awake"
    # 3 writes durations in whole seconds
    assert run["duration_ms"] >= (1250 if app == "js3" else 1550)


@pytest.mark.protocol("step.wait")
@pytest.mark.parametrize("name", ["waits", "waits-if"])
def test_a_wait_that_an_event_resolves(server, start, app, name):
    run_id = start(name, {"id": f"{app}-{name}"})
    server.waiting(run_id, "reply")
    server.send(f"{app}/reply", {"id": "other", "n": 5})
    server.send(f"{app}/reply", {"id": f"{app}-{name}", "n": 2}, id=f"{app}-{name}", user={"x": 1}, v="2")
    reply = output_of(server.ended(run_id))
    assert reply["ts"] > 1_700_000_000_000
    assert {**reply, "ts": 0} == {
        "name": f"{app}/reply", "data": {"id": f"{app}-{name}", "n": 2}, "id": f"{app}-{name}", "user": {"x": 1}, "v": "2", "ts": 0,
    }  # fmt: skip


@pytest.mark.protocol("step.wait")
def test_a_wait_that_times_out(call):
    assert output_of(call("waits-in-vain")) is None


@pytest.mark.protocol("step.send")
def test_events_sent_from_a_step(server, call, app):
    ids = output_of(call("sends"))["ids"]
    assert [output_of(server.finished(one, f"{app}-receives")) for one in ids] == [1, 2]


@pytest.mark.protocol("step.invoke")
def test_invoking(call):
    out = output_of(call("invokes"))
    assert out[:2] == [{"got": 1, "name": "inngest/function.invoked"}, {"got": 2, "name": "inngest/function.invoked"}]
    assert [message for _, message in out[2:]] == [
        "callee failed",
        next(message for _, message in out[2:] if "could not find function with ID" in message),
        "Timed out waiting for invoked function to complete",
    ]


@pytest.mark.protocol("parallel.together")
def test_parallel_steps_take_one_discovery_for_all(call, app, calls, notes):
    run = call("parallel")
    assert output_of(run) == ["a", "b", "c", "after"]
    assert sorted(notes(run)) == ["a", "b", "c"]
    told = [one["told"] for one in calls(run)]
    assert told[0] == ["StepPlanned a", "StepPlanned b", "StepPlanned c"]
    executed = [one["told"][0] for one in calls(run) if one["step"] != "step" and one["told"] != ["StepRun after"]]
    assert sorted(executed) == ["StepRun a", "StepRun b", "StepRun c"]
    discoveries = [one["told"] for one in calls(run) if one["step"] == "step"]
    if app == "js3":  # it speaks a version of the protocol in which each completion is told
        assert len(discoveries) == 5
    else:
        assert len(discoveries) == (2 if app == CHECKPOINTING else 3)
        assert told[:4] == [told[0], *([one] for one in executed)]


@pytest.mark.protocol("parallel.race")
def test_a_race_goes_on_with_the_first(server, call):
    run = call("race")
    assert output_of(run) == ["quick", "after", "then"]
    steps = server.steps(run["run_id"])
    # 4 ends the run when the loser has ended as well; what follows the race doesn't wait for it
    assert steps["slow"]["ended_at"] is None or steps["then"]["ended_at"] < steps["slow"]["ended_at"]


@pytest.mark.protocol("parallel.mixed")
def test_parallel_branches_of_all_kinds(call):
    assert output_of(call("mixed")) == ["step", None, None, {"got": 5, "name": "inngest/function.invoked"}]


@pytest.mark.protocol("parallel.mixed")
def test_parallel_chains(call, notes):
    run = call("chains")
    assert output_of(run) == [["a1", "a2"], ["b1", "b2"]]
    assert sorted(notes(run)) == ["a1", "a2", "b1", "b2"]


@pytest.mark.protocol("step.error", "checkpoint.attempts")
def test_retries_of_a_step_count_attempts(call, notes):
    run = call("flaky")
    assert output_of(run) == [2, 0, 4]
    assert notes(run) == [0, 1, 2]


@pytest.mark.protocol("step.error")
def test_a_failed_step_can_be_handled(call):
    assert output_of(call("step-fails")) == [True, "RangeError", "bad step", "mended"]


@pytest.mark.protocol("run.failure-handler")
def test_a_function_that_fails_runs_its_failure_handler(call, app, notes):
    run = call("fails")
    assert error_of(run)["message"] == "never works"
    notes = until(lambda: (found := notes(run))[3:] and found, lambda: notes(run))
    assert notes == [0, 1, 2, ["onFailure", "Error", "never works", f"{app}/fails", f"{app}-fails"]]


@pytest.mark.protocol("step.final")
def test_errors_that_are_not_worth_retrying(call, notes):
    run = call("not-retriable")
    assert error_of(run)["message"] == "no use"
    assert notes(run) == [0]
    assert output_of(call("step-not-retriable")) == "no use"


@pytest.mark.protocol("step.retry-after")
def test_a_retry_at_the_time_the_function_asks_for(call, notes):
    run = call("retry-after")
    assert output_of(run) == 1
    first, second = notes(run)
    assert second - first > 1900  # and not the tenth of a second after which this server tries again by itself


@pytest.mark.protocol("step.signal")
def test_signals(server, call, start, app):
    run_id = start("signals", {"signal": f"{app}-go"})
    server.waiting(run_id, "signal")
    other = call("signals", {"signal": f"{app}-go"})
    assert "Signal conflict" in error_of(other)["output"]
    output_of(call("sends-signal", {"signal": f"{app}-go"}))
    assert output_of(server.ended(run_id)) == {"signal": f"{app}-go", "data": {"n": 9}}
    assert output_of(call("signals-in-vain")) is None


@pytest.mark.protocol("step.fetch", "step.ai")
def test_requests_and_inference_by_the_server(call):
    assert output_of(call("fetches")) == [418, {"body": "hello", "said": "yes", "method": "POST"}]
    assert output_of(call("infers", {"say": "hello"})) == "HELLO"
    assert "HTTP 500" in error_of(call("infers", {"say": "fail"}))["message"]


@pytest.mark.protocol("call.fetch")
def test_large_state_is_fetched_by_the_sdk(call, app, calls):
    run = call("large-state")
    assert output_of(run) == [1_500_000] * 4
    if app != CHECKPOINTING:
        assert [one["use_api"] for one in calls(run)] == [False, False, False, True, True]


@pytest.mark.protocol("call.too-large")
def test_an_output_that_is_too_large(call):
    assert error_of(call("large-output"))["output"]["error"]["name"] == "output_too_large"


@pytest.mark.protocol("step.limits")
def test_the_step_limit(server, call, app):
    uuid = next(one["id"] for one in server.get("/v1/functions") if one["slug"] == f"{app}-many-steps")
    limit = {"functionId": uuid, "limit": "2"}
    assert server.http.post("/fn/step-limit", params=limit).status_code == 200
    assert error_of(call("many-steps"))["output"]["error"]["message"] == "The function run exceeded the step limit of 2 steps."
    assert server.http.request("DELETE", "/fn/step-limit", params=limit).status_code == 200
    assert output_of(call("many-steps")) == 4


@pytest.mark.protocol("run.context")
def test_what_a_function_receives(call, app):
    at = round(time.time() * 1000) - 1000
    out = output_of(call("context", {"a": "ü"}, id=f"c-{app}", user={"id": 5}, v="3", ts=at))
    event = {"name": f"{app}/context", "data": {"a": "ü"}, "id": f"c-{app}", "ts": at, "user": {"id": 5}, "v": "3"}
    assert out == {"event": event, "events": 1, "attempt": 0}


@pytest.mark.protocol("flow.rate-limit", "flow.debounce", "flow.batch", "flow.singleton", "flow.idempotency", "flow.triggers", "run.timeouts", "run.cancel")
def test_flow_control_is_registered(server, start, app):
    """One look at each rule: what they do is shown where they are made."""
    cancelled = start("cancelled", {"id": app})
    server.waiting(cancelled, "long")
    server.send(f"{app}/cancel", {"id": app})
    assert server.ended(cancelled)["status"] == "Cancelled"

    def send(name, *events):
        return server.send_all([{"name": f"{app}/{name}", "data": data} for data in events])

    ids = send("debounced", {"who": app, "n": 1}, {"who": app, "n": 2})
    assert output_of(server.finished(ids[1], f"{app}-debounced")) == 2
    ids = send("batched", *({"n": n} for n in range(3)))
    assert output_of(server.finished(ids[0], f"{app}-batched")) == [0, 1, 2]
    for name, data in (("rate-limited", {"who": app}), ("idempotent", {"order": app})):
        ids = send(name, data, data)
        assert output_of(server.finished(ids[0], f"{app}-{name}")) == "ran"
        assert server.runs_of(ids[1], f"{app}-{name}") == []
    ids = send("single", {"who": app}, {"who": app})
    assert server.finished(ids[1], f"{app}-single")["status"] == "Skipped"
    assert server.call(f"{app}/finish-timeout", None, f"{app}-finish-timeout")["status"] == "Cancelled"
    assert output_of(server.call(f"{app}-wild/deep/er", None, f"{app}-triggers")) == f"{app}-wild/deep/er"
    assert output_of(server.call(f"{app}/second", {"n": 2}, f"{app}-triggers")) == f"{app}/second"
    assert any(one["function"] == f"{app}-triggers" and one["schedule"] == "0 0 1 1 *" for one in server.get("/v1/crons"))


@pytest.mark.protocol("flow.concurrency", "flow.priority", "flow.throttle")
def test_concurrency_priority_and_throttle(server, notes, app):
    def all_of(name, *events):
        for one in server.send_all([{"name": f"{app}/{name}", "data": data} for data in events]):
            server.finished(one)
        return notes(name)

    assert all_of("one-at-a-time", *[{"who": app}] * 3)[-6:] == ["in", "out"] * 3
    first, second = all_of("throttled", *[{"who": app}] * 2)[-2:]
    assert second - first > 800
    assert all_of("prioritised", *({"n": n, "urgent": n == 2} for n in range(3)))[-3:] == [0, 2, 1]
