"""What `@app.function(...)` may set, and how it becomes a function's options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from holdfast.base.duration import Duration, duration_ms
from holdfast.base.errors import ConfigurationError
from holdfast.base.limits import MAX_RETRIES
from holdfast.base.retry import RetryPolicy
from holdfast.sdk.functions import FailureHandler, FunctionOptions
from holdfast.sdk.middleware import Middleware
from holdfast.sdk.outgoing import nearest

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


def function_options(settings: FunctionSettings, retries: int, backoff: RetryPolicy) -> FunctionOptions:
    """The options of a function, from its settings and its app's defaults.

    Raises:
        ConfigurationError: a setting is unknown or can't be used.
    """
    unknown = set(settings) - set(FunctionSettings.__annotations__)
    if unknown:
        name = min(unknown)
        raise ConfigurationError(f"unknown setting {name!r}{nearest(name, FunctionSettings.__annotations__)}")
    wanted = settings.get("retries", retries)
    if isinstance(wanted, RetryPolicy):
        backoff = wanted
        wanted = wanted.retries
    backoff = settings.get("backoff", backoff)
    if isinstance(wanted, bool) or not isinstance(wanted, int) or not 0 <= wanted <= MAX_RETRIES:
        raise ConfigurationError(f"retries must be 0 to {MAX_RETRIES}, not {wanted!r}")
    if not isinstance(backoff, RetryPolicy):
        raise ConfigurationError(f"backoff must be a policy such as Backoff.exponential('1s'), not {backoff!r}")
    timeout = settings.get("step_timeout")
    if timeout is not None and not duration_ms(timeout):
        raise ConfigurationError("step_timeout must be longer than nothing")
    aliases = settings.get("aliases", ())
    if isinstance(aliases, str):
        raise ConfigurationError(f"aliases is a list of ids: aliases=[{aliases!r}]")
    return FunctionOptions(
        retries=wanted,
        backoff=backoff,
        step_timeout_ms=_DEFAULT_STEP_TIMEOUT if timeout is None else duration_ms(timeout),
        aliases=tuple(aliases),
        middleware=tuple(settings.get("middleware", ())),
    )
