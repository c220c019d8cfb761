"""Lists of runs: every filter against a plain reckoning over the same rows, pages, derived statuses, and what they cost."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
from itertools import product

import msgspec
import pytest
from reader_rows import HOUR, MINUTE, NOW, insert_all, shelf, text

from holdfast.base.ids import IdFactory
from holdfast.core.rows import DeadLetterRow, EventRow, ItemState, RunRow, RunStatus
from holdfast.store.reads import RunFilter
from holdfast.store.sqlite.reading.listing import EventFilter, count_runs, list_events, list_runs

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def all_pages(reader, where, limit):
    out, cursor = [], None
    while True:
        page, cursor = await reader.runs(where, limit=limit, cursor=cursor)
        out += page
        assert len(page) <= limit
        if cursor is None:
            return out
        assert page, "a cursor came with an empty page"


# -- against a plain reckoning ---------------------------------------------------------------------------------------

LIVE = {  # derived status -> (run status, item state, started?)
    "QUEUED": [(RunStatus.QUEUED, ItemState.READY), (RunStatus.QUEUED, ItemState.TIMED), (RunStatus.QUEUED, ItemState.PARKED)],
    "RUNNING": [(RunStatus.RUNNING, ItemState.LEASED)],
    "WAITING": [(RunStatus.RUNNING, state) for state in (ItemState.TIMED, ItemState.PARKED, ItemState.READY)],
}
NAMES = ["shop/order.paid", "shop/order.shipped", "mail/sent"]


async def seed_mixture(one, count=240):
    """Runs of every kind, and for each what a filter may ask of it, kept beside the store."""
    rng = random.Random(11)
    one.function(1, "shop-fulfil")
    one.function(2, "shop-receipt")
    one.function(3, "mail-send", app="mail")
    rows, known = [], []
    for number in range(count):
        at = NOW - 10 * HOUR + number * 2 * MINUTE
        key = f"key-{number % 40}" if number % 4 == 0 else None
        event = one.event(rng.choice(NAMES), at, key=key)
        function_id = rng.choice([1, 1, 2, 3])
        status = rng.choice(["QUEUED", "RUNNING", "WAITING", "COMPLETED", "COMPLETED", "FAILED", "CANCELLED", "SKIPPED"])
        error = rng.choice([None, "ValueError: Card declined", "TimeoutError: 100% late"]) if status in {"FAILED", "WAITING"} else None
        parent = known[rng.randrange(len(known))]["raw"] if known and number % 5 == 0 else None
        if status in LIVE:
            stored, state = rng.choice(LIVE[status])
            run = one.run(event, function_id, stored, at, error=error, parent_id=parent, origin=1 if parent else 0)
            rows.append(one.item(run, state, due=at + HOUR))
        else:
            run = one.run(event, function_id, RunStatus[status], at, error=error, parent_id=parent, origin=1 if parent else 0)
        rows += [event, run]
        fingerprint = rng.choice(["aa", "bb"])
        letter = status == "FAILED" and rng.choice([True, True, False])
        if status == "FAILED":
            rows.append(DeadLetterRow(run.id, function_id, at, fingerprint, "no", 0 if letter else rng.choice([1, 2])))
        known.append({
            "fingerprint": fingerprint if letter else None,
            "raw": run.id, "id": text(run.id), "status": status, "function": {1: "shop-fulfil", 2: "shop-receipt", 3: "mail-send"}[function_id],
            "app": "mail" if function_id == 3 else "shop", "event": event.name, "event_ids": {text(event.id), key}, "at": at,
            "error": error or "", "parent": parent and text(parent),
        })
    await one.write(*rows)
    return known


def matches(run, where):
    return (
        (not where.status or run["status"] in where.status)
        and (where.function is None or where.function in {run["function"], run["function"].removeprefix(run["app"] + "-")})
        and (where.app is None or run["app"] == where.app)
        and (where.event is None or run["event"] == where.event)
        and (where.event_id is None or where.event_id in run["event_ids"])
        and (where.since is None or run["at"] >= where.since)
        and (where.until is None or run["at"] < where.until)
        and (where.error is None or where.error.lower() in run["error"].lower())
        and (where.parent is None or run["parent"] == where.parent)
        and (not where.ids or run["id"] in where.ids)
        and (not where.dead or run["fingerprint"] is not None)
        and (where.fingerprint is None or run["fingerprint"] == where.fingerprint)
    )


async def test_every_filter_finds_exactly_what_fits(tmp_path):
    async with shelf(tmp_path) as one:
        known = await seed_mixture(one)
        parent = next(run["parent"] for run in known if run["parent"])
        choices = {
            "status": [(), ("WAITING",), ("QUEUED", "RUNNING", "WAITING"), ("FAILED",), ("COMPLETED", "RUNNING"),
                       ("FAILED", "CANCELLED", "SKIPPED"), ("COMPLETED",), tuple(RunStatus.__members__) + ("WAITING",)],
            "function": [None, "shop-fulfil", "receipt"],
            "app": [None, "shop", "mail"],
            "rest": [
                {}, {"event": NAMES[0]}, {"event_id": "key-4"}, {"event_id": next(iter(known[9]["event_ids"] - {None}))},
                {"since": NOW - 6 * HOUR, "until": NOW - 4 * HOUR}, {"error": "CARD"}, {"error": "100%"}, {"parent": parent},
                {"parent": parent, "event": NAMES[1]}, {"event": NAMES[2], "error": "declined", "since": NOW - 9 * HOUR},
                {"event": "no/such"}, {"event_id": "key-8", "event": NAMES[0]},
                {"ids": tuple(run["id"] for run in known[::3])}, {"ids": ("nonsense", known[3]["id"])}, {"dead": True},
                {"fingerprint": "aa"}, {"dead": True, "fingerprint": "bb", "event": NAMES[0], "since": NOW - 9 * HOUR},
                {"dead": True, "error": "declined", "until": NOW - 2 * HOUR}, {"dead": True, "parent": parent},
                {"ids": tuple(run["id"] for run in known[::2]), "dead": True}, {"dead": True, "event_id": "key-12"},
                {"parent": parent, "event_id": "key-4"},
            ],
        }
        found = 0
        for status, function, app, rest in product(*choices.values()):
            where = RunFilter(status=status, function=function, app=app, **rest)
            expected = [run["id"] for run in reversed(known) if matches(run, where)]
            listed = await all_pages(one.reader, where, limit=37)
            assert [run.id for run in listed] == expected, where
            assert await one.reader.count_runs(where) == len(expected), where
            assert not status or {run.status for run in listed} <= set(status), where
            found += bool(expected)
        assert found > 150, "the filters of this test hardly find anything"


async def test_common_event_names_are_walked_and_give_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("holdfast.store.sqlite.reading.listing._RARE_EVENT", 3)
    async with shelf(tmp_path) as one:
        known = await seed_mixture(one)
        for status in [(), ("FAILED",), ("WAITING", "COMPLETED")]:
            where = RunFilter(status=status, event=NAMES[0])
            expected = [run["id"] for run in reversed(known) if matches(run, where)]
            assert [run.id for run in await all_pages(one.reader, where, limit=7)] == expected
            assert len(expected) > 5


# -- views, pages, ids -----------------------------------------------------------------------------------------------


async def test_a_run_is_shown_with_its_names_and_figures(tmp_path):
    async with shelf(tmp_path) as one:
        one.function(1, "shop-fulfil", name="Fulfil an order")
        event = one.event("shop/order.paid", NOW)
        parent = one.run(event, at=NOW)
        run = one.run(
            event, at=NOW + 1000, status=RunStatus.FAILED, attempt=2, steps=3, error="ValueError: no", key="user-7",
            parent_id=parent.id, origin=3,
        )
        await one.write(event, parent, run)
        view = await one.reader.run_view(text(run.id))
        assert (view.function, view.function_name, view.app) == ("shop-fulfil", "Fulfil an order", "shop")
        assert (view.event_id, view.event_name) == (text(event.id), "shop/order.paid")
        assert (view.status, view.attempt, view.steps, view.error, view.key) == ("FAILED", 2, 3, "ValueError: no", "user-7")
        assert (view.queued_at, view.started_at, view.ended_at, view.duration_ms) == (NOW + 1000, NOW + 1005, NOW + 1105, 100)
        assert (view.parent_id, view.origin) == (text(parent.id), "redrive")
        assert [run.id for run in (await one.reader.runs(RunFilter()))[0]] == [text(run.id), text(parent.id)]
        assert [run.id for run in await one.reader.event_runs(text(event.id))] == [text(parent.id), text(run.id)]


@pytest.mark.parametrize(("origin", "name"), list(enumerate(["event", "invoke", "rerun", "redrive", "cron"])))
async def test_origins_have_names(tmp_path, origin, name):
    async with shelf(tmp_path) as one:
        event = one.event()
        run = one.run(event, origin=origin)
        await one.write(event, run)
        assert (await one.reader.run_view(text(run.id))).origin == name


async def test_a_run_whose_function_and_event_are_gone_is_still_listed(tmp_path):
    async with shelf(tmp_path) as one:
        run = one.run(one.event(), function_id=99)
        await one.write(run)
        [view], _ = await one.reader.runs(RunFilter())
        assert (view.id, view.function, view.event_name) == (text(run.id), "", "")
        assert (await one.reader.run(text(run.id))).event is None


@pytest.mark.parametrize(
    ("status", "started", "states", "shown"),
    [
        (RunStatus.QUEUED, None, [ItemState.READY], "QUEUED"),
        (RunStatus.QUEUED, None, [ItemState.TIMED], "QUEUED"),
        (RunStatus.QUEUED, None, [ItemState.PARKED], "QUEUED"),
        (RunStatus.RUNNING, NOW, [ItemState.LEASED], "RUNNING"),
        (RunStatus.RUNNING, NOW, [ItemState.READY], "WAITING"),
        (RunStatus.RUNNING, NOW, [ItemState.TIMED], "WAITING"),
        (RunStatus.RUNNING, NOW, [ItemState.PARKED], "WAITING"),
        (RunStatus.RUNNING, NOW, [ItemState.PARKED, ItemState.TIMED], "WAITING"),
        (RunStatus.RUNNING, NOW, [ItemState.PARKED, ItemState.LEASED], "RUNNING"),
    ],
)
async def test_waiting_is_derived_from_all_items_of_a_run(tmp_path, status, started, states, shown):
    async with shelf(tmp_path) as one:
        event = one.event()
        neighbour = one.run(event, status=RunStatus.RUNNING)
        run = one.run(event, status=status, started_at=started)
        last = one.run(event, status=RunStatus.RUNNING)
        items = [one.item(run, states[0])]
        items += [one.item(run, state, id=run.id + b"\xff" * 20) for state in states[1:]]
        await one.write(event, neighbour, run, last, one.item(neighbour, ItemState.LEASED), one.item(last, ItemState.LEASED), *items)
        assert (await one.reader.run_view(text(run.id))).status == shown
        for name in ("QUEUED", "RUNNING", "WAITING"):
            listed, cursor = await one.reader.runs(RunFilter(status=(name,)))
            assert (text(run.id) in [view.id for view in listed]) == (name == shown)
            assert len({view.id for view in listed}) == len(listed)
            assert await one.reader.count_runs(RunFilter(status=(name,))) == len(listed)
            assert cursor is None
            narrow, _ = await one.reader.runs(RunFilter(status=(name,), event_id=text(event.id)))
            assert [view.id for view in narrow] == [view.id for view in listed]


async def test_runs_with_many_items_are_paged_once_each(tmp_path):
    async with shelf(tmp_path) as one:
        event = one.event()
        rows = [event]
        for number in range(30):
            run = one.run(event, status=RunStatus.RUNNING)
            rows += [run, *(one.item(run, ItemState.LEASED, id=run.id + bytes([i]) * 20) for i in range(1 + number % 7))]
        await one.write(*rows)
        for limit in (1, 3, 10, 100):
            listed = await all_pages(one.reader, RunFilter(status=("RUNNING",)), limit)
            assert len(listed) == 30
            assert [run.id for run in listed] == sorted({run.id for run in listed}, reverse=True)
        assert await one.reader.count_runs(RunFilter(status=("RUNNING",))) == 30
        assert await one.reader.count_runs(RunFilter(status=("RUNNING",)), cap=20) == 20


async def test_runs_with_many_items_hide_none_of_another_status(tmp_path):
    async with shelf(tmp_path) as one:
        event = one.event()
        rows, runs = [event], []
        for number in range(30):
            busy = one.run(event, status=RunStatus.RUNNING)
            runs += [busy, one.run(event, status=RunStatus.FAILED)]
            rows += [one.item(busy, ItemState.LEASED, id=busy.id + bytes([i]) * 20) for i in range(5)]
        await one.write(*rows, *runs)
        for limit in (1, 4, 7):
            listed = await all_pages(one.reader, RunFilter(status=("RUNNING", "FAILED")), limit)
            assert [run.id for run in listed] == [text(run.id) for run in reversed(runs)]


async def test_pages_stand_still_while_new_runs_come(tmp_path):
    async with shelf(tmp_path) as one:
        event = one.event()
        runs = [one.run(event, at=NOW + i) for i in range(10)]
        await one.write(event, *runs)
        first, cursor = await one.reader.runs(RunFilter(), limit=4)
        await one.write(*(one.run(event, at=NOW + 100 + i) for i in range(5)))
        second, cursor = await one.reader.runs(RunFilter(), limit=4, cursor=cursor)
        third, cursor = await one.reader.runs(RunFilter(), limit=4, cursor=cursor)
        assert [run.id for run in first + second + third] == [text(run.id) for run in reversed(runs)]
        assert cursor is None


async def test_counting_ends_at_the_cap(tmp_path):
    async with shelf(tmp_path) as one:
        event = one.event()
        runs = [one.run(event, status=RunStatus.FAILED if i % 2 else RunStatus.CANCELLED) for i in range(30)]
        await one.write(event, *runs)
        assert await one.reader.count_runs(RunFilter(), cap=7) == 7
        assert await one.reader.count_runs(RunFilter(status=("FAILED", "CANCELLED")), cap=20) == 20
        assert await one.reader.count_runs(RunFilter(status=("FAILED", "CANCELLED"))) == 30


@pytest.mark.parametrize("bad", ["", "x", "not-an-id", "U" * 26, "8" + "Z" * 25, "é" * 26, "0" * 27, "'; DROP TABLE runs; --"])
async def test_text_that_is_no_id_finds_nothing(tmp_path, bad):
    async with shelf(tmp_path) as one:
        event = one.event()
        await one.write(event, one.run(event))
        reader = one.reader
        assert await reader.run(bad) is None
        assert await reader.run_view(bad) is None
        assert await reader.event(bad) is None
        assert await reader.dead_letter(bad) is None
        assert list(await reader.event_runs(bad)) == list(await reader.event_skips(bad)) == []
        assert await reader.runs(RunFilter(), cursor=bad) == ([], None)
        assert await reader.events(cursor=bad) == ([], None)
        assert await reader.dead_letters(cursor=bad) == ([], None)
        for where in (RunFilter(parent=bad), RunFilter(event_id=bad), RunFilter(function=bad), RunFilter(status=(bad,))):
            assert await reader.runs(where) == ([], None)
            assert await reader.count_runs(where) == 0
        assert len((await reader.runs(RunFilter()))[0]) == 1


async def test_live_runs_count_the_steps_recorded_so_far(tmp_path):
    from holdfast.core.rows import StepKind, StepRow, StepState

    async with shelf(tmp_path) as one:
        event = one.event()
        run = one.run(event, status=RunStatus.RUNNING)
        steps = [StepRow(run.id, f"s{i}", i, StepState.DONE, StepKind.RUN, NOW, NOW) for i in (1, 2, 3)]
        await one.write(event, run, one.item(run, ItemState.LEASED), *steps)
        assert (await one.reader.run_view(text(run.id))).steps == 3


# -- what it costs ---------------------------------------------------------------------------------------------------


def fill(path, count):
    """`count` ended runs of seventy functions, each with its event; thirty of the oldest failed."""
    ids = IdFactory(seed=3)
    events, runs = [], []
    for number in range(count):
        at = NOW + number * 10
        event = EventRow(ids.new(at), NAMES[number % 3], at, at, b'{"n":%d}' % number, f"key-{number}")
        status = RunStatus.FAILED if number < 60 and number % 2 else RunStatus.COMPLETED
        events.append(event)
        runs.append(RunRow(ids.new(at + 1), number % 70, event.id, status, at, at, at + 9, lane=str(number % 70)))
    insert_all(path, events)
    insert_all(path, runs)
    return events, runs


def cost(path, read):
    """Steps of SQLite's machine that a read takes, and what it gives."""
    steps = 0

    def count():
        nonlocal steps
        steps += 1
        return 0

    with contextlib.closing(sqlite3.connect(path)) as conn:
        conn.set_progress_handler(count, 10)
        result = read(conn)
        conn.set_progress_handler(None, 0)
    return steps * 10, result


