"""How much the property tests try: little by default, much in the long run. A failing example is printed, and `@reproduce_failure`
or the hypothesis database replays it."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}
settings.register_profile("quick", max_examples=40, derandomize=True, database=None, **_COMMON)
settings.register_profile("long", max_examples=int(os.environ.get("HOLDFAST_LONG") or 1), **_COMMON)
settings.load_profile("long" if os.environ.get("HOLDFAST_LONG") else "quick")
