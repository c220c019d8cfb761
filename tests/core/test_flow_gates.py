"""Concurrency, run concurrency, throttle and priority under random plays: never above a limit, never idle before an open gate, never lost.

The limits are checked by the world at each lease, and that nothing waits without a reason each time it rests.
"""

from __future__ import annotations

import pytest
from flow_play import PLAYS, Limit, Pause, bodies, crashes, kills, passes, play, plays, sends
from flow_world import START, World, duration, model_key
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.timeout(400)  # a failing play is shrunk

TENANT, KIND = "event.data.tenant", "event.data.kind"

CAPS = {
    "one for all": {"concurrency": [{"limit": 2}]},
    "by key": {"concurrency": [{"limit": 1, "key": TENANT}]},
    "two keys": {"concurrency": [{"limit": 2, "key": TENANT}, {"limit": 3, "key": KIND}]},
    "all and key": {"concurrency": [{"limit": 3}, {"limit": 1, "key": KIND}]},
    "runs": {"concurrency": {"fn": [{"limit": 2, "key": TENANT}], "step": []}},
    "runs and steps": {"concurrency": {"fn": [{"limit": 3}], "step": [{"limit": 1, "key": TENANT}]}},
}


@pytest.mark.parametrize("rules", CAPS.values(), ids=CAPS)
def test_caps(rules):
    changes = st.one_of(
        st.builds(Limit, st.just("f"), st.sampled_from(["concurrency", "run-concurrency"]), st.integers(1, 4)),
        st.builds(Pause, st.just("f"), st.sampled_from(["hold", None])),
    )

    @PLAYS
    @given(plays(sends(), sends(), bodies, bodies, crashes, kills, passes(1, 1000), changes))
    def check(acts):
        with World({"f": rules}) as world:
            play(world, acts)

    check()


@pytest.mark.parametrize("scope", ["env", "account"])
def test_places_shared_between_functions(scope):
    shared = {"concurrency": [{"limit": 2, "key": TENANT, "scope": scope}]}
    own = {"concurrency": [{"limit": 2, "key": TENANT, "scope": scope}, {"limit": 1, "key": KIND}]}
    pauses = st.builds(Pause, st.sampled_from("fg"), st.sampled_from(["hold", None]))

    @PLAYS
    @given(plays(sends(), bodies, bodies, crashes, kills, passes(1, 1000), pauses))
    def check(acts):
        with World({"f": shared, "g": own, "free": {}}) as world:
            play(world, acts)

    check()


def test_little_room():
    """A node that is nearly full, and claims a few at a time, starves no lane."""

    @PLAYS
    @given(plays(sends(), sends(), bodies, crashes, passes(1)), st.integers(1, 3), st.integers(1, 3))
    def check(acts, capacity, batch):
        with World({"f": CAPS["two keys"], "g": CAPS["runs"], "free": {}}, capacity=capacity, claim_batch=batch) as world:
            play(world, acts)

    check()


THROTTLES = [
    {"limit": 1, "period": "5s"},
    {"limit": 3, "period": "1s", "burst": 2},
    {"limit": 2, "period": "5s", "key": TENANT},
    {"limit": 7, "period": "1s", "burst": 1, "key": TENANT},
]


@pytest.mark.parametrize("rule", THROTTLES, ids=str)
def test_throttle(rule):
    """Any two starts with n between them are at least n - burst intervals apart (GCRA, protocol section 2.7)."""

    @PLAYS
    @given(plays(sends(delays=(0, 0, 3000)), sends(), bodies, crashes, kills, passes(1, 333, 2500, 10_000)))
    def check(acts):
        with World({"f": {"throttle": rule, "concurrency": [{"limit": 3, "key": KIND}]}}) as world:
            play(world, acts)
            interval = duration(rule["period"]) / rule["limit"]
            starts: dict[object, list[int]] = {}
            for at, life in world.starts:
                starts.setdefault(model_key(rule.get("key"), life.event), []).append(at)
            for moments in starts.values():
                for i, first in enumerate(moments):
                    for apart, later in enumerate(moments[i + 1 :], 1):
                        least = (apart - rule.get("burst", 0)) * interval
                        assert later - first >= least - 0.01, f"starts {apart} apart within {later - first} ms"

    check()


def test_priority():
    """Of what waits in a lane, the one goes first whose time, less its priority in seconds, is earliest."""

    @PLAYS
    @given(plays(sends(gold=(0, 10, -10, 60)), sends(gold=(0, 2)), bodies, passes(1, 1500, 20_000)))
    def check(acts):
        rules = {"concurrency": [{"limit": 1, "key": TENANT}], "priority": {"run": "event.data.gold"}}
        with World({"f": rules}) as world:
            waited: list[tuple[object, object]] = []
            began = world._began

            def watch(leased):
                for one in leased:
                    life = world._look(one.run.id)
                    if life.started is None and not one.item.crashes:
                        for other in world.lives_of("f"):
                            if other is not life and other.queued < world.clock.ms and other.started is None and other.ended is None:
                                if model_key(TENANT, other.event) == model_key(TENANT, life.event) and life.queued < world.clock.ms:
                                    waited.append((rank(life), rank(other)))
                began(leased)

            world._began = watch
            play(world, acts)
            for started, passed_over in waited:
                assert started <= passed_over, "a run went ahead of one with precedence"

    def rank(life):
        return life.queued - START - life.event.data["gold"] * 1000

    check()
