"""Counters and rates, against a plain reckoning over the same rows, and what they cost."""

from __future__ import annotations

import contextlib
import random
import sqlite3

import pytest
from reader_rows import HOUR, MINUTE, NOW, insert_all, shelf, text

from holdfast.base.ids import IdFactory
from holdfast.core.rows import SUSPECT_LANE, ItemState, RunRow, RunStatus
from holdfast.store.sqlite.reading.figures import function_stats

pytestmark = pytest.mark.anyio

SINCE = NOW - 24 * HOUR


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def seed_day(one, count=400):
    rng = random.Random(5)
    for function_id in (1, 2, 3):
        one.function(function_id, f"shop-f{function_id}")
    rows, runs, letters = [], [], []
    for number in range(count):
        at = NOW - 30 * HOUR + number * 30 * HOUR // count
        event = one.event(rng.choice(["shop/order.paid", "shop/order.shipped", "inngest/function.failed"]), at)
        status = rng.choice([RunStatus.QUEUED, RunStatus.RUNNING, *[RunStatus.COMPLETED] * 6, RunStatus.FAILED, RunStatus.CANCELLED,
                             RunStatus.SKIPPED])
        run = one.run(event, rng.choice([1, 1, 2]), status, at)
        if status.ended:
            run.ended_at = run.started_at + rng.randrange(1, 5000)
        else:
            rows.append(one.item(run, ItemState.TIMED if number % 2 else ItemState.READY))
        if status == RunStatus.FAILED:
            # some failed only long after they were queued
            letters.append(one.letter(run, min(NOW, at + rng.choice([100, 20 * HOUR])), f"ValueError: number {number}"))
        runs.append(run)
        rows.append(event)
    await one.write(*rows, *runs, *letters)
    return rows, runs, letters


async def test_the_overview_agrees_with_the_rows(tmp_path):
    async with shelf(tmp_path) as one:
        rows, runs, letters = await seed_day(one)
        view = await one.reader.overview(since=SINCE, now=NOW, slices=48)
        recent = [run for run in runs if run.queued_at >= SINCE]
        assert len(view.buckets) == 48
        assert [bucket[0] for bucket in view.buckets] == [SINCE + i * 30 * MINUTE for i in range(48)]
        for start, completed, failed, cancelled, queued in view.buckets:
            within = [run for run in recent if start <= run.queued_at < start + 30 * MINUTE]
            assert queued == len(within)
            assert completed == sum(run.status == RunStatus.COMPLETED for run in within)
            assert cancelled == sum(run.status == RunStatus.CANCELLED for run in within)
            end = start + 30 * MINUTE if start < NOW - 30 * MINUTE else NOW + 1
            assert failed == sum(start <= letter.at < end for letter in letters)
        assert view.completed == sum(run.status == RunStatus.COMPLETED for run in recent) > 50
        assert view.failed == sum(letter.at >= SINCE for letter in letters) > sum(run.status == RunStatus.FAILED for run in recent)
        assert view.dead == len(letters)
        assert view.events == sum(
            type(row).TABLE == "events" and row.received_at >= SINCE and not row.name.startswith("inngest/") for row in rows
        )
        newest = sorted(letters, key=lambda letter: (letter.at, letter.run_id), reverse=True)[:10]
        assert [run.id for run in view.recent_failures] == [text(letter.run_id) for letter in newest]
        assert {run.status for run in view.recent_failures} == {"FAILED"}


