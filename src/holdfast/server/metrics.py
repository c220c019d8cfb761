"""Counters of the server itself, beside those of the engine, in the Prometheus text format."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.responses import Response

from holdfast.engine.engine import Engine
from holdfast.server.bodies import Budget

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


def metrics_response(engine: Engine, metrics: HttpMetrics) -> Response:
    """The text for a Prometheus server."""
    text = generate_latest(engine.registry) + generate_latest(metrics.registry)
    return Response(text, headers={"content-type": CONTENT_TYPE_LATEST})
