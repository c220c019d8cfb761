"""The holdfast app: its id, the events it may send, and where the status of its jobs is mirrored to."""

from __future__ import annotations

from holdfast import App
from holdfast.sinks import RedisStatus

from .events import EVENTS
from .resources import inbox_lifespan
from .settings import redis_url

app = App(
    "zrg-dashboard",
    events=EVENTS,
    lifespan=inbox_lifespan,
    sinks=[
        RedisStatus(
            redis_url,
            key="job:v1:{event.data.clientId}:{function}",
            functions=["inbox-counts-recompute", "analytics-recompute"],
            name="inbox:v1:status",
        )
    ],
)
