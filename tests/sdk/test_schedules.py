"""Cron schedules, in time zones, across both changes of daylight-saving time."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import App, ConfigurationError, Context, Cron, CronTick
from holdfast.base.clock import to_ms
from holdfast.core.cron import Schedule

PARIS = ZoneInfo("Europe/Paris")


def fires(text, start, end, zone=UTC):
    moments = Schedule.parse(text).between(to_ms(start), to_ms(end), 1000)
    return [datetime.fromtimestamp(ms / 1000, zone).strftime("%d %H:%M") for ms in moments]


def test_every_name_has_its_fields():
    day = datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 3, 2, tzinfo=UTC)
    assert fires("@daily", *day) == ["02 00:00"]
    assert len(fires("@hourly", *day)) == 24
    assert fires("TZ=Europe/Paris @daily", *day) == ["01 23:00"]
    assert fires("0 9 * * mon-fri", datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 3, 6, tzinfo=UTC)) == [
        "01 09:00", "04 09:00", "05 09:00",
    ]  # fmt: skip


def test_a_time_that_the_clocks_skip_fires_once_right_after_the_gap():
    # 31 March 2024: 02:00 CET becomes 03:00 CEST
    spring = datetime(2024, 3, 30, 12, tzinfo=PARIS), datetime(2024, 4, 1, 12, tzinfo=PARIS)
    assert fires("TZ=Europe/Paris 30 2 * * *", *spring, PARIS) == ["31 03:00", "01 02:30"]
    assert fires("TZ=Europe/Paris 0 9 * * *", *spring, PARIS) == ["31 09:00", "01 09:00"]


def test_a_time_that_the_clocks_repeat_fires_once():
    # 27 October 2024: 03:00 CEST becomes 02:00 CET
    autumn = datetime(2024, 10, 26, 12, tzinfo=PARIS), datetime(2024, 10, 28, 12, tzinfo=PARIS)
    assert fires("TZ=Europe/Paris 30 2 * * *", *autumn, PARIS) == ["27 02:30", "28 02:30"]


def test_an_hourly_schedule_fires_every_hour_of_real_time_on_both_days():
    spring = datetime(2024, 3, 30, 23, tzinfo=UTC), datetime(2024, 3, 31, 23, tzinfo=UTC)
    autumn = datetime(2024, 10, 26, 23, tzinfo=UTC), datetime(2024, 10, 27, 23, tzinfo=UTC)
    for start, end in (spring, autumn):
        moments = Schedule.parse("TZ=Europe/Paris 0 * * * *").between(to_ms(start), to_ms(end), 100)
        assert {b - a for a, b in zip(moments, moments[1:], strict=False)} == {3_600_000}
        assert len(moments) == 24


@given(st.datetimes(datetime(2000, 1, 1), datetime(2060, 1, 1)).map(lambda t: to_ms(t.replace(tzinfo=UTC))))
def test_the_next_occurrence_is_strictly_later_and_none_is_left_out(ms):
    schedule = Schedule.parse("*/7 * * * *")
    following = schedule.after(ms)
    assert following > ms
    assert schedule.after(following - 1) == following
    assert schedule.between(ms, following, 10) == [following]


def test_between_is_limited_and_includes_its_end():
    schedule = Schedule.parse("* * * * *")
    assert schedule.between(0, 180_000, 100) == [60_000, 120_000, 180_000]
    assert schedule.between(0, 180_000, 2) == [60_000, 120_000]
    assert schedule.between(0, 59_999, 2) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("* * * *", "five fields"), ("* * * * * *", "five fields"), ("61 * * * *", "minute"), ("0 0 30 2 *", "day"),
        ("", "five fields"), ("a b c d e", "minute"), ("TZ=Mars/Olympus 0 0 * * *", "Mars/Olympus"), ("TZ=../../etc/passwd * * * * *", "time zone"),
        ("@fortnightly", "five fields"),
    ],
)  # fmt: skip
def test_what_is_no_schedule_is_refused_with_the_reason(text, reason):
    with pytest.raises(ConfigurationError, match=f"(?i){reason}"):
        Schedule.parse(text)


def test_the_trigger_writes_the_protocols_form():
    assert Cron("0 9 * * *").text == "0 9 * * *"
    assert Cron("0 9 * * *", tz="Europe/Paris").text == "TZ=Europe/Paris 0 9 * * *"


@pytest.mark.parametrize(
    ("cron", "reason"),
    [
        (lambda: Cron("0 9 * * *", jitter="500ms"), r"The jitter of '500ms' of schedule '0 9 \* \* \*' is less than the min of: 1s"),
        (lambda: Cron("0 9 * * *", jitter="6m"), "The jitter of '6m' .* is greater than the max of: 5m"),
        (lambda: Cron("0 9 * * *", jitter="soon"), "schedule '0 9 .*': jitter: 'soon' is not a duration"),
        (lambda: Cron("0 9 * * *", catch_up="often"), "schedule '0 9 .*': catch_up must be 'skip', 'once' or 'all', not 'often'"),
        (lambda: Cron("0 9 * * *", catch_up="all", catch_up_limit=0), "schedule '0 9 .*': catch_up_limit must be 1 to 1000, not 0"),
        (lambda: Cron("0 9 * * *", catch_up_limit=5), "schedule '0 9 .*': catch_up_limit belongs to catch_up='all', and catch_up is 'once'"),
        (lambda: Cron("0 9 * *"), r"'0 9 \* \*' isn't a valid cron schedule"),
        (lambda: Cron("0 9 * * *", tz="Mars/Olympus"), "'Mars/Olympus' isn't a known time zone"),
        (lambda: Cron("0 9 * * " + ",".join(["1"] * 200)), ".*longer than 255 characters"),
    ],
)
def test_an_unusable_schedule_is_refused_where_the_function_is_defined(cron, reason):
    app = App("t")
    with pytest.raises(ConfigurationError, match=rf"test_schedules\.py:\d+, function .*report: {reason}"):

        @app.function(cron())
        async def report(ctx: Context[CronTick]) -> None: ...


def test_the_registration_has_the_protocols_jitter_and_catch_up_beside_it():
    app = App("t")

    @app.function(
        Cron("0 9 * * *", tz="Europe/Paris", jitter="90s"), Cron("@daily", catch_up="all", catch_up_limit=7), Cron("@hourly", catch_up="skip")
    )
    async def report(ctx: Context[CronTick]) -> None: ...

    assert report.config()["triggers"] == [
        {"cron": "TZ=Europe/Paris 0 9 * * *", "jitter": "1m30s"},
        {"cron": "@daily", "catchUp": "all", "catchUpLimit": 7},
        {"cron": "@hourly", "catchUp": "skip"},
    ]
