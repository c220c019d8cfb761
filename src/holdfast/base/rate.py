"""Rates as people write them: so many in so much time."""

from __future__ import annotations

import re

import msgspec

from holdfast.base.duration import duration_ms
from holdfast.base.errors import ConfigurationError

_RATE = re.compile(r"(\d{1,7})\s*/\s*(\S+)")
_UNITS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_LONGEST_MS = 86_400_000


class Rate(msgspec.Struct, frozen=True):
    """At most `count` in `per_ms` milliseconds."""

    count: int
    per_ms: int

    def ms_for(self, count: int) -> int:
        """How long `count` of them take, in milliseconds."""
        return count * self.per_ms // self.count

    def within(self, ms: int) -> int:
        """How many fit into a time, and one at least."""
        return max(1, self.count * ms // self.per_ms)


def rate_of(text: str) -> Rate:
    """A rate such as `10/s`, `100/m`, `1000/h` or `5/30s`.

    Raises:
        ConfigurationError: it isn't one, or is nothing in all that time.
    """
    found = _RATE.fullmatch(text.strip())
    if found is None:
        raise _invalid(text)
    unit = found[2]
    try:
        per_ms = _UNITS[unit] if unit in _UNITS else duration_ms(unit)
    except ConfigurationError:
        raise _invalid(text) from None
    count = int(found[1])
    if count < 1 or not 1 <= per_ms <= _LONGEST_MS:
        raise _invalid(text)
    return Rate(count, per_ms)


def _invalid(text: str) -> ConfigurationError:
    return ConfigurationError(f"{text[:40]!r} is not a rate; write 10/s, 100/m or 1000/h, of one at least in a day")
