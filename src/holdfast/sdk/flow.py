"""Flow control as users configure it: how many, how often, when, and which. Each becomes a part of the registration document."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_type_hints

from holdfast.base.duration import Duration, duration_ms, duration_text
from holdfast.base.errors import ConfigurationError
from holdfast.core.flow_config import FlowReader
from holdfast.core.keys import function_source
from holdfast.sdk.events import Event, event_name
from holdfast.sdk.matching import match_condition
from holdfast.sdk.triggers import Trigger

Key: TypeAlias = str | Callable[[Any], object]
"""What a rule counts by: a CEL expression over `event`, such as "event.data.customer_id", or a function of the event's model."""


@dataclass(frozen=True, slots=True)
class Concurrency:
    """How many steps may execute at once: those beyond wait in their queue, in order. Sleeping and waiting runs don't count.

    As `run_concurrency=` it counts whole runs instead, from their start to their end, asleep or not.

    ```python
    @app.function(OrderPaid, concurrency=[Concurrency(100), Concurrency(5, key="event.data.customer_id")])
    ```
    """

    limit: int
    """1 or more; 0 is no limit."""
    key: Key | None = None
    """Each value has places of its own."""
    scope: Literal["function", "environment", "account"] = "function"
    """Who shares the places: the other scopes share them between all functions that count by the same key."""

    def config(self, keys: KeyTable) -> dict[str, Any]:
        """As the protocol registers it (section 3)."""
        scope = _SCOPES.get(self.scope)
        if scope is None:
            raise ConfigurationError(f"concurrency: scope is one of {', '.join(map(repr, _SCOPES))}, not {self.scope!r}")
        if scope != "fn":
            self._check_shared()
        return _document(limit=self.limit, key=keys.source(self.key), scope=None if scope == "fn" else scope)

    def _check_shared(self) -> None:
        """What functions share they must name in the same way."""
        if self.key is None:
            raise ConfigurationError(
                f"concurrency: a limit with scope={self.scope!r} needs a key, which says what functions share"
            )
        if callable(self.key) and getattr(self.key, "__name__", "<lambda>") == "<lambda>":
            raise ConfigurationError(
                f"concurrency: the key of a limit with scope={self.scope!r} needs a name, by which functions share it: "
                "write the lambda as a `def`, or as an expression"
            )


_SCOPES = {"function": "fn", "environment": "env", "account": "account"}


@dataclass(frozen=True, slots=True)
class Throttle:
    """How many runs start per period, evenly spread; the others wait. `Throttle(10, "1m")` starts one every six seconds."""

    limit: int
    period: Duration
    burst: int = 0
    """How many more may start at once when it has been quiet."""
    key: Key | None = None
    """Each value has a rate of its own."""

    def config(self, keys: KeyTable) -> dict[str, Any]:
        """As the protocol registers it (section 3)."""
        return _document(
            limit=self.limit, period=_span(self.period), burst=self.burst or None, key=keys.source(self.key)
        )


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How many runs may be started in any period, at most 24 hours; events beyond start nothing, and say so."""

    limit: int
    period: Duration
    key: Key | None = None
    """Each value has a limit of its own; events for which it is false are not limited."""

    def config(self, keys: KeyTable) -> dict[str, Any]:
        """As the protocol registers it (section 3)."""
        return _document(limit=self.limit, period=_span(self.period), key=keys.source(self.key))


@dataclass(frozen=True, slots=True)
class Debounce:
    """Start once no event has come for a period, 1 second to 7 days, with the last event."""

    period: Duration
    key: Key | None = None
    """Each value is debounced by itself."""
    timeout: Duration | None = None
    """Start after this at the latest, counted from the first event."""

    def config(self, keys: KeyTable) -> dict[str, Any]:
        """As the protocol registers it (section 3)."""
        return _document(
            period=_span(self.period), key=keys.source(self.key),
            timeout=None if self.timeout is None else _span(self.timeout),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Batch:
    """Gather events and start one run for many: `ctx.events` has them all."""

    max_size: int
    """Start when so many have come, 2 or more."""
    timeout: Duration
    """Start this long after the first event at the latest, 1 second or more."""
    key: Key | None = None
    """Each value has batches of its own."""
    if_: Key | None = None
    """Events for which this isn't true start a run of their own at once."""
    max_bytes: int | None = None
    """Start when the events' data is so large; at most 10 MiB, which it is unless given."""

    def config(self, keys: KeyTable) -> dict[str, Any]:
        """As the protocol registers it (section 3)."""
        out = _document(
            maxSize=self.max_size, timeout=_span(self.timeout), key=keys.source(self.key), maxBytes=self.max_bytes
        )
        return out if self.if_ is None else out | {"if": keys.source(self.if_)}


