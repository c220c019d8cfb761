"""The holdfast app: its id, and the events it may send."""

from __future__ import annotations

from holdfast import App

from .events import EVENTS
from .resources import shop_lifespan

app = App("riqle", events=EVENTS, lifespan=shop_lifespan)
