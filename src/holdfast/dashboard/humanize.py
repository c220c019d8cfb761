"""Numbers, sizes and times as people read them. The browser's `times.js` repeats `ago` word for word."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from holdfast.base.clock import to_datetime

_SECOND, _MINUTE, _HOUR, _DAY = 1000, 60_000, 3_600_000, 86_400_000
_YEAR = 365 * _DAY


def duration(ms: float) -> str:
    """A span in the two units that matter: `<1 ms`, `340 ms`, `2.3 s`, `4 min 12 s`, `6 d 23 h`."""
    if ms < 1:
        return "<1 ms"
    if ms < _SECOND:
        return f"{round(ms)} ms"
    if ms < 10 * _SECOND:
        return f"{ms / _SECOND:.2f}".rstrip("0").rstrip(".") + " s"
    if ms < _MINUTE:
        return f"{ms / _SECOND:.1f}".removesuffix(".0") + " s"
    for unit, size, lower, lower_size in (
        ("min", _MINUTE, "s", _SECOND),
        ("h", _HOUR, "min", _MINUTE),
        ("d", _DAY, "h", _HOUR),
        ("y", _YEAR, "d", _DAY),
    ):
        limit = {"min": _HOUR, "h": _DAY, "d": _YEAR, "y": float("inf")}[unit]
        if ms < limit:
            whole, rest = divmod(int(ms), size)
            part = rest // lower_size
            return f"{whole} {unit} {part} {lower}" if part else f"{whole} {unit}"
    raise AssertionError(ms)


def offset(ms: int) -> str:
    """A place on a run's own clock: `+0 ms`, `+1.2 s`."""
    return "+0 ms" if ms <= 0 else "+" + duration(ms)


def coarse(ms: float) -> str:
    """A span in one unit: `12 s`, `4 min`, `3 h`, `6 d`."""
    seconds = int(abs(ms)) // _SECOND
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min"
    if seconds < 86_400:
        return f"{seconds // 3600} h"
    return f"{seconds // 86_400} d"


def ago(moment: int, now: int) -> str:
    """A moment relative to now: `just now`, `12 s ago`, `in 5 min`; the date once it is a month away."""
    distance = moment - now
    if abs(distance) < 2 * _SECOND:
        return "just now" if distance <= _SECOND else "in a moment"  # clocks and networks are not that exact
    if abs(distance) >= 30 * _DAY:
        return to_datetime(moment).strftime("%Y-%m-%d")
    return f"in {coarse(distance)}" if distance > 0 else f"{coarse(distance)} ago"


def absolute(moment: int, zone: str | None = None) -> str:
    """A moment in full, `2026-03-01 14:05:09.120 UTC`, in a zone if one is given."""
    at: datetime = to_datetime(moment)
    if zone is not None:
        local = at.astimezone(ZoneInfo(zone))
        return local.strftime("%Y-%m-%d %H:%M:%S ") + (local.tzname() or zone)
    return at.strftime("%Y-%m-%d %H:%M:%S.") + f"{moment % 1000:03d} UTC"


def clock(moment: int) -> str:
    """The time of day to the millisecond, `14:05:09.120`."""
    return to_datetime(moment).strftime("%H:%M:%S.") + f"{moment % 1000:03d}"


def number(value: int) -> str:
    """With thousands separated: `12,345`."""
    return f"{value:,}"


def compact(value: float) -> str:
    """At most four characters for a tile: `950`, `12.3k`, `4.1M`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size * 10 or (value >= size > 1e3):
            scaled = value / size
            return (f"{scaled:.1f}" if scaled < 100 else f"{scaled:.0f}").removesuffix(".0") + unit
    return number(int(value)) if value == int(value) else f"{value:.1f}"


def size(count: int) -> str:
    """Bytes: `812 B`, `3.4 kB`, `1.2 MB`."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.5:
            return f"{value:.1f}".removesuffix(".0") + f" {unit}" if value < 100 else f"{value:.0f} {unit}"
    return f"{value / 1000:.1f} TB"


def percent(rate: float) -> str:
    """A share of 1, never rounded up to a clean sheet: 0.9996 is `99.9%`."""
    if rate >= 1:
        return "100%"
    tenths = int(rate * 1000) / 10
    return f"{tenths:.1f}".removesuffix(".0") + "%"


def plural(count: int, one: str, many: str | None = None) -> str:
    """`1 run`, `3 runs`."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def ordinal(count: int) -> str:
    """`1st`, `2nd`, `11th`."""
    suffix = "th" if 10 <= count % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(count % 10, "th")
    return f"{count}{suffix}"