@dataclass(frozen=True, slots=True)
class Singleton:
    """One live run at a time, of the function or of each key."""

    mode: Literal["skip", "cancel"] = "skip"
    """What an event does that comes meanwhile: starts nothing, or cancels the live run and takes its place."""
    key: Key | None = None
    """Each value has a run of its own; events for which it is false are not held to one."""

    def config(self, keys: KeyTable) -> dict[str, Any]:
        """As the protocol registers it (section 3)."""
        return _document(mode=self.mode, key=keys.source(self.key))


@dataclass(frozen=True, slots=True)
class Idempotency:
    """One run per key: in 24 hours, or in each bucket of time."""

    key: Key
    bucket: Duration | None = None
    """The length of a bucket, at most 24 hours: one run in each. Buckets are counted from 1970-01-01, midnight UTC."""
    trailing: bool = False
    """With a bucket: an event that comes once the bucket's run has begun is not dropped; one run for all such events starts
    with the next bucket."""

    def config(self, keys: KeyTable) -> str | dict[str, Any] | None:
        """As the protocol registers it (section 3); buckets are holdfast's own."""
        source = keys.source(self.key)
        if self.bucket is None and not self.trailing:
            return source
        bucket = None if self.bucket is None else _span(self.bucket)
        return _document(key=source, bucket=bucket, trailing=self.trailing or None)


