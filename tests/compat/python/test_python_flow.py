"""Flow control, triggers and cancellation as configured with the official Python SDK."""

from __future__ import annotations

import time

import pytest
from live_server import output_of, until


def skipped(server, event_id):
    """No run comes of an event: asked when a later one has been through."""
    return server.runs_of(event_id) == []


@pytest.mark.protocol("run.cancel")
def test_an_event_cancels_the_run_it_names(server):
    run_id = server.started(server.send("py/cancelled", {"id": 1}))
    server.waiting(run_id, "long")
    other = server.started(server.send("py/cancelled", {"id": 2}))
    server.waiting(other, "long")
    server.send("py/cancel", {"id": 1})
    assert server.ended(run_id)["status"] == "Cancelled"
    assert server.run(other)["status"] in {"Waiting", "Running"}
    assert server.http.delete(f"/v1/runs/{other}").status_code == 200
    assert server.ended(other)["status"] == "Cancelled"


@pytest.mark.protocol("flow.concurrency")
def test_concurrency_by_key(server, seen):
    events = server.send_all([{"name": "py/one-at-a-time", "data": {"who": who}} for who in ("a", "a", "b", "a", "b")])
    for event in events:
        server.finished(event)
    notes = seen.notes["one-at-a-time"]
    for who in ("a", "b"):
        own = [what for what, whose in notes if whose == who]
        assert own == ["in", "out"] * (len(own) // 2)
    assert notes[:2] in ([("in", "a"), ("in", "b")], [("in", "b"), ("in", "a")])


@pytest.mark.protocol("flow.throttle")
def test_throttle(server, seen):
    events = server.send_all([{"name": "py/throttled"}] * 4)
    for event in events:
        server.finished(event)
    times = sorted(seen.notes["throttled"])
    gaps = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    assert gaps[0] < 0.5
    assert all(gap > 0.8 for gap in gaps[1:])


@pytest.mark.protocol("flow.rate-limit")
def test_rate_limit(server):
    events = server.send_all([{"name": "py/rate-limited", "data": {"who": who}} for who in ("a", "a", "a", "b")])
    for event in (events[0], events[1], events[3]):
        assert server.finished(event)["status"] == "Completed"
    assert skipped(server, events[2])


@pytest.mark.protocol("flow.debounce")
def test_debounce_runs_the_last_event(server):
    events = server.send_all([{"name": "py/debounced", "data": {"who": who, "n": n}} for who, n in (("a", 1), ("a", 2), ("b", 3), ("a", 4))])
    assert output_of(server.finished(events[3])) == 4
    assert output_of(server.finished(events[2])) == 3
    assert skipped(server, events[0])


@pytest.mark.protocol("flow.batch")
def test_batches_by_key(server, seen):
    events = server.send_all([{"name": "py/batched", "data": {"who": who, "n": n}} for who, n in (("a", 1), ("b", 2), ("a", 3), ("a", 4))])
    full = server.finished(events[0])
    assert output_of(full) == [1, 3, 4]
    assert output_of(server.finished(events[1])) == [2]
    call = seen.calls(full["run_id"])[0].body
    assert call["event"] == call["events"][0]
    assert [one["data"]["n"] for one in call["events"]] == [1, 3, 4]


@pytest.mark.protocol("call.fetch")
def test_a_batch_too_large_for_a_call_is_fetched_by_the_sdk(server, seen):
    events = [server.send("py/large-batch", {"text": "x" * 2_500_000}) for _ in range(2)]
    run = server.finished(events[0])
    assert output_of(run) == [2_500_000, 2_500_000]
    call = seen.calls(run["run_id"])[0].body
    assert (call["events"], call["steps"], call["use_api"], call["ctx"]["use_api"]) == ([], {}, True, True)


@pytest.mark.protocol("flow.priority")
def test_priority(server, seen):
    events = server.send_all([{"name": "py/prioritised", "data": {"n": n, "urgent": n == 3}} for n in range(4)])
    for event in events:
        server.finished(event)
    assert seen.notes["prioritised"] == [0, 3, 1, 2]


@pytest.mark.protocol("flow.singleton")
def test_a_singleton_that_skips(server):
    first = server.send("py/single-skip", {"who": "a"})
    server.waiting(server.started(first), "nap")
    second, other = server.send_all([{"name": "py/single-skip", "data": {"who": who}} for who in "ab"])
    assert server.finished(second)["status"] == "Skipped"
    assert server.finished(first)["status"] == server.finished(other)["status"] == "Completed"


@pytest.mark.protocol("flow.singleton")
def test_a_singleton_that_cancels(server):
    first = server.send("py/single-cancel", {"who": "a", "n": 1})
    server.waiting(server.started(first), "nap")
    second = server.send("py/single-cancel", {"who": "a", "n": 2})
    assert server.finished(first)["status"] == "Cancelled"
    assert output_of(server.finished(second)) == 2


@pytest.mark.protocol("flow.idempotency", "events.id")
def test_idempotency_and_event_ids(server):
    events = server.send_all([{"name": "py/idempotent", "data": {"order": order}} for order in (1, 1, 2)])
    assert server.finished(events[0])["status"] == server.finished(events[2])["status"] == "Completed"
    assert skipped(server, events[1])
    events = server.send_all([{"name": "py/first", "id": "once"}] * 2)
    assert server.finished(events[0])["status"] == "Completed"
    assert skipped(server, events[1])


@pytest.mark.protocol("run.lifecycle")
def test_functions_hear_of_the_end_of_others(server, seen):
    finished = server.call("py/idempotent", {"order": "heard"}, id="heard-1")["run_id"]
    cancelled = server.started(server.send("py/cancelled", {"id": "heard"}))
    server.waiting(cancelled, "long")
    server.send("py/cancel", {"id": "heard"})
    (name, data), *_ = until(lambda: seen.notes.get(finished), "the end of a function is heard of")
    assert name == "inngest/function.finished"
    assert data["event"]["name"] == "py/idempotent"
    assert data["event"]["id"] == "heard-1"
    assert data["events"] == [data["event"]]
    assert (data["function_id"], data["run_id"], data["result"]) == ("py-idempotent", finished, {"order": "heard"})
    assert data["_inngest"]["status"] == "Completed"
    (name, data), *_ = until(lambda: seen.notes.get(cancelled), "a cancellation is heard of")
    assert name == "inngest/function.cancelled"
    assert data["_inngest"]["status"] == "Cancelled"
    assert not {"error", "result"} & set(data)


@pytest.mark.protocol("run.timeouts")
def test_timeouts(server):
    run = server.call("py/finish-timeout")
    assert run["status"] == "Cancelled"
    assert 900 <= run["duration_ms"] < 5000
    busy, late = server.send_all([{"name": "py/start-timeout"}] * 2)
    assert server.finished(late)["status"] == "Cancelled"
    assert server.finished(busy)["status"] == "Completed"


@pytest.mark.protocol("flow.triggers")
def test_triggers(server):
    for name in ("py/first", "py-wild/deep/er", "pywild.some.thing"):
        assert output_of(server.call(name)) == name
    low, high = server.send_all([{"name": "py/second", "data": {"n": n}} for n in (1, 2)])
    assert output_of(server.finished(high)) == "py/second"
    assert skipped(server, low)


@pytest.mark.protocol("events.later")
def test_an_event_in_the_future_waits_for_its_moment(server):
    at = round(time.time() * 1000) + 1200
    run = server.call("py/first", ts=at)
    assert output_of(run) == "py/first"
    assert time.time() * 1000 >= at


@pytest.mark.protocol("flow.cron")
def test_a_schedule_fires(server):
    def fired():
        runs = server.get("/v1/runs", function="py-every-minute")
        return [run for run in runs if run["status"] == "Completed"] or None

    run = server.run(until(fired, "the schedule fires", patience=75)[0]["run_id"])
    name, data = output_of(run)
    assert name == "inngest/scheduled.timer"
    assert data["cron"] == "* * * * *"
