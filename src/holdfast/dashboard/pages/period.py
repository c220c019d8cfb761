"""The period that counters and charts look back over."""

from __future__ import annotations

import msgspec
from starlette.requests import Request

PERIODS = {"1h": ("hour", 3_600_000), "24h": ("24 hours", 86_400_000), "7d": ("7 days", 7 * 86_400_000)}


class Period(msgspec.Struct, frozen=True):
    """A period ending now."""

    key: str
    label: str
    ms: int


def period(request: Request) -> Period:
    """The period of an address; the last 24 hours unless it names another."""
    key = request.query_params.get("period", "24h")
    return named(key if key in PERIODS else "24h")


def named(key: str) -> Period:
    """The period with a key of `PERIODS`."""
    return Period(key, *PERIODS[key])
