"""Durations, moments and Retry-After as the protocol writes them (sections 2.3, 3)."""

from __future__ import annotations

import re
from datetime import datetime

from holdfast.base.clock import to_ms
from holdfast.base.duration import duration_ms
from holdfast.base.errors import ConfigurationError
from holdfast.base.limits import MAX_RETRY_AFTER_MS, MIN_RETRY_AFTER_MS
from holdfast.base.transient import parse_retry_after
from holdfast.wire.errors import WireError

_GO = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_MIN_DATE = 10


def span_ms(text: str) -> int:
    """Milliseconds of a duration such as `1h30m`, `2d`, `1w`.

    Raises:
        WireError: it is none.
    """
    try:
        return duration_ms(text)
    except ConfigurationError as error:
        raise WireError(f"'{text:.60}' is not a duration") from error


def go_span_ms(text: str) -> int:
    """Milliseconds of a duration in Go's own grammar, without days and weeks: what batch timeouts are written in.

    Raises:
        WireError: it is none.
    """
    parts: list[tuple[str, str]] = _GO.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise WireError(f"'{text:.60}' is not a duration")
    return round(sum(float(number) * _GO_UNITS[unit] for number, unit in parts))


_GO_UNITS = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "μs": 1e-3, "ms": 1.0, "s": 1000.0, "m": 60_000.0, "h": 3_600_000.0}


def moment_ms(text: str, now: int) -> int:
    """When a sleep or timeout ends: a duration from now, or a date.

    Raises:
        WireError: it is neither.
    """
    try:
        return now + duration_ms(text)
    except ConfigurationError as error:
        found = _date_ms(text)
        if found is None:
            raise WireError(f"'{text:.60}' is neither a duration nor a date") from error
        return found


def _date_ms(text: str) -> int | None:
    if len(text) < _MIN_DATE:
        return None
    try:
        return to_ms(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return None


def retry_after_text(ms: int) -> str:
    """A wait as the value of Retry-After: whole seconds, never too short."""
    return str(-(-_clipped(ms) // 1000))


def retry_after_ms(text: str | None, now: int) -> int | None:
    """How long a Retry-After asks to wait, within the protocol's bounds; None if it asks for nothing that can be read.

    Args:
        text: Seconds, an RFC 3339 or an HTTP date; None for no header.
        now: Milliseconds since 1970.
    """
    if text is None:
        return None
    date = _date_ms(text.strip())
    found = parse_retry_after(text, now) if date is None else max(0, date - now)
    return None if found is None else _clipped(found)


def _clipped(ms: int) -> int:
    return max(MIN_RETRY_AFTER_MS, min(ms, MAX_RETRY_AFTER_MS))
