"""What starts a function: events by name, and cron schedules."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeAlias, TypeVar, get_args

from holdfast.base.duration import Duration, duration_ms, duration_text
from holdfast.base.errors import ConfigurationError
from holdfast.core.firing import DEFAULT_LIMIT, MAX_JITTER_MS, MAX_LIMIT, MIN_JITTER_MS
from holdfast.sdk.events import CronTick, Event, event_name

E_co = TypeVar("E_co", covariant=True)

CatchUp: TypeAlias = Literal["skip", "once", "all"]
"""What becomes of the occurrences of a schedule that were missed: none fires, the latest does, or all do."""


@dataclass(frozen=True, slots=True)
class Cron(Generic[E_co]):
    """A cron schedule as a trigger: five fields, read in a time zone.

    ```python
    @app.function(Cron("0 9 * * mon-fri", tz="Europe/Paris"))
    async def report(ctx: Context[CronTick]) -> None: ...
    ```
    """

    schedule: str
    """Minute, hour, day of month, month, day of week; or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`."""
    tz: str = "UTC"
    """IANA name. When daylight-saving time changes, a skipped time fires right after the gap, a repeated one once."""
    jitter: Duration | None = field(default=None, kw_only=True)
    """Spreads the load: an occurrence fires up to this much later, always by the same amount. One second to five minutes."""
    catch_up: CatchUp = field(default="once", kw_only=True)
    """After downtime: `skip` fires none of the occurrences that were missed, `once` the latest, `all` each, oldest first."""
    catch_up_limit: int | None = field(default=None, kw_only=True)
    """With `all`, how many fire at most, the latest ones; 100 unless given."""

    @property
    def text(self) -> str:
        """The protocol's spelling, `TZ=Europe/Paris 0 9 * * *`."""
        return self.schedule if self.tz == "UTC" else f"TZ={self.tz} {self.schedule}"


@dataclass(frozen=True, slots=True)
class On(Generic[E_co]):
    """An event as a trigger, with a condition: `On(OrderPaid, if_="event.data.amount > 100")`."""

    event: type[E_co] | str
    """The event's class or name; a name may end in `/*` or `.*`."""
    if_: str | None = None
    """A CEL expression over `event`."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger in its normal form."""

    event: str | None
    """Event name or pattern; None for cron."""
    expression: str | None
    cron: str | None
    model: type[Event] | None
    jitter_ms: int = 0
    catch_up: CatchUp = "once"
    catch_up_limit: int = DEFAULT_LIMIT

    def config(self) -> dict[str, Any]:
        """As the protocol registers it (section 3), with catch-up beside it where it isn't the usual."""
        if self.cron is not None:
            return self._cron_config(self.cron)
        out = {"event": self.event or ""}
        if self.expression:
            out["expression"] = self.expression
        return out

    def _cron_config(self, cron: str) -> dict[str, Any]:
        out: dict[str, Any] = {"cron": cron}
        if self.jitter_ms:
            out["jitter"] = duration_text(self.jitter_ms)
        if self.catch_up != "once":
            out["catchUp"] = self.catch_up
        if self.catch_up == "all":
            out["catchUpLimit"] = self.catch_up_limit
        return out


def normalise(trigger: object) -> Trigger:
    """The normal form of whatever a user may pass as a trigger.

    Raises:
        ConfigurationError: it is none of an Event class, a name, On or Cron, or a setting of a Cron is out of range.
    """
    if isinstance(trigger, Trigger):
        return trigger
    if isinstance(trigger, Cron):
        return _of_cron(trigger)
    if isinstance(trigger, On):
        inner = normalise(trigger.event)
        return Trigger(inner.event, trigger.if_, None, inner.model)
    if isinstance(trigger, str):
        return Trigger(trigger, None, None, None)
    if isinstance(trigger, type) and issubclass(trigger, Event):
        return Trigger(event_name(trigger), None, None, trigger)
    raise ConfigurationError(f"{trigger!r} is not a trigger; pass an Event class, an event name, On(...) or Cron(...)")


def _of_cron(cron: Cron[Any]) -> Trigger:
    if cron.catch_up not in get_args(CatchUp):
        raise ConfigurationError(
            f"schedule '{cron.text}': catch_up must be 'skip', 'once' or 'all', not {cron.catch_up!r}"
        )
    limit = DEFAULT_LIMIT if cron.catch_up_limit is None else cron.catch_up_limit
    if cron.catch_up_limit is not None and cron.catch_up != "all":
        raise ConfigurationError(
            f"schedule '{cron.text}': catch_up_limit belongs to catch_up='all', and catch_up is {cron.catch_up!r}"
        )
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
        raise ConfigurationError(f"schedule '{cron.text}': catch_up_limit must be 1 to {MAX_LIMIT}, not {limit!r}")
    jitter = 0 if cron.jitter is None else _jitter_ms(cron)
    return Trigger(None, None, cron.text, CronTick, jitter, cron.catch_up, limit)


def _jitter_ms(cron: Cron[Any]) -> int:
    try:
        ms = duration_ms(cron.jitter or 0)
    except ConfigurationError as error:
        raise ConfigurationError(f"schedule '{cron.text}': jitter: {error}") from error
    if ms < MIN_JITTER_MS:
        bound = "less than the min of: 1s"
    elif ms > MAX_JITTER_MS:
        bound = "greater than the max of: 5m"
    else:
        return ms
    raise ConfigurationError(f"The jitter of '{duration_text(ms)}' of schedule '{cron.text}' is {bound}")