@dataclass(frozen=True, slots=True)
class CancelOn:
    """An event that cancels the run: `CancelOn(OrderCancelled, match="data.order_id")`."""

    event: type[Event] | str
    match: str | None = None
    """A field that must be there and equal in the triggering and the cancelling event, such as `data.order_id`: by its Python
    name where they are typed."""
    if_: str | None = None
    """A CEL expression over `event` (the trigger) and `async` (the cancelling event)."""
    timeout: Duration | None = None
    """How long after it is due to start the run can be cancelled so; as long as it lives unless given."""

    def config(self, triggers: Sequence[Trigger] = ()) -> dict[str, Any]:
        """As the protocol registers it (section 3)."""
        model = None if isinstance(self.event, str) else self.event
        if model is not None and not (isinstance(model, type) and issubclass(model, Event)):
            raise ConfigurationError(f"cancel_on is an event class, a name or CancelOn(...), not {model!r}")
        name = self.event if isinstance(self.event, str) else event_name(self.event)
        if "*" in name:
            raise ConfigurationError(
                f"cancel_on: {name!r} is a pattern, and runs are cancelled by events of one name, as they are found by it in "
                "an index; name each event, up to five"
            )
        condition = self.if_
        if self.match is not None:
            same = match_condition(self.match, triggers, model)
            condition = f"({same}) && ({self.if_})" if self.if_ else same
        out = _document(event=name, timeout=None if self.timeout is None else _span(self.timeout))
        return out if condition is None else out | {"if": condition}


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits after which a run is cancelled, at once and wherever it is."""

    start: Duration | None = None
    """How long it may wait to be started, from when it was queued; of an event with a `ts` in the future, from then."""
    finish: Duration | None = None
    """How long it may take, from when it was started."""

    def config(self) -> dict[str, Any]:
        """As the protocol registers it (section 3)."""
        return _document(
            start=None if self.start is None else _span(self.start),
            finish=None if self.finish is None else _span(self.finish),
        )


class KeyTable:
    """The keys of a function that are Python functions, by the name that stands for them in its document."""

    def __init__(self, triggers: Sequence[Trigger]) -> None:
        self.functions: dict[str, Callable[[Any], object]] = {}
        self.triggers = triggers
        self._models = tuple({trigger.model for trigger in triggers if trigger.model is not None})

    def source(self, key: Key | None) -> str | None:
        """The text of a key.

        Raises:
            ConfigurationError: it is neither an expression nor a function, or a function of another event.
        """
        if key is None or isinstance(key, str):
            return key
        if not callable(key):
            raise ConfigurationError(f"a key is an expression or a function of the event, not {key!r}")
        self._check(key)
        name = function_source(key)
        unique, number = name, 1
        while self.functions.get(unique, key) is not key:
            number += 1
            unique = f"{name}#{number}"
        self.functions[unique] = key
        return unique

    def _check(self, key: Callable[[Any], object]) -> None:
        if inspect.iscoroutinefunction(key):
            raise ConfigurationError(
                f"key {key.__qualname__} is async; a key is worked out at once, from the event alone"
            )
        try:
            wanted = [hint for name, hint in get_type_hints(key).items() if name != "return"]
        except Exception:  # annotations may name things that exist for type checkers only
            return
        wanted = [hint for hint in wanted if isinstance(hint, type) and issubclass(hint, Event)]
        if wanted and self._models and not any(issubclass(model, wanted[0]) for model in self._models):
            names = ", ".join(model.__name__ for model in self._models)
            raise ConfigurationError(
                f"key {getattr(key, '__qualname__', key)} is a function of {wanted[0].__name__}, and the function is triggered by {names}"
            )


def flow_config(settings: Mapping[str, Any], keys: KeyTable) -> dict[str, Any]:
    """The part of the registration document that is about flow control, checked.

    Raises:
        ConfigurationError: a rule is out of its range, not valid, or excluded by another.
    """
    out: dict[str, Any] = {}
    steps = [_cap(one, keys) for one in _many(settings.get("concurrency"))]
    if runs := _many(settings.get("run_concurrency")):
        out["concurrency"] = {"fn": [_cap(one, keys) for one in runs], "step": steps}
    elif steps:
        out["concurrency"] = steps
    for name, wire, kind in _RULES:
        rule = settings.get(name)
        if rule is not None:
            if not isinstance(rule, kind):
                raise ConfigurationError(f"{name} is a {kind.__name__}(...), not {rule!r}")
            out[wire] = rule.config(keys)  # type: ignore[attr-defined]
    idempotency = settings.get("idempotency")
    if idempotency is not None:
        if idempotency == "":
            raise ConfigurationError("idempotency needs a key, such as 'event.data.order_id'; it is empty")
        rule = idempotency if isinstance(idempotency, Idempotency) else Idempotency(idempotency)
        out["idempotency"] = rule.config(keys)
    if (priority := settings.get("priority")) is not None:
        out["priority"] = {"run": keys.source(priority)}
    if cancel := _many(settings.get("cancel_on")):
        out["cancel"] = [(one if isinstance(one, CancelOn) else CancelOn(one)).config(keys.triggers) for one in cancel]
    if (timeouts := settings.get("timeouts")) is not None:
        if not isinstance(timeouts, Timeouts):
            raise ConfigurationError(f"timeouts is Timeouts(start=..., finish=...), not {timeouts!r}")
        out["timeouts"] = timeouts.config()
    FlowReader(out, 0, keys.functions).read()
    return out


_RULES: tuple[tuple[str, str, type], ...] = (
    ("throttle", "throttle", Throttle),
    ("rate_limit", "rateLimit", RateLimit),
    ("debounce", "debounce", Debounce),
    ("batch", "batchEvents", Batch),
    ("singleton", "singleton", Singleton),
)


def _cap(given: int | Concurrency, keys: KeyTable) -> dict[str, Any]:
    if isinstance(given, bool) or not isinstance(given, int | Concurrency):
        raise ConfigurationError(f"concurrency is a number or Concurrency(...), not {given!r}")
    return (Concurrency(given) if isinstance(given, int) else given).config(keys)


def _many(given: Any) -> list[Any]:
    if given is None:
        return []
    return list(given) if isinstance(given, list | tuple) else [given]


def _document(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _span(value: Duration) -> str:
    return duration_text(duration_ms(value))
