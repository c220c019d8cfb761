"""Schedules in a running engine: jitter, catch-up after downtime, restarts, and code that changes."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import pytest

from holdfast import App, Context, Cron, CronTick
from holdfast.base.clock import iso, to_ms
from holdfast.core.cron import next_fires
from holdfast.core.occurrences import FireCron
from holdfast.engine.crash import kill
from holdfast.testing import AsyncHarness

pytestmark = pytest.mark.anyio

START = datetime(2024, 3, 29, 12, tzinfo=UTC)
HOUR = 3_600_000


def ticking(app_id: str = "t", **settings: Any) -> tuple[App, list[CronTick]]:
    app = App(app_id)
    ticks: list[CronTick] = []

    @app.function(Cron("0 * * * *", **settings))
    async def hourly(ctx: Context[CronTick]) -> None:
        ticks.append(ctx.event.data)
        assert ctx.event.id == ctx.event.data.scheduledAt

    return app, ticks


async def down_for(harness: AsyncHarness, ms: int) -> None:
    """The process dies, and is started again after a while."""
    kill(harness.engine)
    harness.clock._now += ms
    await harness.clock.quiesce()


def scheduled(ticks: list[CronTick]) -> list[str]:
    return [tick.scheduledAt[11:16] for tick in ticks]


async def cron_row(harness: AsyncHarness) -> Any:
    (cron,) = await harness.engine.reader.crons()
    return cron


async def test_jitter_delays_each_occurrence_and_never_brings_it_forward():
    app, ticks = ticking(jitter="5m")
    async with AsyncHarness(app, start=START) as harness:
        await harness.clock.advance("24h")
    assert scheduled(ticks) == [f"{hour % 24:02}:00" for hour in range(13, 36)] + ["12:00"] * (len(ticks) == 24)
    delays = [to_ms(datetime.fromisoformat(t.fireAt)) - to_ms(datetime.fromisoformat(t.scheduledAt)) for t in ticks]
    assert all(0 < delay <= 300_000 for delay in delays)
    assert len(set(delays)) > 20


@pytest.mark.parametrize(
    ("settings", "fired", "missed"),
    [
        ({}, ["17:00"], 4),
        ({"catch_up": "once"}, ["17:00"], 4),
        ({"catch_up": "skip"}, [], 5),
        ({"catch_up": "all"}, ["13:00", "14:00", "15:00", "16:00", "17:00"], 0),
        ({"catch_up": "all", "catch_up_limit": 2}, ["16:00", "17:00"], 3),
    ],
    ids=str,
)
async def test_after_downtime_the_policy_decides_visibly(settings, fired, missed):
    app, ticks = ticking(**settings)
    async with AsyncHarness(app, start=START) as harness:
        await down_for(harness, 5 * HOUR + HOUR // 2)
        assert scheduled(ticks) == fired
        cron = await cron_row(harness)
        assert cron.missed == missed
        assert iso(cron.next_at) == "2024-03-29T18:00:00.000Z"
        rows = harness.engine.store._conn.execute("SELECT occurrence, run_id IS NOT NULL FROM cron_fires").fetchall()
        assert sorted(rows) == [
            (to_ms(START) + n * HOUR, int(f"{12 + n}:00" in fired)) for n in range(1, 6)
        ]  # fmt: skip
        # a second crash decides nothing again
        await down_for(harness, 1000)
        assert scheduled(ticks) == fired
        await harness.clock.advance("1h")
        assert scheduled(ticks) == [*fired, "18:00"]


async def test_with_skip_a_short_restart_is_no_downtime():
    app, ticks = ticking(catch_up="skip")
    async with AsyncHarness(app, start=START) as harness:
        await harness.clock.advance("59m")
        await down_for(harness, 61_000)
        assert scheduled(ticks) == ["13:00"]
        await harness.clock.advance("59m")
        await down_for(harness, 125_000)
        assert scheduled(ticks) == ["13:00"]
        assert (await cron_row(harness)).missed == 1


async def test_a_changed_policy_or_jitter_keeps_the_place():
    app, _ = ticking()
    async with AsyncHarness(app, start=START) as harness:
        kill(harness.engine)
        harness.clock._now += 3 * HOUR + 1
        changed, ticks = ticking(catch_up="all", jitter="10s")
        harness.apps = (changed,)
        await harness.clock.quiesce()
        await harness.clock.advance("10s")
        assert scheduled(ticks) == ["13:00", "14:00", "15:00"]


async def test_a_schedule_that_went_away_while_it_was_due_leaves_a_trace():
    app, _ = ticking()
    async with AsyncHarness(app, start=START) as harness:
        kill(harness.engine)
        harness.clock._now += HOUR + 1
        other = App("t")

        @other.function(Cron("30 * * * *"), id="hourly")
        async def hourly(ctx: Context[CronTick]) -> None: ...

        harness.apps = (other,)
        await harness.clock.quiesce()
        assert [cron.schedule for cron in await harness.engine.reader.crons()] == ["30 * * * *"]
        found = harness.engine.store._conn.execute("SELECT schedule, occurrence, run_id FROM cron_fires").fetchall()
        assert found == [("0 * * * *", to_ms(START) + HOUR, None)]


async def test_schedules_of_one_function_with_a_common_occurrence_both_fire():
    app = App("t")
    ticks: list[str] = []

    @app.function(Cron("0 * * * *"), Cron("0 13 * * *"), Cron("@hourly", tz="Europe/Paris"))
    async def fn(ctx: Context[CronTick]) -> None:
        ticks.append(ctx.event.data.cron)

    async with AsyncHarness(app, start=START) as harness:
        await harness.clock.advance("1h")
    assert sorted(ticks) == ["0 * * * *", "0 13 * * *", "TZ=Europe/Paris @hourly"]


@pytest.mark.parametrize("seed", range(6))
async def test_every_occurrence_is_decided_once_across_crashes_and_downtimes(seed):
    rng = random.Random(seed)
    app = App("t")
    ticks: dict[str, list[int]] = {}
    texts = {"skip": "*/20 * * * *", "once": "TZ=Europe/Paris */30 1-4 * * *", "all": "15 * * * *"}
    functions = {}
    for policy, text in texts.items():
        zone, _, fields = text.rpartition("Paris ")

        async def fn(ctx: Context[CronTick], policy: str = policy) -> None:
            moment = to_ms(datetime.fromisoformat(ctx.event.data.scheduledAt))
            assert ctx.event.ts >= moment

            def body() -> None:
                ticks.setdefault(policy, []).append(moment)

            await ctx.step.run("body", body)

        cron = Cron(fields, tz="Europe/Paris" if zone else "UTC", jitter=rng.choice([None, "20s"]), catch_up=policy)  # type: ignore[arg-type]
        functions[policy] = app.function(cron, id=policy)(fn)
    # over the night in which the clocks change
    async with AsyncHarness(app, start=START) as harness:
        for _ in range(12):
            if rng.random() < 0.4:
                await harness.clock.advance(rng.randrange(0, 5 * 3600))
            elif rng.random() < 0.3:
                await harness.restart()
            else:
                await down_for(harness, rng.randrange(0, 8 * HOUR))
        end = harness.clock.now()
        rows = harness.engine.store._conn.execute(
            "SELECT schedule, occurrence, run_id FROM cron_fires ORDER BY occurrence"
        ).fetchall()
        crons = {cron.schedule: cron for cron in await harness.engine.reader.crons()}
    for policy, text in texts.items():
        mine = [(occurrence, run_id) for schedule, occurrence, run_id in rows if schedule == text]
        following = crons[text].next_at
        expected = [at for at in next_fires(text, to_ms(START), 2000) if at < following]
        assert [occurrence for occurrence, _ in mine] == expected
        fired = [occurrence for occurrence, run_id in mine if run_id is not None]
        assert ticks.get(policy, []) == fired
        assert crons[text].missed == len(mine) - len(fired)
        assert following > end - 20_000
        if policy == "all":
            assert crons[text].missed == 0




async def test_a_decision_that_can_not_be_written_is_made_again(monkeypatch):
    app, ticks = ticking()
    decide = FireCron.decide
    failures = ["once"]

    def failing(plan: FireCron, tx: Any) -> Any:
        if failures:
            raise RuntimeError(failures.pop())
        return decide(plan, tx)

    monkeypatch.setattr(FireCron, "decide", failing)
    async with AsyncHarness(app, start=START) as harness:
        await harness.clock.advance("1h")
        assert ticks == []
        await harness.clock.advance("5s")
        assert scheduled(ticks) == ["13:00"]
        await harness.clock.advance("1h")
        assert scheduled(ticks) == ["13:00", "14:00"]
        assert (await cron_row(harness)).missed == 0


async def test_fired_beside_its_occurrences_a_schedule_keeps_its_place():
    app, ticks = ticking()
    async with AsyncHarness(app, start=START) as harness:
        await harness.clock.advance("30m")
        await harness.engine.run_cron("t-hourly", "0 * * * *")
        await harness.clock.advance("1h")
    assert scheduled(ticks) == ["12:30", "13:00"]
