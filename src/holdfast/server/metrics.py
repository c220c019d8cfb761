"""Counters of the server itself, beside those of the engine, in the Prometheus text format."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import Response

from holdfast.base.errors import StoreError
from holdfast.engine.engine import Engine
from holdfast.server.bodies import Budget
from holdfast.store.flow_reads import FlowView

_log = logging.getLogger("holdfast")

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class HttpMetrics:
    """Requests by route (never by path, which has keys and ids in it), method and status."""

    def __init__(self, budget: Budget) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "holdfast_http_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "holdfast_http_request_seconds",
            "Time to answer, streams left out.",
            ("route",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        Gauge("holdfast_http_body_bytes", "Bytes of request bodies in memory.", registry=self.registry).set_function(
            lambda: budget.used
        )
        self._known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def answered(self, method: str, route: str, status: int, seconds: float, *, streamed: bool) -> None:
        """Count one request."""
        key = (method, route, status)
        found = self._known.get(key)
        if found is None:
            # methods are the client's to choose; only those of the protocol get a label of their own
            label = method if method in {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"} else "OTHER"
            found = self._requests.labels(label, route, str(status)), self._seconds.labels(route)
            if label == method:
                self._known[key] = found
        found[0].inc()
        if not streamed:
            found[1].observe(seconds)


class FlowMetrics(Collector):
    """Lines and limits by function. Keys are the senders' to choose, so they have no label."""

    def __init__(self, views: Sequence[FlowView]) -> None:
        self._views = views

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        rule = ["fn", "rule"]
        in_line = GaugeMetricFamily("holdfast_runs_in_line", "Runs that wait in line, up to a bound.", labels=["fn"])
        waiting = GaugeMetricFamily("holdfast_runs_waiting", "Runs that wait for a rule, up to a bound.", labels=rule)
        used = GaugeMetricFamily("holdfast_limit_used", "Places taken of a limit, over all of its keys.", labels=rule)
        limit = GaugeMetricFamily("holdfast_limit", "The limit in force, of each key where it has one.", labels=rule)
        paused = GaugeMetricFamily("holdfast_function_paused", "1 while a function is paused.", labels=["fn"])
        for view in self._views:
            in_line.add_metric([view.function], view.backlog.queued)
            paused.add_metric([view.function], int(view.pause is not None))
            for name, count in view.backlog.delayed.items():
                waiting.add_metric([view.function, name], count)
            for one in view.rules:
                if one.limit is not None:
                    limit.add_metric([view.function, one.name], one.limit)
                if one.used is not None:
                    used.add_metric([view.function, one.name], one.used)
        return (in_line, waiting, used, limit, paused)


async def metrics_response(engine: Engine, metrics: HttpMetrics) -> Response:
    """The text for a Prometheus server."""
    text = generate_latest(engine.registry) + generate_latest(metrics.registry)
    try:
        flow = CollectorRegistry()
        flow.register(FlowMetrics(await engine.reader.flow()))
        text += generate_latest(flow)
    except StoreError as error:
        # a store in trouble is what the other metrics are watched for
        _log.warning("metrics of flow control are left out: %s", error)
    return Response(text, headers={"content-type": CONTENT_TYPE_LATEST})
