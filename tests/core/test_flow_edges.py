"""Moments at which a place, a run or an event could be lost: each found by reading or by a play, and kept as a test."""

from __future__ import annotations

import pytest
from flow_world import JOB, START, STOP, WAKE, World

from holdfast.base.errors import ConfigurationError
from holdfast.core.flow_config import FlowReader
from holdfast.core.rows import LaneRow, RunStatus
from holdfast.store.sqlite.lanes import Lanes

TENANT, KIND = "event.data.tenant", "event.data.kind"
BY_TENANT = [{"limit": 1, "key": TENANT}]
SHARED = [{"limit": 1, "key": TENANT, "scope": "env"}]


def send(world, count=1, **data):
    sent = [world.send(JOB, **{"tenant": "a", "kind": "x"} | data) for _ in range(count)]
    world.settle()
    return sent


def run_of(world, sent):
    return next(life for life in world.lives.values() if life.event is sent)


def body_of(world, sent):
    return world.live[run_of(world, sent).run]


# -- lanes -----------------------------------------------------------------------------------------------------------


def test_a_lane_that_comes_back_within_a_millisecond_is_served_once():
    lanes = Lanes([LaneRow("1/b", 1), LaneRow("1/a", 1000)])
    lanes.remove("1/a")
    lanes.put(LaneRow("1/a", 1000))
    assert [row.lane for row in lanes.ready(frozenset({1}), suspect=False, count=10)] == ["1/b", "1/a"]
    assert [row.lane for row in lanes.ready(frozenset({1}), suspect=False, count=10)] == ["1/b", "1/a"]


CAPS = {"concurrency": [{"limit": 2}, {"limit": 1, "key": TENANT}]}


def order_of_starts(world):
    return [life.event.data["tenant"] for _, life in world.starts]


def test_a_lane_that_loses_its_place_to_another_keeps_its_turn():
    with World({"f": CAPS}) as world:
        for tenant in "aabcd":
            send(world, tenant=tenant)
            world.clock.ms += 1
        # the second of a has waited longer than c; when the first ends, both are woken for the one place
        world.end(world.body(0))
        world.settle()
        for _ in range(2):
            world.clock.ms += 1
            world.end(next(body for body in world.live.values()))
            world.settle()
        assert order_of_starts(world) == ["a", "b", "a", "c", "d"]
        world.drain()


def test_two_lanes_of_many_let_each_of_six_others_have_its_turn_in_the_round():
    with World({"f": CAPS}) as world:
        for tenant in ["big-1", "big-2"] * 60 + [f"small-{n}" for n in range(6)]:
            world.clock.ms += 1
            send(world, tenant=tenant)
        before = len(world.starts)
        while len(world.starts) < before + 10:
            world.clock.ms += 1
            world.end(next(iter(world.live.values())))
            world.settle()
        later = order_of_starts(world)[before:]
        assert sorted(later[:8]) == ["big-1", "big-2", *(f"small-{n}" for n in range(6))]
        world.drain()


def test_a_place_is_not_left_to_a_lane_of_a_held_function():
    """A place that is shared goes to a function that can take it."""
    with World({"held": {"concurrency": SHARED}, "open": {"concurrency": SHARED}}) as world:
        send(world)
        world.pause("held", "hold")
        world.end(world.body(0))
        world.settle()
        send(world, 2)
        assert [life.function for _, life in world.starts] == ["held", "open"]
        world.end(world.body(0))
        world.settle()
        assert [life.function for _, life in world.starts] == ["held", "open", "open"], world.describe()
        world.drain()


def test_a_suspect_that_does_not_take_a_place_leaves_it_to_the_next():
    caps = {"concurrency": [{"limit": 1, "key": TENANT}, {"limit": 1, "key": KIND}]}
    with World({"f": caps}) as world:
        (suspect,) = send(world, tenant="a", kind="x")
        world.crash(torn=False)
        (first,) = (world.send(JOB, tenant="a", kind="z"),)
        other = world.send(JOB, tenant="b", kind="x")
        # both places of the suspect are taken before it can be claimed
        world.commit(engine=False)
        world.settle()
        world.clock.ms += 10
        (next_,) = send(world, tenant="a", kind="y")
        world.end(body_of(world, first))
        world.settle()
        assert run_of(world, other).ended is None
        assert run_of(world, next_).started is not None, world.describe()
        assert run_of(world, suspect).ended is None
        world.drain()


def test_a_run_that_parks_and_is_woken_in_one_group_keeps_the_turn_of_its_lane():
    with World({"f": {}}, capacity=1) as world:
        first, second = send(world, 2)
        (before,) = world.store.lanes
        world.clock.ms += 1000
        world.park(body_of(world, first), None)
        world.send(WAKE, tenant="a")
        world.commit(engine=False)
        assert not world.live
        (after,) = world.store.lanes
        assert after.turn == before.turn
        world.settle()
        assert run_of(world, second).started is not None
        world.drain()


def test_a_throttle_that_is_raised_is_in_force_at_once():
    with World({"f": {"throttle": {"limit": 1, "period": "24h"}}}) as world:
        for _ in range(3):
            send(world)
        assert len(world.starts) == 1
        world.limit("f", "throttle", 86_400)
        for _ in range(3):
            world.settle()
            world.clock.ms += 1000
        assert [at for at, _ in world.starts] == [START, START, START + 1000]
        world.drain()


