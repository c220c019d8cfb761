"""Cron schedules: five fields in a time zone, correct across changes of daylight-saving time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from holdfast.base.clock import to_datetime, to_ms
from holdfast.base.errors import ConfigurationError

MAX_LENGTH = 255
_NAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


class Schedule:
    """A parsed schedule."""

    __slots__ = ("fields", "text", "zone")

    def __init__(self, text: str, fields: str, zone: ZoneInfo) -> None:
        self.text = text
        self.fields = fields
        self.zone = zone

    @staticmethod
    @lru_cache(maxsize=1024)
    def parse(text: str) -> Schedule:
        """Read `[TZ=zone ]five fields` (protocol section 3), or `@daily` and its like.

        Raises:
            ConfigurationError: the fields or the zone are not valid, or it never fires.
        """
        if len(text) > MAX_LENGTH:
            raise ConfigurationError(
                f"'{text[:60]}...' isn't a valid cron schedule: it is longer than {MAX_LENGTH} characters"
            )
        zone_name, fields = "UTC", text.strip()
        if fields.startswith(("TZ=", "CRON_TZ=")):
            zone_part, _, fields = fields.partition(" ")
            zone_name = zone_part.partition("=")[2]
        fields = _NAMES.get(fields.strip().lower(), fields.strip())
        try:
            zone = ZoneInfo(zone_name)
        except Exception as error:
            raise ConfigurationError(
                f"'{zone_name}' isn't a known time zone; use an IANA name such as Europe/Paris"
            ) from error
        if len(fields.split()) != 5:
            raise ConfigurationError(
                f"'{text}' isn't a valid cron schedule: it needs five fields (minute hour day month weekday)"
            )
        try:
            next(CronSim(fields, datetime(2024, 1, 1, tzinfo=UTC)))
        except (CronSimError, StopIteration) as error:
            reason = str(error) or "it never fires"
            raise ConfigurationError(f"'{text}' isn't a valid cron schedule: {reason}") from error
        return Schedule(text, fields, zone)

    def after(self, ms: int) -> int:
        """The first occurrence strictly after a moment."""
        return next(self.following(ms))

    def following(self, ms: int) -> Iterator[int]:
        """The occurrences strictly after a moment, in order, without end."""
        return map(to_ms, CronSim(self.fields, to_datetime(ms).astimezone(self.zone)))

    def between(self, start: int, end: int, limit: int) -> list[int]:
        """Occurrences in (start, end], at most `limit`, oldest first."""
        out: list[int] = []
        for moment in islice(self.following(start), limit):
            if moment > end:
                break
            out.append(moment)
        return out


def next_fires(schedule: str, after: int, count: int) -> list[int]:
    """The next occurrences of a schedule strictly after a moment, in milliseconds since 1970, soonest first.

    Raises:
        ConfigurationError: it is not a schedule.
    """
    return list(islice(Schedule.parse(schedule).following(after), count))