async def test_the_overview_counts_the_queue(tmp_path):
    async with shelf(tmp_path) as one:
        event = one.event()
        ready = [one.run(event, status=RunStatus.QUEUED, at=NOW - 3 * MINUTE + i) for i in range(4)]
        delayed = one.run(event, status=RunStatus.QUEUED, at=NOW - HOUR)
        woken = one.run(event, status=RunStatus.RUNNING, at=NOW - HOUR)
        asleep = [one.run(event, status=RunStatus.RUNNING, at=NOW - HOUR) for _ in range(3)]
        parked = one.run(event, status=RunStatus.RUNNING)
        leased = [one.run(event, status=RunStatus.RUNNING) for _ in range(2)]
        await one.write(
            event, *ready, delayed, woken, *asleep, parked, *leased, *(one.item(run, ItemState.READY) for run in ready),
            one.item(delayed, ItemState.TIMED, due=NOW + 7 * MINUTE), one.item(woken, ItemState.READY, rank=NOW - MINUTE),
            *(one.item(run, ItemState.TIMED, due=NOW + (i + 1) * MINUTE) for i, run in enumerate(asleep)),
            one.item(parked, ItemState.PARKED), *(one.item(run, ItemState.LEASED) for run in leased),
        )
        view = await one.reader.overview(since=SINCE, now=NOW)
        assert (view.queued, view.running, view.waiting) == (5, 2, 5)
        assert (view.backlog, view.timers, view.next_timer_at) == (5, 4, NOW + MINUTE)
        assert view.oldest_ready_at == NOW - 3 * MINUTE


@pytest.mark.parametrize(
    ("item", "since"),
    [({"due": 0}, NOW - HOUR), ({"due": NOW - MINUTE}, NOW - MINUTE), ({"epoch": 2, "rank": NOW - 5}, NOW - 5), ({"epoch": 2, "rank": NOW + 9}, NOW)],
    ids=["never leased", "after its delay", "woken", "with a negative priority"],
)
async def test_the_oldest_in_line_waits_since_it_could_go_on(tmp_path, item, since):
    async with shelf(tmp_path) as one:
        run = one.run(one.event(), status=RunStatus.QUEUED, at=NOW - HOUR)
        await one.write(run, one.item(run, ItemState.READY, **item))
        assert (await one.reader.overview(since=SINCE, now=NOW)).oldest_ready_at == since


async def test_the_overview_of_nothing(tmp_path):
    async with shelf(tmp_path) as one:
        view = await one.reader.overview(since=SINCE, now=NOW, slices=4)
        assert (view.queued, view.running, view.waiting, view.completed, view.failed, view.cancelled, view.dead) == (0,) * 7
        assert (view.events, view.backlog, view.timers) == (0, 0, 0)
        assert view.oldest_ready_at is view.next_timer_at is None
        assert [bucket[1:] for bucket in view.buckets] == [(0, 0, 0, 0)] * 4
        assert len((await one.reader.overview(since=NOW, now=NOW, slices=0)).buckets) == 1
        assert len((await one.reader.overview(since=NOW + 5, now=NOW, slices=10**9)).buckets) == 500


@pytest.mark.sqlite
async def test_the_size_is_that_of_the_files(tmp_path):
    async with shelf(tmp_path) as one:
        await one.write(*(one.event(data=b'"' + b"x" * 50_000 + b'"') for _ in range(20)))
        size = (await one.reader.overview(since=SINCE, now=NOW)).store_bytes
        assert size == one.path.stat().st_size + (tmp_path / "store.db-wal").stat().st_size > 1_000_000


async def test_what_happens_now_is_in_the_last_slice(tmp_path):
    async with shelf(tmp_path) as one:
        event = one.event(at=NOW)
        run = one.run(event, status=RunStatus.FAILED, at=NOW)
        await one.write(event, run, one.letter(run, NOW))
        view = await one.reader.overview(since=NOW - 1000, now=NOW, slices=3)
        assert [bucket[1:] for bucket in view.buckets] == [(0, 0, 0, 0), (0, 0, 0, 0), (0, 1, 0, 1)]
        assert (view.failed, view.events) == (1, 1)


def percentile(values, share):
    ordered = sorted(values)
    return next(value for place, value in enumerate(ordered, 1) if place / len(ordered) >= share)


