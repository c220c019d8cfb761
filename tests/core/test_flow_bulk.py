"""Bulk operations under flow control: what cancels many gives every place back, and what starts many again keeps to the limits.

The world checks the limits at each lease, and at rest that the places counted are those taken and nobody waits at an open gate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from flow_play import PLAYS, bodies, crashes, kills, passes, plays, sends
from flow_world import World, model_key
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.bulk import Act, Slice
from holdfast.core.plan import Refused
from holdfast.core.restart import Restart, Write
from holdfast.core.rows import BulkRow, BulkState, EventRow, RunRow

TENANT, KIND = "event.data.tenant", "event.data.kind"
RULES = {
    "concurrency": {"concurrency": [{"limit": 2, "key": TENANT}, {"limit": 3, "key": KIND}]},
    "runs and steps": {"concurrency": {"fn": [{"limit": 3}], "step": [{"limit": 1, "key": TENANT}]}},
    "singleton, skip": {"singleton": {"mode": "skip", "key": TENANT}},
    "singleton, cancel": {"singleton": {"mode": "cancel", "key": TENANT}, "concurrency": [{"limit": 2}]},
}
LIVE = "SELECT id FROM runs WHERE ended_at IS NULL ORDER BY id DESC"
ENDED = "SELECT id FROM runs WHERE ended_at IS NOT NULL ORDER BY id DESC LIMIT 20"


@dataclass(frozen=True)
class Many:
    """A bulk operation over the runs there are, so many in a slice; each slice shares its group with what was asked for before."""

    action: str
    size: int

    def act(self, world: World) -> None:
        self.carry_out(world, [run_id for (run_id,) in world.rows(LIVE if self.action == "cancel" else ENDED)])

    def carry_out(self, world: World, run_ids: list[bytes]) -> None:
        """The operation, on these runs."""
        row = BulkRow(world.ids.new(world.clock.now()), self.action, b"{}", "me", 0, total=len(run_ids), cursor=b"\xff" * 16)
        world.pending.append(Write([row]))
        slices = [run_ids[at : at + self.size] for at in range(0, len(run_ids), self.size)] or [[]]
        for number, part in enumerate(slices, 1):
            world.commit()
            row = world.store.fetch([(BulkRow, row.id)]).get(BulkRow, row.id)
            plan = Slice(row, [self._act(world, run_id) for run_id in part], last=number == len(slices))
            plan.then = lambda answer, acts=plan.acts: self._moved(acts, answer)
            world.pending.append(plan)
        world.commit()
        row = world.store.fetch([(BulkRow, row.id)]).get(BulkRow, row.id)
        assert row.state == BulkState.DONE
        assert row.done + row.skipped + row.failed == len(run_ids)

    def _act(self, world: World, run_id: bytes) -> Act:
        if self.action == "cancel":
            return Act(run_id, world._canceller(run_id, None))
        run = world.store.fetch([(RunRow, run_id)]).get(RunRow, run_id)
        event = world.store.fetch([(EventRow, run.event_id)]).get(EventRow, run.event_id)
        new_id = world.ids.new(world.clock.now() + 1)
        match = world.intake.match(event, new_id, run.function_id, run.version, origin=2, parent_id=run.id)
        if match.admission is not None:
            match.admission.restarted, match.admission.recorded = True, False
        plan = Restart(run_id, match, redrive=False)
        plan.then = lambda answer: None if isinstance(answer, Refused) else world._accepted(answer[1])
        return Act(run_id, plan)

    def _moved(self, acts: Any, answer: Any) -> None:
        for act, one in zip(acts, answer.answers, strict=True):
            act.plan.then(one)


manys = st.builds(Many, st.sampled_from(["cancel", "rerun", "rerun"]), st.integers(1, 9))


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_many_at_once_keep_the_rules(rules):
    @PLAYS
    @given(plays(sends(), sends(), bodies, crashes, kills, manys, passes(1, 1000)))
    def check(acts):
        with World({"f": rules, "free": {}}) as world:
            for one in acts:
                one.act(world)
                check_singletons(world, rules)
            world.settle()
            Many("cancel", 4).act(world)
            world.settle()
            assert world.rows(LIVE) == []
            assert dict(world.store.lease_counts) == {}
            assert world.rows("SELECT * FROM run_counts") == []

    check()


def check_singletons(world: World, rules: dict[str, Any]) -> None:
    """Of each key at most one run is executed, whoever started it."""
    if "singleton" in rules:
        keys = [
            model_key(rules["singleton"]["key"], life.event)
            for life in world.lives.values()
            if life.function == "f" and life.run in world.live
        ]
        assert len(keys) == len(set(keys)), world.describe()


@pytest.mark.parametrize("limit", [1, 90])
def test_a_slice_wakes_as_many_lanes_as_it_gave_places_back(limit):
    """Each of many tenants waits in a lane of its own at one gate; more of them than a group has plans."""
    shared = {"concurrency": [{"limit": limit}, {"limit": 1, "key": TENANT}]}
    with World({"f": shared}, capacity=400, claim_batch=400) as world:
        for tenant in range(2 * limit):
            world.send(tenant=f"t{tenant}", kind="x")
        world.settle()
        assert len(world.live) == limit
        held = set(world.live)
        Many("cancel", limit).carry_out(world, sorted(held, reverse=True))
        world.settle()
        assert len(world.live) == limit
        assert not held & set(world.live)
        world.drain()
