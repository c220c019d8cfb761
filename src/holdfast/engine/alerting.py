"""Watching functions for trouble: what is measured, when a threshold is passed, and who is told."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping

import msgspec

from holdfast.base.duration import duration_ms
from holdfast.base.errors import HoldfastError
from holdfast.core.alerting import SwitchAlert
from holdfast.core.rows import AlertRow, EventRow
from holdfast.engine.functions import Registered
from holdfast.engine.host import Host
from holdfast.engine.metrics import Metrics
from holdfast.engine.notices import Notice
from holdfast.engine.timers import Timers
from holdfast.sdk.alerts import AlertRaised, AlertResolved, Alerts
from holdfast.store.reads import Backlog

_log = logging.getLogger("holdfast")


class Thresholds:
    """The alerts of one function, and what it did lately."""

    __slots__ = ("alerts", "delay_ms", "samples", "window_ms")

    def __init__(self, alerts: Alerts) -> None:
        self.alerts = alerts
        self.delay_ms = None if alerts.delay is None else duration_ms(alerts.delay)
        self.window_ms = duration_ms(alerts.window)
        self.samples: deque[tuple[int, int, int]] = deque()
        """(moment, completed, failed) as counted since the node started, the newest last."""

    def sample(self, now: int, completed: int, failed: int) -> tuple[int, int]:
        """Note what has been counted so far; how many completed and failed within the window."""
        samples = self.samples
        if not samples:
            samples.append((now, 0, 0))
        while len(samples) > 1 and samples[1][0] <= now - self.window_ms:
            samples.popleft()
        base = samples[0]
        if (completed, failed) != samples[-1][1:]:
            samples.append((now, completed, failed))
        return completed - base[1], failed - base[2]

    def measure(self, now: int, backlog: Backlog, completed: int, failed: int) -> dict[str, tuple[float, float, bool]]:
        """By kind: the value, the threshold, and whether it is passed."""
        alerts, out = self.alerts, {}
        if alerts.backlog is not None:
            out["backlog"] = (float(backlog.ready), float(alerts.backlog), backlog.ready > alerts.backlog)
        if self.delay_ms is not None:
            waited = 0 if backlog.oldest_at is None else max(0, now - backlog.oldest_at)
            out["delay"] = (waited / 1000, self.delay_ms / 1000, waited > self.delay_ms)
        ended = completed + failed
        if alerts.failure_rate is not None:
            rate = failed / ended if ended >= alerts.min_runs else 0.0
            out["failure_rate"] = (rate, alerts.failure_rate, rate > alerts.failure_rate)
        if alerts.dead_letters is not None:
            out["dead_letters"] = (float(failed), float(alerts.dead_letters), failed >= alerts.dead_letters)
        return out


class Alerting:
    """Looks at the functions that have thresholds whenever something has moved, at most once per interval."""

    def __init__(self, host: Host, metrics: Metrics, every_ms: int) -> None:
        self._host = host
        self._metrics = metrics
        self._every_ms = every_ms
        self._timers = Timers(host.clock, self._look)
        self._looking: asyncio.Task[None] | None = None
        self._watched: dict[int, Thresholds] = {}
        self.on: dict[tuple[int, str], AlertRow] = {}
        """The alerts that are on, by function and kind."""
        self.backlogs: Mapping[int, Backlog] = {}
        """What was measured last of the functions that have thresholds."""

    def start(self, functions: Mapping[int, Registered]) -> None:
        """Take up the thresholds of these functions, and the alerts that were on."""
        for function_id, fn in functions.items():
            alerts = fn.function.options.alerts
            if alerts is not None:
                self._watched[function_id] = Thresholds(alerts)
        self.on = {(row.function_id, row.kind): row for row in self._host.store.alert_rows()}
        self.touched()

    def stop(self) -> None:
        """Look no more."""
        self._timers.cancel()
        if self._looking is not None:
            self._looking.cancel()

    @property
    def looking(self) -> bool:
        """Whether a look is under way."""
        return self._looking is not None and not self._looking.done()

    def touched(self) -> None:
        """Something has moved: runs wait, or have ended."""
        if self._timers.due is None and (self._watched or self.on):
            self._timers.arm(self._host.clock.now() + self._every_ms)

    def _look(self) -> None:
        if self._host.running:
            self._looking = self._host.loop.create_task(self._look_quietly())

    async def _look_quietly(self) -> None:
        try:
            await self.look()
        except HoldfastError as error:
            _log.warning("alerts could not be worked out: %s", error)
            self.touched()

    async def look(self) -> None:
        """Measure now, and turn alerts on and off.

        Raises:
            StoreError: the store can't be read or written now.
        """
        host = self._host
        self.backlogs = await host.reader.backlogs(list(self._watched))
        now = host.clock.now()
        moving = False
        for function_id, thresholds in self._watched.items():
            backlog = self.backlogs.get(function_id, Backlog(0, None))
            ended = self._metrics.of(function_id).ended
            completed, failed = thresholds.sample(now, ended["completed"], ended["failed"])
            measured = thresholds.measure(now, backlog, completed, failed)
            moving = moving or backlog.ready > 0 or completed + failed > 0
            for kind, (value, threshold, passed) in measured.items():
                if passed != ((function_id, kind) in self.on):
                    await self._switch(function_id, kind, value, threshold, on=passed)
        for function_id, kind in list(self.on):
            watched = self._watched.get(function_id)
            if watched is None or getattr(watched.alerts, kind) is None:  # its threshold is no longer in the code
                row = self.on[function_id, kind]
                await self._switch(function_id, kind, row.value, row.threshold, on=False)
        if moving or self.on:
            self.touched()

    async def _switch(self, function_id: int, kind: str, value: float, threshold: float, *, on: bool) -> None:
        host = self._host
        now = host.clock.now()
        slug = host.slug_of(function_id)
        data: dict[str, object] = {"function_id": slug, "alert": kind, "value": value, "threshold": threshold}
        before = self.on.get((function_id, kind))
        if not on:
            data["raised_at"] = now if before is None else before.raised_at
        name = (AlertRaised if on else AlertResolved).__holdfast_event__
        row = EventRow(host.ids.new(now), name, now, now, msgspec.json.encode(data))
        alert = AlertRow(function_id, kind, now, value, threshold)
        plan = SwitchAlert(alert, host.intake.route(row, now), on=on)
        plan.then = host.accepted
        await host.submit(plan)
        if on:
            self.on[function_id, kind] = alert
            _log.warning("alert: %s of %s is %g, the threshold is %g", kind, slug, value, threshold)
        else:
            self.on.pop((function_id, kind), None)
            _log.info("alert resolved: %s of %s is %g, the threshold is %g", kind, slug, value, threshold)
        if host.notices.wanted:
            host.notices.publish(Notice("function", slug, function_id))

    def described(self) -> list[dict[str, object]]:
        """The alerts that are on, for pages and APIs."""
        return [
            {
                "function": self._host.slug_of(row.function_id),
                "alert": row.kind,
                "value": row.value,
                "threshold": row.threshold,
                "raised_at": row.raised_at,
                "text": words(row),
            }
            for row in self.on.values()
        ]


def words(alert: AlertRow) -> str:
    """An alert in a sentence."""
    value, threshold = alert.value, alert.threshold
    match alert.kind:
        case "backlog":
            return f"{value:,.0f} runs wait for a place, more than {threshold:,.0f}"
        case "delay":
            return f"runs wait for {value:,.0f} s, longer than {threshold:,.0f} s"
        case "failure_rate":
            return f"{value:.0%} of its runs fail, more than {threshold:.0%}"
        case _:
            return f"{value:,.0f} new dead letters"