async def test_statistics_agree_with_the_rows(tmp_path):
    async with shelf(tmp_path) as one:
        _, runs, letters = await seed_day(one)
        stats = {one.function_id: one for one in await one.reader.stats(since=SINCE)}
        assert set(stats) == {1, 2, 3}
        for function_id in (1, 2):
            mine = [run for run in runs if run.function_id == function_id]
            recent = [run for run in mine if run.queued_at >= SINCE]
            failed = [letter for letter in letters if letter.function_id == function_id and letter.at >= SINCE]
            took = [run.ended_at - run.started_at for run in recent if run.status == RunStatus.COMPLETED]
            view = stats[function_id]
            assert (view.function, view.app) == (f"shop-f{function_id}", "shop")
            assert view.started == len(recent)
            assert view.completed == len(took) > 30
            assert view.failed == len(failed) > 5
            assert view.cancelled == sum(run.status == RunStatus.CANCELLED for run in recent)
            assert view.active == sum(not RunStatus(run.status).ended for run in mine)
            assert (view.p50_ms, view.p95_ms) == (percentile(took, 0.5), percentile(took, 0.95))
            assert view.last_run_at == mine[-1].queued_at
            assert view.last_error in {letter.error for letter in failed if letter.at == max(one.at for one in failed)}
            assert view.success_rate == view.completed / (view.completed + view.failed)
        idle = stats[3]
        assert (idle.started, idle.active, idle.last_run_at, idle.last_error, idle.p50_ms, idle.success_rate) == (0, 0, None, None, None, None)


async def test_percentiles_are_of_the_newest_thousand(tmp_path):
    async with shelf(tmp_path) as one:
        one.function(1, "shop-f1")
        event = one.event()
        slow = [one.run(event, at=NOW - 5000 + i, ended_at=NOW + 9_000_000) for i in range(300)]
        fast = [one.run(event, at=NOW - 1500 + i) for i in range(1000)]
        await one.write(*slow, *fast)
        [view] = await one.reader.stats(since=SINCE)
        assert (view.completed, view.p50_ms, view.p95_ms) == (1300, 100, 100)


async def test_archived_functions_appear_only_while_they_have_runs(tmp_path):
    async with shelf(tmp_path) as one:
        one.function(1, "shop-old", archived=1)
        one.function(2, "shop-busy", archived=1)
        run = one.run(one.event(), 2)
        await one.write(run)
        assert [view.function for view in await one.reader.stats(since=SINCE)] == ["shop-busy"]


async def test_lanes_of_keys_and_suspects_count_for_their_function(tmp_path):
    async with shelf(tmp_path) as one:
        one.function(7, "shop-f7")
        one.function(12, "shop-f12")
        event = one.event()
        runs = [one.run(event, function_id, RunStatus.QUEUED, lane=lane) for function_id, lane in
                [(7, "7"), (7, "7/user-1"), (12, "12/12"), (12, "12"), (7, "7")]]
        items = [one.item(run, ItemState.READY) for run in runs]
        items[-1].lane = SUSPECT_LANE
        await one.write(event, *runs, *items)
        stats = {view.function_id: view for view in await one.reader.stats(since=SINCE)}
        assert (stats[7].active, stats[12].active) == (3, 2)
        assert (stats[7].completed, stats[12].completed) == (0, 0)


@pytest.mark.sqlite
async def test_statistics_do_not_look_up_completed_runs(tmp_path):
    """100,000 completed runs are counted in an index; only the newest thousand of a function are looked at for percentiles."""
    async with shelf(tmp_path) as one:
        for function_id in range(5):
            one.function(function_id, f"shop-f{function_id}")
    ids = IdFactory(seed=3)
    insert_all(one.path, [RunRow(ids.new(NOW + i), i % 5, bytes(16), 2, NOW + i, NOW + i, NOW + i + 9) for i in range(100_000)])
    steps = 0

    def count():
        nonlocal steps
        steps += 1
        return 0

    with contextlib.closing(sqlite3.connect(one.path)) as conn:
        conn.set_progress_handler(count, 100)
        stats = function_stats(conn, NOW)
        conn.set_progress_handler(None, 0)
    assert [view.completed for view in stats] == [20_000] * 5
    # three steps for an index entry
    assert steps * 100 < 100_000 * 4 + 5 * 1000 * 100
