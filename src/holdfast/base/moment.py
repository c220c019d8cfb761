"""Moments as people write them."""

from __future__ import annotations

import re
from datetime import datetime

from holdfast.base.clock import to_ms
from holdfast.base.duration import duration_ms
from holdfast.base.errors import ConfigurationError


def moment(text: str, now: int) -> int:
    """A moment from `1h` (so long ago), a date, RFC 3339 text or milliseconds since 1970.

    Raises:
        ConfigurationError: it is none of these.
    """
    if text.isdecimal() and len(text) >= 12:
        return int(text)
    if re.fullmatch(r"\d{4}-\d\d-\d\d.*", text):
        try:
            return to_ms(datetime.fromisoformat(text))
        except ValueError as error:
            raise ConfigurationError(f"'{text}' is not a date; write 2026-03-01 or 2026-03-01T14:00Z") from error
    return now - duration_ms(text)
