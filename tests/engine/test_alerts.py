"""P6: alerts: raised once when a threshold is passed, resolved once, told as event, metric and status."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import generate_latest

from holdfast import (
    AlertRaised,
    AlertResolved,
    Alerts,
    App,
    ConfigurationError,
    Context,
    Event,
    NonRetriableError,
    Throttle,
)
from holdfast.testing import Harness

pytestmark = pytest.mark.anyio

START = datetime(2030, 1, 1, tzinfo=UTC)


class Job(Event, name="t/job"):
    n: int = 0
    bad: bool = False


def watching(app: App) -> list[tuple[str, str, float]]:
    told: list[tuple[str, str, float]] = []

    @app.function(AlertRaised)
    async def raised(ctx: Context[AlertRaised]) -> None:
        told.append(("raised", ctx.event.data.alert, ctx.event.data.value))

    @app.function(AlertResolved)
    async def resolved(ctx: Context[AlertResolved]) -> None:
        told.append(("resolved", ctx.event.data.alert, ctx.event.data.value))

    return told


def gauge(h: Harness, name: str) -> str | None:
    lines = generate_latest(h.engine.registry).decode().splitlines()
    return next((line.rpartition(" ")[2] for line in lines if line.startswith(name + "{")), None)


async def test_a_backlog_raises_one_alert_and_resolves_it():
    app = App("t")
    told = watching(app)

    @app.function(Job, throttle=Throttle(1, "10s"), alerts=Alerts(backlog=5, delay="30s"))
    async def work(ctx: Context[Job]) -> None:
        pass

    async with Harness(app, start=START) as h:
        await app.send_many([Job(n=n) for n in range(4)])
        await h.advance("5s")
        assert told == []
        await app.send_many([Job(n=n) for n in range(6)])
        await h.advance("5s")
        assert told == [("raised", "backlog", 9.0)] or told == [("raised", "backlog", 8.0)]
        assert gauge(h, "holdfast_alert") == "1.0"
        assert h.engine.status()["alerts"][0]["text"].endswith("runs wait for a place, more than 5")
        await h.restart()
        assert [alert["alert"] for alert in h.engine.status()["alerts"]] == ["backlog"]
        await h.advance("5m")
        assert sorted(told[1:]) == sorted(
            [("resolved", "backlog", 5.0), ("raised", "delay", pytest.approx(30, abs=2)), ("resolved", "delay", pytest.approx(0, abs=30))]
        )
        assert gauge(h, "holdfast_alert") is None
        assert h.engine.status()["alerts"] == []


async def test_failures_raise_alerts_within_their_window():
    app = App("t", alerts=Alerts(failure_rate=0.5, dead_letters=3, min_runs=4, window="1m"))
    told = watching(app)

    @app.function(Job, id="work")
    async def work(ctx: Context[Job]) -> None:
        if ctx.event.data.bad:
            raise NonRetriableError("no")

    async with Harness(app, start=START) as h:
        await app.send_many([Job(bad=True), Job(bad=True), Job()])
        await h.advance("2s")
        assert told == []
        await app.send_many([Job(bad=True)])
        await h.advance("2s")
        assert sorted(told) == [("raised", "dead_letters", 3.0), ("raised", "failure_rate", 0.75)]
        await h.advance("2m")
        assert sorted(told[2:]) == [("resolved", "dead_letters", 1.0), ("resolved", "failure_rate", 0.0)]


async def test_nothing_is_looked_at_while_nothing_moves():
    app = App("t")

    @app.function(Job, alerts=Alerts(backlog=5))
    async def work(ctx: Context[Job]) -> None:
        await ctx.step.sleep("long", timedelta(days=300))

    async with Harness(app, start=START) as h:
        await h.send(Job())
        await h.advance("1h")
        assert not h.engine.alerting.looking
        groups = h.engine.store.group.groups
        await h.advance("200d")
        assert h.engine.store.group.groups == groups


async def test_an_alert_whose_threshold_is_gone_from_the_code_is_resolved():
    def build(alerts: Alerts | None) -> App:
        app = App("t")

        @app.function(Job, throttle=Throttle(1, "1h"), **({"alerts": alerts} if alerts else {}))
        async def work(ctx: Context[Job]) -> None:
            pass

        return app

    first = build(Alerts(backlog=0))
    async with Harness(first, start=START) as h:
        await first.send_many([Job(n=n) for n in range(3)])
        await h.advance("5s")
        assert len(h.engine.status()["alerts"]) == 1
        h.apps = (build(None),)
        await h.restart()
        await h.advance("5s")
        await asyncio.sleep(0)
        assert h.engine.status()["alerts"] == []


@pytest.mark.parametrize(
    ("alerts", "message"),
    [
        (Alerts(backlog=-1), "backlog is a whole number of 0 or more, not -1"),
        (Alerts(failure_rate=2), "failure_rate is 0 to 1, without 1, not 2"),
        (Alerts(dead_letters=0), "dead_letters is a whole number of 1 or more, not 0"),
        (Alerts(window="1ms"), "the window is 1s to 24h, not '1ms'"),
    ],
)
def test_a_threshold_out_of_its_range_is_an_error_at_definition(alerts, message):
    app = App("t")
    with pytest.raises(ConfigurationError, match=message):

        @app.function(Job, alerts=alerts)
        async def work(ctx: Context[Job]) -> None: ...
