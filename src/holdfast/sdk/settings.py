"""What `@app.function(...)` may set, and how it becomes a function's options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from holdfast.base.duration import Duration, duration_ms
from holdfast.base.errors import ConfigurationError
from holdfast.base.limits import MAX_RETRIES
from holdfast.base.retry import RetryPolicy
from holdfast.sdk.alerts import Alerts
from holdfast.sdk.events import Event
from holdfast.sdk.flow import (
    Batch,
    CancelOn,
    Concurrency,
    Debounce,
    Idempotency,
    Key,
    KeyTable,
    RateLimit,
    Singleton,
    Throttle,
    Timeouts,
    flow_config,
)
from holdfast.sdk.functions import FailureHandler, FunctionOptions
from holdfast.sdk.middleware import Middleware
from holdfast.sdk.outgoing import nearest
from holdfast.sdk.triggers import Trigger

_DEFAULT_STEP_TIMEOUT = 2 * 3_600_000


class FunctionSettings(TypedDict, total=False):
    """The settings of `@app.function(...)`."""

    id: str
    """The function's id; its Python name with hyphens unless given. Runs belong to it: keep it when you rename."""
    name: str
    """How the dashboard calls it."""
    aliases: Sequence[str]
    """Former ids. Runs that were started under them go on with this function."""
    retries: int | RetryPolicy
    """Tries after the first, 0 to 20, for each step and for the code outside steps; or a policy with a backoff."""
    backoff: RetryPolicy
    """Delays between attempts; see `Backoff`."""
    step_timeout: Duration
    """How long one attempt of a step body may take; two hours unless given."""
    on_failure: FailureHandler
    """A durable function that runs after this one has failed for good."""
    middleware: Sequence[Middleware]
    """Code around this function and its steps, inside the app's."""
    concurrency: int | Concurrency | Sequence[int | Concurrency]
    """How many steps may execute at once; up to two limits."""
    run_concurrency: int | Concurrency
    """How many runs may be in progress at once, asleep or not."""
    throttle: Throttle
    """How many runs start per period; the others wait."""
    rate_limit: RateLimit
    """How many runs start per period; events beyond start nothing."""
    debounce: Debounce
    """Start once it has been quiet, with the last event."""
    batch: Batch
    """Gather events for one run."""
    priority: Key
    """Seconds by which a run goes ahead of others in its queue, -43,200 to 43,200."""
    singleton: Singleton
    """One live run at a time."""
    idempotency: Key | Idempotency
    """One run per key: in 24 hours, or per bucket of time."""
    cancel_on: CancelOn | type[Event] | str | Sequence[CancelOn | type[Event] | str]
    """Events that cancel the run; up to five."""
    timeouts: Timeouts
    """How long a run may wait to start, and take."""
    alerts: Alerts
    """When its trouble is told; the app's unless given."""


def function_options(
    settings: FunctionSettings,
    retries: int,
    backoff: RetryPolicy,
    triggers: Sequence[Trigger] = (),
    alerts: Alerts | None = None,
) -> FunctionOptions:
    """The options of a function, from its settings and its app's defaults.

    Raises:
        ConfigurationError: a setting is unknown or can't be used.
    """
    unknown = set(settings) - set(FunctionSettings.__annotations__)
    if unknown:
        name = min(unknown)
        raise ConfigurationError(f"unknown setting {name!r}{nearest(name, FunctionSettings.__annotations__)}")
    wanted = settings.get("retries", retries)
    only = False  # as `backoff`, a policy is only delays
    if isinstance(wanted, RetryPolicy):
        backoff, only = wanted, wanted.transient_only
        wanted = wanted.retries
    backoff = settings.get("backoff", backoff)
    if isinstance(wanted, bool) or not isinstance(wanted, int) or not 0 <= wanted <= MAX_RETRIES:
        raise ConfigurationError(f"retries must be 0 to {MAX_RETRIES}, not {wanted!r}")
    if not isinstance(backoff, RetryPolicy):
        raise ConfigurationError(f"backoff must be a policy such as Backoff.exponential('1s'), not {backoff!r}")
    if backoff.transient_only != only:
        backoff = backoff.replace(transient_only=only)
    timeout = settings.get("step_timeout")
    if timeout is not None and not duration_ms(timeout):
        raise ConfigurationError("step_timeout must be longer than nothing")
    aliases = settings.get("aliases", ())
    if isinstance(aliases, str):
        raise ConfigurationError(f"aliases is a list of ids: aliases=[{aliases!r}]")
    alerts = settings.get("alerts", alerts)
    if alerts is not None:
        if not isinstance(alerts, Alerts):
            raise ConfigurationError(f"alerts is Alerts(...), not {alerts!r}")
        alerts.config()
    keys = KeyTable(triggers)
    return FunctionOptions(
        alerts=alerts,
        extra=flow_config(settings, keys),
        keys=keys.functions,
        retries=wanted,
        backoff=backoff,
        step_timeout_ms=_DEFAULT_STEP_TIMEOUT if timeout is None else duration_ms(timeout),
        aliases=tuple(aliases),
        middleware=tuple(settings.get("middleware", ())),
    )
