"""The holdfast app: its id, and the events it may send."""

from __future__ import annotations

from holdfast import App

from .events import EVENTS
from .resources import catalogue_lifespan

app = App("salla-da9i9a", events=EVENTS, lifespan=catalogue_lifespan)