# -- other code after a boot -----------------------------------------------------------------------------------------------


def test_runs_that_were_queued_before_there_was_a_limit_are_counted_by_it():
    with World({"f": {}}, capacity=1) as world:
        send(world, 6)
        world.capacity = 50
        world.crash(torn=False, functions={"f": {"concurrency": [{"limit": 1}]}})
        world.settle()
        assert len(world.live) == 1
        world.limit("f", "concurrency", 1)
        world.settle()
        assert len(world.live) == 1
        send(world, 3)
        world.drain()


@pytest.mark.parametrize("rule", [{"throttle": {"limit": 1, "period": "1s"}}, {"concurrency": {"fn": [{"limit": 1}]}}], ids=str)
def test_runs_that_started_before_there_was_a_rule_go_on(rule):
    with World({"f": {}}) as world:
        sent = send(world, 3)
        for one in sent:
            world.park(body_of(world, one), None)
        world.settle()
        world.crash(torn=False, functions={"f": rule})
        world.capacity = 0
        world.send(WAKE, tenant="a")
        world.settle()
        world.capacity = 50
        world.drain()


def test_a_debounce_or_batch_that_waits_when_its_rule_is_taken_out_still_runs():
    rules = {"f": {"debounce": {"period": "1s"}}, "g": {"batchEvents": {"maxSize": 5, "timeout": "1s"}}}
    with World(rules) as world:
        send(world, 3)
        world.crash(torn=False, functions={"f": {}, "g": {}})
        world.clock.ms += 1000
        world.settle()
        assert len(world.live) == 2
        assert world.rows("SELECT batch FROM runs ORDER BY batch") == [(0,), (3,)]
        world.drain()


def test_a_start_timeout_that_is_taken_out_leaves_no_alarm():
    with World({"f": {"concurrency": [{"limit": 1}], "timeouts": {"start": "10s"}}}) as world:
        first, second = send(world, 2)
        world.crash(torn=False, functions={"f": {}})
        world.settle()
        world.end(body_of(world, first))
        world.settle()
        assert run_of(world, second).started is not None
        world.clock.ms += 10_000
        world.settle()  # asserts that no alarm is late: it would ring for ever
        assert run_of(world, second).ended is None
        world.drain()


# -- runs that follow others -----------------------------------------------------------------------------------------------


def test_a_run_that_follows_another_is_not_forgotten_when_an_event_cancels_that_too():
    rules = {"singleton": {"mode": "cancel"}, "cancel": [{"event": STOP, "if": "event.data.tenant == async.data.tenant"}]}
    with World({"f": rules}) as world:
        (first,) = send(world, tenant="a")
        second = world.send(JOB, tenant="b")
        world.commit(engine=False)
        world.send(STOP, tenant="a")
        world.commit(engine=False)
        world.settle()
        assert run_of(world, first).ended is not None
        assert run_of(world, second).started is not None, world.describe()
        world.drain()


def test_a_run_that_could_start_in_the_group_in_which_its_timeout_rings_is_cancelled_and_not_started():
    with World({"f": {"concurrency": [{"limit": 1}], "timeouts": {"start": "2s"}}}) as world:
        first, second = send(world, 2)
        world.end(body_of(world, first))
        world.commit(engine=False)
        world.clock.ms += 2000
        claim, ringing = world._due()[::-1]
        world.pending = [claim, ringing]
        world.commit(engine=False)
        assert run_of(world, second).started is None
        assert run_of(world, second).status == RunStatus.CANCELLED
        world.drain()


# -- keys that were claimed for nothing --------------------------------------------------------------------------------------


def test_an_idempotency_key_is_not_used_up_by_an_event_that_starts_nothing():
    rules = {"singleton": {"mode": "skip"}, "idempotency": TENANT}
    with World({"f": rules}) as world:
        (live,) = send(world, tenant="a")
        (turned_away,) = send(world, tenant="b")
        assert world.skips(turned_away, "f") == "singleton"
        world.end(body_of(world, live))
        world.settle()
        (again,) = send(world, tenant="b")
        assert world.skips(again, "f") is None
        assert run_of(world, again).started is not None
        world.drain()


@pytest.mark.parametrize(
    "rule",
    [{"debounce": {"period": "1s"}}, {"batchEvents": {"maxSize": 5, "timeout": "1s"}}, {"singleton": {"mode": "skip"}}],
    ids=str,
)
def test_an_event_that_comes_twice_is_answered_with_a_run_that_will_exist(rule):
    with World({"f": rule}) as world:
        send(world)
        for _ in range(2):
            sent = world.send(JOB, key="same", tenant="a")
            plan = world.pending[-1]
            world.settle()
            assert len(plan.answer.runs) == 1
        assert world.skips(sent, "f") == "duplicate event id"
        answered = plan.answer.runs[0]
        world.clock.ms += 1000
        world.settle()
        assert world.rows("SELECT 1 FROM runs WHERE id = ?", answered), "nobody will ever be this run"
        world.drain()


def test_trailing_idempotency_and_batches_exclude_each_other():
    config = {"idempotency": {"key": TENANT, "bucket": "1m", "trailing": True}, "batchEvents": {"maxSize": 2, "timeout": "1s"}}
    with pytest.raises(ConfigurationError, match="trailing"):
        FlowReader(config).read()
