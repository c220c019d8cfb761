"""The lines of the page of schedules."""

from __future__ import annotations

from datetime import UTC, datetime

from holdfast.base.clock import to_ms
from holdfast.dashboard.pages.crons import lines
from holdfast.store.reads import CronView, FunctionView

NOON = to_ms(datetime(2024, 3, 30, 12, tzinfo=UTC))
HOURLY = "TZ=Europe/Paris 30 2 * * *"


def function(**trigger: object) -> FunctionView:
    return FunctionView(1, "shop", "shop-report", "report", 1, {"triggers": [{"cron": HOURLY, **trigger}]}, False, False, 0)


def test_the_next_five_are_in_the_schedules_zone_across_the_change_of_the_clocks():
    cron = CronView("shop-report", HOURLY, to_ms(datetime(2024, 3, 31, 1, tzinfo=UTC)), None, 0, False)
    (line,) = lines([cron], NOON, {"shop-report": function()})
    assert (line.zone, line.habits, len(line.coming)) == ("Europe/Paris", "", 5)
    assert [text[11:16] for _, text in line.coming][:2] == ["03:00", "02:30"]
    assert line.coming[0][0] == cron.next_at


def test_jitter_and_catch_up_are_said_and_what_waits_for_its_jitter_is_still_to_come():
    cron = CronView("shop-report", HOURLY, NOON - 500, None, 3, False)
    (line,) = lines([cron], NOON, {"shop-report": function(jitter="5m", catchUp="all", catchUpLimit=100)})
    assert line.habits == "up to 5m later, all missed ones fire"
    (line,) = lines([cron], NOON, {"shop-report": function(catchUp="skip")})
    assert line.habits == "missed ones don't fire"
