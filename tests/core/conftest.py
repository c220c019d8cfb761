"""How much the property tests try: little and always the same by default, as many plays as `HOLDFAST_LONG` says otherwise. A
failing play is shrunk and printed, with the `@reproduce_failure` that replays it."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

_COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}
_FIND = (Phase.explicit, Phase.generate, Phase.shrink)
settings.register_profile("quick", max_examples=25, derandomize=True, database=None, phases=_FIND, **_COMMON)
settings.register_profile("long", max_examples=int(os.environ.get("HOLDFAST_LONG") or 1), phases=_FIND, **_COMMON)
settings.load_profile("long" if os.environ.get("HOLDFAST_LONG") else "quick")
