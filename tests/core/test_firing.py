"""Jitter and catch-up of schedules, against a model that decides one occurrence at a time."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from holdfast import ConfigurationError
from holdfast.base.clock import to_ms
from holdfast.core.cron import Schedule, next_fires
from holdfast.core.firing import GRACE_MS, RECENT, Firing

START = to_ms(datetime(2024, 3, 29, tzinfo=UTC))
MINUTE = 60_000
DAY = 86_400_000

SCHEDULES = ["* * * * *", "*/7 * * * *", "0 * * * *", "30 2 * * *", "TZ=Europe/Paris 30 2 * * *", "TZ=Europe/Paris */20 1-3 * * *", "0 9 * * mon"]
schedules = st.sampled_from(SCHEDULES)
jitters = st.sampled_from([0, 1000, 30_000, 300_000])
policies = st.sampled_from(["skip", "once", "all"])


@settings(deadline=None)
@given(schedules, jitters, st.integers(0, 400 * DAY))
def test_an_occurrence_fires_after_it_is_due_and_before_the_next_one_does(schedule, jitter, offset):
    firing = Firing(Schedule.parse(schedule), "app-fn", jitter)
    first, second = next_fires(schedule, START + offset, 2)
    due = firing.due(first)
    assert due == firing.due(first)
    if jitter:
        assert first < due <= min(first + jitter, second)
        assert due < firing.due(second)
    else:
        assert due == first


def test_functions_and_occurrences_are_spread():
    schedule = Schedule.parse("0 * * * *")
    occurrences = next_fires("0 * * * *", START, 50)
    offsets = {Firing(schedule, name, 300_000).due(at) - at for name in ("a", "b", "c") for at in occurrences}
    assert len(offsets) > 140
    assert max(offsets) > 200_000
    assert min(offsets) < 100_000


def model(firing: Firing, next_at: int, now: int) -> tuple[list[int], list[int]]:
    """The occurrences that fire and those that are missed, found one by one from the front."""
    passed: list[int] = []
    occurrence = next_at
    while firing.due(occurrence) <= now:
        passed.append(occurrence)
        occurrence = firing.schedule.after(occurrence)
    if firing.catch_up == "all":
        fire = passed[-firing.limit :]
    elif firing.catch_up == "once":
        fire = passed[-1:]
    else:
        fire = [at for at in passed[-1:] if now <= firing.due(at) + GRACE_MS]
    return fire, [at for at in passed if at not in fire]


@settings(deadline=None)
@example("* * * * *", 1000, "all", 100, [54_900_000])
@given(schedules, jitters, policies, st.integers(1, 120), st.lists(st.integers(0, 3 * DAY), min_size=1, max_size=8))
def test_every_occurrence_is_decided_once_whatever_the_downtimes(schedule, jitter, policy, limit, pauses):
    firing = Firing(Schedule.parse(schedule), "app-fn", jitter, policy, limit)
    next_at = firing.schedule.after(START)
    now = START
    decided: list[int] = []
    missed_count = 0
    for pause in pauses:
        now += pause
        fire, missed = model(firing, next_at, now)
        decision = firing.decide(next_at, now)
        assert decision.fire == fire
        assert decision.missed == missed[-RECENT:]
        assert decision.missed_count == len(missed)
        assert firing.due(decision.next_at) > now
        decided += sorted([*fire, *missed])
        missed_count += decision.missed_count
        next_at = decision.next_at
    assert decided == firing.schedule.between(START, next_at - 1, 100_000)


def test_deciding_early_decides_nothing():
    firing = Firing(Schedule.parse("0 9 * * *"), "app-fn", 30_000, "all")
    first = firing.schedule.after(START)
    decision = firing.decide(first, firing.due(first) - 1)
    assert (decision.fire, decision.missed_count, decision.next_at) == ([], 0, first)


def test_a_year_of_minutes_is_counted():
    firing = Firing(Schedule.parse("* * * * *"), "app-fn")
    decision = firing.decide(START, START + 365 * DAY)
    assert decision.missed_count == 365 * 1440
    assert decision.fire == [START + 365 * DAY]
    assert decision.missed == [START + 365 * DAY - n * MINUTE for n in range(RECENT, 0, -1)]


@settings(deadline=None)
@given(schedules, st.integers(0, 400 * DAY), st.integers(1, 20))
def test_the_next_fires_are_the_occurrences_one_after_the_other(schedule, offset, count):
    moments = next_fires(schedule, START + offset, count)
    expected = [Schedule.parse(schedule).after(START + offset)]
    while len(expected) < count:
        expected.append(Schedule.parse(schedule).after(expected[-1]))
    assert moments == expected


def test_next_fires_of_what_is_no_schedule():
    with pytest.raises(ConfigurationError, match="'nonsense' isn't a valid cron schedule"):
        next_fires("nonsense", 0, 1)