@pytest.fixture(scope="module")
def sizes(tmp_path_factory):
    """Two stores, one fifty times the other."""

    async def make(count):
        async with shelf(tmp_path_factory.mktemp(str(count))) as one:
            one.function(3, "shop-fulfil")
            one.function(4, "shop-receipt")
            for function_id in range(10, 70):
                one.function(function_id, f"mall-{function_id}", app="mall")
            await one.write(one.event("rare/one", NOW - 1, id=bytes(16)))
        return one.path, *fill(one.path, count)

    return [asyncio.run(make(count)) for count in (2_000, 100_000)]


ASKED = {
    "unfiltered": (20, {}),
    "function": (20, {"function": "shop-fulfil"}),
    "two functions": (20, {"app": "shop"}),
    "many functions": (20, {"app": "mall"}),
    "completed of many": (20, {"app": "mall", "status": ("COMPLETED",)}),
    "failed": (20, {"status": ("FAILED",)}),
    "failed of a function": (1, {"status": ("FAILED",), "function": "shop-fulfil"}),
    "event's id": (1, {}),
    "sender's key": (1, {}),
    "deep cursor": (20, {}),
    "since": (20, {}),
    "until": (20, {}),
    "rare event": (0, {"event": "rare/one"}),
}


@pytest.mark.sqlite
@pytest.mark.parametrize("asked", ASKED)
def test_a_page_of_runs_costs_the_same_however_many_there_are(sizes, asked):
    count, fixed = ASKED[asked]
    costs = []
    for path, events, runs in sizes:
        middle = len(runs) // 2
        where = RunFilter(**fixed | {
            "event's id": {"event_id": text(events[middle].id)}, "sender's key": {"event_id": f"key-{middle}"},
            "since": {"since": runs[-30].queued_at}, "until": {"until": runs[middle].queued_at},
        }.get(asked, {}))
        cursor = text(runs[middle].id) if asked == "deep cursor" else None
        steps, (page, _) = cost(path, lambda conn, where=where, cursor=cursor: list_runs(conn, where, 20, cursor))
        assert len(page) == count
        costs.append(steps)
    small, large = costs
    assert large <= small * 1.3 + 200
    assert large < 12_000


