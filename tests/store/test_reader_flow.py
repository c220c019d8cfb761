"""Flow control as the reader tells it from rows: its bounds, its indexes, and what a stale row must not say."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3

import pytest
from reader_rows import NOW, Shelf, insert_all, shelf, text

from holdfast.core.flow_config import FlowReader
from holdfast.core.rows import (
    AlarmKind,
    AlarmRow,
    ItemState,
    LaneRow,
    LeaseCountRow,
    RunCountRow,
    RunStatus,
    SkipRow,
    ThrottleRow,
    WaitRow,
    WindowRow,
)
from holdfast.store.flow_reads import AlarmView, CancelView, GateView, TimerView
from holdfast.store.sqlite.reading import flow, flow_statements, line

pytestmark = pytest.mark.anyio

KEYED = {"id": "shop-work", "triggers": [], "concurrency": [{"limit": 2, "key": "event.data.tenant"}]}
EVERYTHING = {
    "id": "shop-work", "triggers": [], "concurrency": {"step": [{"limit": 2}], "fn": [{"limit": 4, "key": "event.data.tenant"}]},
    "throttle": {"limit": 6, "period": "1m", "burst": 1}, "rateLimit": {"limit": 9, "period": "1h", "key": "event.data.tenant"},
}


@pytest.fixture
def anyio_backend():
    return "asyncio"


def tags(config):
    read = FlowReader(config, 1).read()
    return {rule.name: rule.tag for rule in (*read.caps, read.run_cap, read.throttle, read.rate_limit) if rule is not None}


def lane_of(key: str, config=KEYED) -> str:
    return f'1/{{"{tags(config)["concurrency"]}":{json.dumps(key)}}}'


def gate_of(key: str) -> str:
    return f"l1.{tags(KEYED)['concurrency']}:{key}"


async def line_of(one: Shelf, lane: str, count: int, **more: object) -> list[str]:
    """Runs that wait in a lane, in order; their ids."""
    event = one.event()
    runs = [one.run(event, status=RunStatus.QUEUED, at=NOW + n, lane=lane) for n in range(count)]
    insert_all(one.path, [event])
    insert_all(one.path, runs)
    insert_all(one.path, [one.item(run, ItemState.READY) for run in runs])
    await one.write(LaneRow(lane, NOW, **more))
    return [text(run.id) for run in runs]


async def test_a_place_in_line_is_exact_up_to_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(line, "MAX_AHEAD", 50)
    async with shelf(tmp_path) as one:
        one.function(1, "shop-work", config=json.dumps(KEYED))
        ids = await line_of(one, lane_of("a"), 60, blocked=1, gate=gate_of("a"))
        await one.write(LeaseCountRow(gate_of("a"), 2))
        places = [(await one.reader.run(ids[n])).queue for n in (0, 49, 50, 59)]
        assert [(place.position, place.more_ahead) for place in places] == [(1, False), (50, False), (51, True), (51, True)]
        assert {place.gate for place in places} == {GateView("concurrency", "a", 2, 2)}


async def test_a_lane_that_was_blocked_by_places_free_since_waits_for_its_turn_only(tmp_path):
    async with shelf(tmp_path) as one:
        one.function(1, "shop-work", config=json.dumps(KEYED))
        (run_id,) = await line_of(one, lane_of("a"), 1, blocked=1, gate=gate_of("a"))
        assert (await one.reader.run(run_id)).queue.gate == GateView("capacity")
        (view,) = await one.reader.flow("shop-work")
        assert (view.backlog.queued, view.backlog.delayed) == (1, {})


async def test_a_run_parked_before_its_start_waits_for_the_singleton_before_it(tmp_path):
    async with shelf(tmp_path) as one:
        one.function(1, "shop-work")
        event = one.event()
        run = one.run(event, status=RunStatus.QUEUED)
        going_on = one.run(event, status=RunStatus.RUNNING)
        await one.write(event, run, going_on, one.item(run, ItemState.PARKED), one.item(going_on, ItemState.PARKED))
        assert (await one.reader.run(text(run.id))).queue.gate == GateView("singleton")
        assert (await one.reader.run(text(going_on.id))).queue.gate is None


async def test_what_cancels_a_run_is_told_and_is_no_step_that_waits(tmp_path):
    async with shelf(tmp_path) as one:
        one.function(1, "shop-work")
        event = one.event()
        run = one.run(event, status=RunStatus.RUNNING)
        await one.write(
            event, run, one.item(run, ItemState.LEASED), AlarmRow(run.id, AlarmKind.FINISH, NOW + 9, "too long"),
            WaitRow(run.id, "\x01cancel:0", 'shop/stop\0order_id\0"o1"', None), WaitRow(run.id, "\x01cancel:1", "shop/off", NOW + 5, "async.data.x"),
            WaitRow(run.id, "paid", "shop/paid", None),
        )
        detail = await one.reader.run(text(run.id))
        assert detail.alarms == (AlarmView("finish", NOW + 9, "too long"),)
        assert detail.cancels == (CancelView("shop/stop", 'order_id is "o1"', None), CancelView("shop/off", "async.data.x", NOW + 5))
        assert [wait.step for wait in await one.reader.waits()] == ["paid"]


async def test_hot_keys_come_first_and_work_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(flow, "MAX_LANES", 40)
    monkeypatch.setattr(flow, "MAX_IN_LANE", 20)
    async with shelf(tmp_path) as one:
        one.function(1, "shop-work", config=json.dumps(KEYED))
        one.function(2, "shop-other", config=json.dumps(KEYED))
        for n in range(12):
            await line_of(one, lane_of(f"k{n:02}"), n + 1, blocked=1, gate=gate_of(f"k{n:02}"))
            await one.write(LeaseCountRow(gate_of(f"k{n:02}"), 2))
        (view,) = await one.reader.flow("shop-work")
        (rule,) = view.rules
        assert [(key.key, key.waiting, key.used) for key in rule.hot] == [(f"k{n:02}", n + 1, 2) for n in range(11, 1, -1)]
        assert (rule.waiting, rule.used, rule.lanes, rule.more, view.backlog.more) == (78, 24, 12, False, False)
        assert rule.since == NOW
        await line_of(one, lane_of("hot"), 25, blocked=1, gate=gate_of("hot"))
        await one.write(LeaseCountRow(gate_of("hot"), 2))
        (view,) = await one.reader.flow("shop-work")
        assert (view.rules[0].hot[0].key, view.rules[0].hot[0].waiting, view.rules[0].more) == ("hot", 20, True)
        for n in range(40):
            await one.write(LaneRow(lane_of(f"z{n}"), NOW))
        assert (await one.reader.flow("shop-work"))[0].backlog.more
        assert [one.backlog.queued for one in await one.reader.flow() if one.function == "shop-other"] == [0]


async def test_each_kind_of_limit_counts_what_is_its_own(tmp_path):
    async with shelf(tmp_path) as one:
        one.function(1, "shop-work", config=json.dumps(EVERYTHING), limits='{"run-concurrency": 5}')
        tag = tags(EVERYTHING)
        await one.write(
            LeaseCountRow(f"l1.{tag['concurrency']}:", 2), LeaseCountRow("l12.ffffffff:", 9),
            RunCountRow(f"r1.{tag['run-concurrency']}:a", 3), RunCountRow(f"r1.{tag['run-concurrency']}:b", 1), RunCountRow("r11.x:a", 7),
            ThrottleRow(f"t1.{tag['throttle']}:", (NOW + 30_000) * 1000),
            WindowRow(f"w1.{tag['rate-limit']}:a", json.dumps([[NOW - 3_700_000, 5], [NOW - 1000, 2], [NOW, 1]]).encode(), NOW + 3_600_000),
        )
        (view,) = await one.reader.flow("shop-work")
        figures = {rule.name: (rule.used, rule.limit, rule.declared) for rule in view.rules}
        assert figures == {
            "rate-limit": (3, 9, 9), "concurrency": (2, 2, 2), "run-concurrency": (4, 5, 4), "throttle": (None, 6, 6),
        }
        throttle = view.rules[-1]
        # one is due every ten seconds, and one more than that may start at once
        assert throttle.hot[0].until == NOW + 20_000


async def test_a_function_that_is_gone_is_told_only_by_name_and_one_of_another_version_has_no_rules(tmp_path):
    async with shelf(tmp_path) as one:
        one.function(1, "shop-gone", archived=1)
        one.function(2, "shop-later", config=json.dumps({"id": "x", "concurrency": {"limit": "many"}}), paused=1)
        assert [(view.function, view.pause, view.rules) for view in await one.reader.flow()] == [("shop-later", "skip", ())]
        assert [view.function for view in await one.reader.flow("shop-gone")] == ["shop-gone"]
        assert await one.reader.flow("shop-nobody") == []


async def test_an_event_keeps_its_reason_with_its_detail(tmp_path):
    async with shelf(tmp_path) as one:
        one.function(1, "shop-work")
        event = one.event()
        await one.write(event, SkipRow(event.id, 1, "rate limited", None, NOW, "9 in 1h for key 'a'"))
        (skip,) = await one.reader.event_skips(text(event.id))
        assert (skip.function, skip.reason, skip.detail, skip.waits) == ("shop-work", "rate limited", "9 in 1h for key 'a'", False)


async def test_timers_come_in_the_order_in_which_they_are_due(tmp_path):
    async with shelf(tmp_path) as one:
        one.function(1, "shop-work")
        event = one.event()
        later, sleeping, ready = (one.run(event, status=status) for status in (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.QUEUED))
        await one.write(
            event, later, sleeping, ready, one.item(later, ItemState.TIMED, due=NOW + 9), one.item(sleeping, ItemState.TIMED, due=NOW + 5),
            one.item(ready, ItemState.READY),
        )
        assert await one.reader.timers() == [
            TimerView(text(sleeping.id), "shop-work", "Shop-Work", NOW + 5, started=True),
            TimerView(text(later.id), "shop-work", "Shop-Work", NOW + 9, started=False),
        ]
        assert [timer.due for timer in await one.reader.timers(limit=1)] == [NOW + 5]


STATEMENTS = [name for name in vars(flow_statements) if name.isupper() and not name.startswith("_") and name != "FUNCTIONS"]


@pytest.mark.sqlite
@pytest.mark.parametrize("name", STATEMENTS)
async def test_no_statement_walks_a_table(tmp_path, name):
    statement = getattr(flow_statements, name)
    async with shelf(tmp_path) as one:
        with contextlib.closing(sqlite3.connect(one.path)) as conn:
            count = len(set(re.findall(r"\?\d", statement))) or statement.count("?")
            plan = [row[3] for row in conn.execute("EXPLAIN QUERY PLAN " + statement, [1] * count)]
    assert any(step.startswith("SEARCH") for step in plan)
    # timers are walked by when they are due, as far as the limit
    walked = [step for step in plan if step.startswith("SCAN") and "subquery" not in step]
    assert walked == (["SCAN q USING INDEX queue_timers"] if name == "TIMERS" else [])
