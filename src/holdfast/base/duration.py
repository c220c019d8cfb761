"""Durations as people and the protocol write them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TypeAlias

from holdfast.base.errors import ConfigurationError

Duration: TypeAlias = timedelta | int | float | str
"""A span of time: a timedelta, seconds as a number, or text such as "90s", "1h30m", "2d", "1w"."""

_UNITS = {
    "w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1, "us": 0.001, "µs": 0.001,
    "ns": 1e-6,
}  # fmt: skip
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|w|d|h|m|s)", re.ASCII)


def duration_ms(value: Duration) -> int:
    """Milliseconds of a duration.

    Raises:
        ConfigurationError: it is negative or not a duration.
    """
    if isinstance(value, timedelta):
        ms = value.total_seconds() * 1000
    elif isinstance(value, bool):
        raise ConfigurationError(f"{value!r} is not a duration; write a timedelta, seconds, or text such as '1h30m'")
    elif isinstance(value, int | float):
        ms = value * 1000
    else:
        ms = _parse(value)
    if not 0 <= ms < 1e15:
        raise ConfigurationError(f"{value!r} is not a duration; it must be zero or more and finite")
    return round(ms)


def _parse(text: str) -> float:
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ConfigurationError(f"{text!r} is not a duration; write it as '90s', '1h30m', '2d' or '1w'")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def duration_text(ms: int) -> str:
    """The shortest text that `duration_ms` reads back, such as '1h30m'."""
    if ms == 0:
        return "0s"
    out = ""
    for unit in ("d", "h", "m", "s", "ms"):
        size = int(_UNITS[unit])
        count, ms = divmod(ms, size)
        if count:
            out += f"{count}{unit}"
    return out