@pytest.mark.sqlite
@pytest.mark.parametrize("name", [None, NAMES[1]])
def test_a_page_of_events_costs_the_same_however_many_there_are(sizes, name):
    (small, _), (large, (page, _)) = (
        cost(path, lambda conn: list_events(conn, EventFilter(name, True, None, None), 20, None)) for path, _, _ in sizes
    )
    assert len(page) == 20
    assert large <= small * 1.3 + 200
    assert large < 3_000


@pytest.mark.sqlite
@pytest.mark.parametrize("status", [(), ("COMPLETED",)])
def test_counting_stops_at_the_cap_in_cost_too(sizes, status):
    steps, count = cost(sizes[1][0], lambda conn: count_runs(conn, RunFilter(status=status), 500))
    assert count == 500
    assert steps < 500 * 20


@pytest.mark.sqlite
@pytest.mark.parametrize(("status", "state"), [("QUEUED", ItemState.READY), ("RUNNING", ItemState.LEASED), ("WAITING", ItemState.TIMED)])
async def test_a_page_of_live_runs_costs_the_same_however_many_there_are(tmp_path, status, state):
    costs = []
    for count in (1_000, 30_000):
        path = tmp_path / str(count)
        path.mkdir()
        async with shelf(path) as one:
            event = one.event()
            stored = RunStatus.QUEUED if status == "QUEUED" else RunStatus.RUNNING
            runs = [one.run(event, status=stored, at=NOW + i) for i in range(count)]
        insert_all(one.path, runs)
        insert_all(one.path, [one.item(run, state) for run in runs])
        for where, cursor in [
            (RunFilter(status=(status,)), None), (RunFilter(status=(status,)), text(runs[count // 2].id)),
            (RunFilter(status=(status,), until=NOW + 500), None), (RunFilter(status=(status,), since=NOW + count - 100), None),
        ]:
            steps, (page, _) = cost(one.path, lambda conn, where=where, cursor=cursor: list_runs(conn, where, 20, cursor))
            assert len(page) == 20
            assert {run.status for run in page} == {status}
            costs.append(steps)
    # `until` passes over the seconds by which ids and rows may differ: 5,000 runs here
    assert max(costs[4:6] + costs[7:]) <= max(costs[:4]) * 1.3 + 200
    assert costs[6] < 5_000 * 25


@pytest.mark.sqlite
@pytest.mark.parametrize("asked", [{"dead": True}, {"dead": True, "fingerprint": "aa"}, {"ids": 30}, {"status": ("QUEUED", "RUNNING", "WAITING")}])
async def test_the_next_slice_of_a_bulk_operation_costs_the_same_however_many_there_are(tmp_path, asked):
    costs = []
    for count in (1_000, 20_000):
        async with shelf(tmp_path / str(count)) as one:
            one.function(1, "shop-fulfil")
        ids = IdFactory(seed=4)
        runs = [RunRow(ids.new(NOW + n), 1, ids.new(NOW + n), RunStatus.FAILED, NOW + n, NOW + n, NOW + n, lane="1") for n in range(count)]
        live = [msgspec.structs.replace(run, id=ids.new(NOW + count + n), status=RunStatus.RUNNING, ended_at=None) for n, run in enumerate(runs)]
        insert_all(one.path, runs + live)
        insert_all(one.path, [one.item(run, ItemState.TIMED) for run in live])
        insert_all(one.path, [DeadLetterRow(run.id, 1, NOW, "aa" if n % 2 else "bb", "no", 0) for n, run in enumerate(runs)])
        where = RunFilter(**{**asked, **({"ids": tuple(text(run.id) for run in runs[:30])} if "ids" in asked else {})})
        cursor = text((live if "status" in asked else runs)[count // 2].id)
        steps, (page, _) = cost(one.path, lambda conn, where=where, cursor=cursor: list_runs(conn, where, 20, cursor))
        assert len(page) == 20
        costs.append(steps)
    assert costs[1] <= costs[0] * 1.3 + 200
