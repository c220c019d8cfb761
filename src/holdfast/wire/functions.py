"""Function configuration as SDKs register it (protocol section 3)."""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast.base.limits import DEFAULT_RETRIES, MAX_RETRIES
from holdfast.wire.canonical import decode
from holdfast.wire.errors import WireError


class _Part(msgspec.Struct, omit_defaults=True, rename="camel"):
    """A part of a document. Go writes null for what is not set, so every field takes it."""


class TriggerConfig(_Part):
    """An event by name, or a cron schedule."""

    event: str | None = None
    expression: str | None = None
    cron: str | None = None
    jitter: str | None = None


class LimitConfig(_Part):
    """One concurrency limit."""

    limit: int = 0
    key: str | None = None
    scope: str | None = None
    """`fn`, `env` or `account`; the first unless given."""


class ConcurrencyConfig(_Part):
    """The concurrency of a function, in its one normal form."""

    fn: list[LimitConfig] = []
    """Of whole runs."""
    step: list[LimitConfig] = []
    """Of what is being executed."""


class ThrottleConfig(_Part):
    limit: int = 0
    period: str | None = None
    burst: int | None = None
    key: str | None = None


class RateLimitConfig(_Part):
    limit: int = 0
    period: str | None = None
    key: str | None = None


class DebounceConfig(_Part):
    period: str = ""
    key: str | None = None
    timeout: str | None = None


class BatchConfig(_Part, rename={"max_size": "maxSize", "if_": "if"}):
    max_size: int = 0
    timeout: str | None = None
    key: str | None = None
    if_: str | None = None


class PriorityConfig(_Part):
    run: str | None = None


class SingletonConfig(_Part):
    mode: str = ""
    key: str | None = None


class IdempotencyConfig(_Part):
    """One run per key and bucket of time: holdfast's own addition, where the protocol has the key alone."""

    key: str = ""
    bucket: str | None = None
    trailing: bool = False


class CancelConfig(_Part, rename={"if_": "if"}):
    event: str = ""
    if_: str | None = None
    timeout: str | None = None


class TimeoutsConfig(_Part):
    start: str | None = None
    finish: str | None = None


class CheckpointConfig(_Part, rename=None):
    batch_steps: int | None = None
    batch_interval: str | None = None
    max_runtime: str | None = None


class RuntimeConfig(_Part):
    type: str = "http"
    url: str | None = None


class RetriesConfig(_Part):
    attempts: int | None = None
    """Tries after the first."""


class StepConfig(_Part):
    id: str = "step"
    name: str = "step"
    runtime: RuntimeConfig | None = None
    retries: RetriesConfig | None = None


class FunctionConfig(_Part):
    """One function of a registration."""

    name: str | None = None
    id: str | None = None
    """`<app>-<function>`."""
    triggers: list[TriggerConfig] | None = None
    concurrency: Any = None
    """A number, one limit, a list of them, or `{"fn": [...], "step": [...]}`; see `limits`."""
    throttle: ThrottleConfig | None = None
    rate_limit: RateLimitConfig | None = None
    debounce: DebounceConfig | None = None
    batch_events: BatchConfig | None = None
    priority: PriorityConfig | None = None
    singleton: SingletonConfig | None = None
    idempotency: str | IdempotencyConfig | None = None
    cancel: list[CancelConfig] | None = None
    timeouts: TimeoutsConfig | None = None
    retries: Any = None
    checkpoint: CheckpointConfig | None = None
    steps: dict[str, StepConfig] | None = None

    @property
    def slug(self) -> str:
        """Its id; made of its name where it has none."""
        return self.id or "-".join((self.name or "").lower().split())

    @property
    def step(self) -> StepConfig:
        """Its one step; an empty one where there is none."""
        return next(iter((self.steps or {}).values()), StepConfig())

    @property
    def url(self) -> str:
        """Where it is called."""
        return (self.step.runtime.url if self.step.runtime else None) or ""

    @property
    def retry_count(self) -> int:
        """Tries after the first: the step's own setting, else the function's, else four; never over twenty."""
        own = self.step.retries.attempts if self.step.retries else None
        found = self.retries if own is None and type(self.retries) is int else own
        return max(0, min(DEFAULT_RETRIES if found is None else found, MAX_RETRIES))

    @property
    def limits(self) -> ConcurrencyConfig:
        """Its concurrency in the normal form.

        Raises:
            WireError: it has none of the forms that are known.
        """
        given = self.concurrency
        if given is None:
            return ConcurrencyConfig()
        if isinstance(given, dict) and given.keys() & {"fn", "step"}:
            return ConcurrencyConfig(_limits(given.get("fn")), _limits(given.get("step")))
        return ConcurrencyConfig(step=_limits(given))


def decode_function(raw: bytes) -> FunctionConfig:
    """Read one function's configuration; fields that are not known are ignored.

    Raises:
        WireError: it is not such a document.
    """
    found: FunctionConfig = decode(raw, FunctionConfig)
    return found


def _limits(given: Any) -> list[LimitConfig]:
    if given is None:
        return []
    many = given if isinstance(given, list) else [given]
    try:
        return [LimitConfig(one) if type(one) is int else msgspec.convert(one, LimitConfig) for one in many]
    except msgspec.ValidationError as error:
        raise WireError(f"concurrency: {error}") from error
