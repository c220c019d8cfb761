"""What starts a function: events by name, and cron schedules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from holdfast.base.errors import ConfigurationError
from holdfast.sdk.events import CronTick, Event, event_name

E_co = TypeVar("E_co", covariant=True)


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

    def config(self) -> dict[str, str]:
        """As the protocol registers it (section 3)."""
        if self.cron is not None:
            return {"cron": self.cron}
        out = {"event": self.event or ""}
        if self.expression:
            out["expression"] = self.expression
        return out


def normalise(trigger: object) -> Trigger:
    """The normal form of whatever a user may pass as a trigger.

    Raises:
        ConfigurationError: it is none of an Event class, a name, On or Cron.
    """
    if isinstance(trigger, Trigger):
        return trigger
    if isinstance(trigger, Cron):
        return Trigger(None, None, trigger.text, CronTick)
    if isinstance(trigger, On):
        inner = normalise(trigger.event)
        return Trigger(inner.event, trigger.if_, None, inner.model)
    if isinstance(trigger, str):
        return Trigger(trigger, None, None, None)
    if isinstance(trigger, type) and issubclass(trigger, Event):
        return Trigger(event_name(trigger), None, None, trigger)
    raise ConfigurationError(f"{trigger!r} is not a trigger; pass an Event class, an event name, On(...) or Cron(...)")
