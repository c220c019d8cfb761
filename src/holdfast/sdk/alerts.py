"""When a function's trouble is to be told: thresholds, and the events that tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict

from holdfast.base.duration import Duration, duration_ms, duration_text
from holdfast.base.errors import ConfigurationError
from holdfast.sdk.events import Event

KINDS = ("backlog", "delay", "failure_rate", "dead_letters")


@dataclass(frozen=True, slots=True)
class Alerts:
    """Thresholds of a function. Passing one raises an event, a metric and a banner, once; falling below it resolves them.

    ```python
    @app.function(OrderPaid, alerts=Alerts(backlog=1000, delay="5m", failure_rate=0.2, dead_letters=1))
    ```
    """

    backlog: int | None = None
    """Runs that are ready and wait for a place: more than this."""
    delay: Duration | None = None
    """How long the first of them has waited: longer than this."""
    failure_rate: float | None = None
    """The part of the runs that ended within the window that failed, 0 to 1: more than this, of `min_runs` or more."""
    dead_letters: int | None = None
    """New dead letters within the window: this many or more."""
    window: Duration = "5m"
    """Which runs failure rate and dead letters look at."""
    min_runs: int = 10
    """Fewer ended runs than this have no failure rate."""

    def config(self) -> dict[str, Any]:
        """As the registration document has it: holdfast's own addition.

        Raises:
            ConfigurationError: a threshold is out of its range.
        """
        _check("backlog", self.backlog, 0)
        _check("dead_letters", self.dead_letters, 1)
        _check("min_runs", self.min_runs, 1)
        rate = self.failure_rate
        if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1):
            raise ConfigurationError(f"alerts: failure_rate is 0 to 1, without 1, not {rate!r}")
        window = duration_ms(self.window)
        if not 1000 <= window <= 86_400_000:
            raise ConfigurationError(f"alerts: the window is 1s to 24h, not {self.window!r}")
        out = {
            "backlog": self.backlog,
            "delay": None if self.delay is None else duration_text(duration_ms(self.delay)),
            "failureRate": rate,
            "deadLetters": self.dead_letters,
            "window": duration_text(window),
            "minRuns": self.min_runs,
        }
        return {name: value for name, value in out.items() if value is not None}


def _check(name: str, value: int | None, least: int) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        raise ConfigurationError(f"alerts: {name} is a whole number of {least} or more, not {value!r}")


class AlertRaised(Event, name="holdfast/alert.raised"):
    """A function has passed one of its thresholds."""

    model_config = ConfigDict(extra="ignore")

    function_id: str
    """`<app>-<function>`."""
    alert: str
    """backlog, delay, failure_rate or dead_letters."""
    value: float
    """What was measured: runs, seconds, a part of 1, dead letters."""
    threshold: float


class AlertResolved(Event, name="holdfast/alert.resolved"):
    """It is within the threshold again."""

    model_config = ConfigDict(extra="ignore")

    function_id: str
    alert: str
    value: float
    threshold: float
    raised_at: int
    """When it was raised, in milliseconds since 1970."""
