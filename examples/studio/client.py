"""The holdfast app: its id, and the events it may send."""

from __future__ import annotations

from holdfast import App

from .events import EVENTS
from .resources import studio_lifespan

app = App("advert-01", events=EVENTS, lifespan=studio_lifespan)
