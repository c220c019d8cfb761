"""Counters kept as plain integers on the hot path, and shown to Prometheus when it asks."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from holdfast.engine.host import Host

_BOUNDS_MS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000, 3_600_000)


class FunctionCounters:
    """What is counted per function."""

    __slots__ = ("buckets", "ended", "retried", "started", "total_ms")

    def __init__(self) -> None:
        self.started = 0
        self.retried = 0
        self.ended = {"completed": 0, "failed": 0, "cancelled": 0}
        self.buckets = [0] * (len(_BOUNDS_MS) + 1)
        self.total_ms = 0

    def end(self, status: str, duration_ms: int) -> None:
        """Count an end."""
        self.ended[status] += 1
        self.buckets[bisect_left(_BOUNDS_MS, duration_ms)] += 1
        self.total_ms += duration_ms


class Metrics(Collector):
    """All counters of a node."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.events = 0
        self.functions: dict[int, FunctionCounters] = {}

    def of(self, function_id: int) -> FunctionCounters:
        """The counters of a function."""
        counters = self.functions.get(function_id)
        if counters is None:
            counters = self.functions[function_id] = FunctionCounters()
        return counters

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        host = self._host
        yield CounterMetricFamily("holdfast_events_received", "Events accepted since the start.", value=self.events)
        started = CounterMetricFamily("holdfast_runs_started", "Runs started, by function.", labels=["fn"])
        retried = CounterMetricFamily(
            "holdfast_retries", "Attempts that failed and will be followed by another.", labels=["fn"]
        )
        ended = CounterMetricFamily(
            "holdfast_runs_ended", "Runs ended, by function and status.", labels=["fn", "status"]
        )
        duration = HistogramMetricFamily("holdfast_run_duration_seconds", "From start to end of a run.", labels=["fn"])
        for function_id, counters in list(self.functions.items()):
            slug = host.slug_of(function_id)
            started.add_metric([slug], counters.started)
            retried.add_metric([slug], counters.retried)
            for status, count in counters.ended.items():
                ended.add_metric([slug, status], count)
            duration.add_metric([slug], _cumulative(counters.buckets), counters.total_ms / 1000)
        yield from (started, retried, ended, duration)
        gauges = {
            "holdfast_runs_in_memory": ("Runs this node holds in memory.", host.in_flight),
            "holdfast_run_capacity": ("Runs this node may hold in memory.", host.capacity),
            "holdfast_backlog_lanes": ("Lanes with items that wait for a place.", len(host.store.lanes.rows)),
            "holdfast_lost_threads": ("Threads still running for steps that timed out.", host.threads.lost),
            "holdfast_accepting": ("1 while the store takes writes.", int(host.problem is None)),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(name, text, value=value)
        yield from self._trouble()
        yield CounterMetricFamily("holdfast_commits", "Group commits since the start.", value=host.store.group.groups)
        yield CounterMetricFamily("holdfast_plans", "Plans committed since the start.", value=host.store.group.plans)

    def _trouble(self) -> Iterable[Metric]:
        host = self._host
        alert = GaugeMetricFamily("holdfast_alert", "1 while an alert of a function is on.", labels=["fn", "alert"])
        for function_id, kind in host.alerting.on:
            alert.add_metric([host.slug_of(function_id), kind], 1)
        backlog = GaugeMetricFamily(
            "holdfast_backlog", "Ready runs that wait for a place, of functions with alerts.", labels=["fn"]
        )
        for function_id, found in host.alerting.backlogs.items():
            backlog.add_metric([host.slug_of(function_id)], found.ready)
        yield from (alert, backlog)


def _cumulative(buckets: list[int]) -> list[tuple[str, float]]:
    out, total = [], 0
    for bound, count in zip(_BOUNDS_MS, buckets, strict=False):
        total += count
        out.append((str(bound / 1000), float(total)))
    out.append(("+Inf", float(total + buckets[-1])))
    return out
