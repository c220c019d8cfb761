"""Trying again: the delays between attempts, and `call_with_retry` for any call outside a step."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypedDict, TypeVar, Unpack, get_args, overload

from holdfast.base.clock import SystemClock
from holdfast.base.duration import Duration, duration_ms, duration_text
from holdfast.base.errors import ConfigurationError
from holdfast.base.limits import DEFAULT_RETRIES, MAX_RETRY_AFTER_MS, MAX_WAIT_MS
from holdfast.base.transient import judge, retry_after_ms

logger = logging.getLogger("holdfast.retry")

T = TypeVar("T")

Jitter = Literal["full", "none", "additive"]
"""`full`: between nothing and the delay; `none`: the delay; `additive`: the delay plus up to `spread`."""


class Rng(Protocol):
    """A source of randomness, such as `random.Random(seed)`."""

    def uniform(self, a: float, b: float, /) -> float: ...


# not seeded per process: forked workers must not wait in step
_RNG: Final = random.SystemRandom()
_CLOCK: Final = SystemClock()


# -- policies --------------------------------------------------------------------------------------------------------


class PolicyChanges(TypedDict, total=False):
    """What `RetryPolicy.replace` takes: any field; durations also as timedelta or text."""

    attempts: int
    first_delay: Duration
    multiplier: float
    cap: Duration | None
    jitter: Jitter
    spread: Duration
    table: Sequence[Duration]
    transient_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often to try and how long to wait between attempts. Durations are seconds, in whole milliseconds.

    The delay after failed attempt n, counted from 0, is `min(cap, first_delay * multiplier**n)`, or entry n of `table`,
    then jittered. As the `retries=` of a durable function or step it sets both the number of retries and the backoff;
    as `backoff=` only the delays.
    """

    attempts: int = 5
    """Calls in all, the first included."""
    first_delay: float = 1.0
    """Seconds before the second attempt."""
    multiplier: float = 2.0
    """By how much each delay is longer than the one before."""
    cap: float | None = 30.0
    """The longest delay in seconds, jitter of kind `additive` not counted; None for no cap."""
    jitter: Jitter = "full"
    spread: float = 0.0
    """With `additive` jitter: the most seconds that are added."""
    table: tuple[float, ...] = ()
    """Delays in seconds, used instead of `first_delay` and `multiplier`; the last one repeats."""
    transient_only: bool = False
    """As the `retries=` of a durable function or step: whether it tries again only what `call_with_retry` would (see
    `retry_reason`) and a step that ran out of time, and fails at once with anything else, such as HTTP 404. The presets do."""

    def __post_init__(self) -> None:
        attempts, multiplier = self.attempts, self.multiplier
        if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 1:
            raise ConfigurationError(f"attempts counts every call, so it is a whole number from 1, not {attempts!r}")
        if isinstance(multiplier, bool) or not isinstance(multiplier, int | float) or not 1 <= multiplier < math.inf:
            raise ConfigurationError(f"multiplier must be a number of at least 1, not {multiplier!r}")
        if self.jitter not in get_args(Jitter):
            raise ConfigurationError(f"jitter must be one of {', '.join(get_args(Jitter))}, not {self.jitter!r}")
        store = object.__setattr__
        store(self, "first_delay", _seconds(self.first_delay))
        store(self, "cap", None if self.cap is None else _seconds(self.cap))
        store(self, "spread", _seconds(self.spread))
        store(self, "table", tuple(_seconds(delay) for delay in self.table))
        if self.spread and self.jitter != "additive":
            raise ConfigurationError(f"spread needs jitter='additive'; with jitter={self.jitter!r} it would do nothing")

    @property
    def retries(self) -> int:
        """Attempts after the first."""
        return self.attempts - 1

    def replace(self, **changes: Unpack[PolicyChanges]) -> RetryPolicy:
        """The same policy with other values: `RetryPresets.scraper.replace(attempts=5, cap="2m")`."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type] # durations are normalised on the way in

    def bounds_ms(self, failed_attempt: int) -> tuple[int, int]:
        """The shortest and the longest delay possible after a failed attempt, counted from 0."""
        if failed_attempt < 0:
            raise ValueError(f"attempts are counted from 0, not {failed_attempt}")
        base = self._base_ms(failed_attempt)
        if self.jitter == "full":
            return 0, base
        return base, min(base + round(self.spread * 1000), MAX_WAIT_MS)

    def delay_ms(self, failed_attempt: int, rng: Rng = _RNG) -> int:
        """Milliseconds to wait after a failed attempt, counted from 0."""
        low, high = self.bounds_ms(failed_attempt)
        return low if low == high else round(rng.uniform(low, high))

    def describe(self) -> dict[str, Any]:
        """The delays as JSON, for a function's registration and the dashboard. `parse` reads it back."""
        out: dict[str, Any] = {"jitter": self.jitter}
        if self.table:
            out["table"] = [_text(delay) for delay in self.table]
        else:
            out |= {"firstDelay": _text(self.first_delay), "multiplier": self.multiplier}
        if self.cap is not None:
            out["cap"] = _text(self.cap)
        if self.spread:
            out["spread"] = _text(self.spread)
        if self.transient_only:
            out["transientOnly"] = True
        return out

    @classmethod
    def parse(cls, described: Mapping[str, Any], *, attempts: int = DEFAULT_RETRIES + 1) -> RetryPolicy:
        """The policy that `describe` wrote down.

        Raises:
            ConfigurationError: it is not such a description.
        """
        unknown = described.keys() - {"jitter", "table", "firstDelay", "multiplier", "cap", "spread", "transientOnly"}
        if unknown:
            raise ConfigurationError(f"{min(unknown)!r} is not a field of a backoff")
        names = {"firstDelay": "first_delay", "transientOnly": "transient_only"}
        fields = {names.get(name, name): value for name, value in described.items()}
        return cls(**{"attempts": attempts, "cap": None, **fields})

    def _base_ms(self, failed_attempt: int) -> int:
        cap = MAX_WAIT_MS if self.cap is None else min(round(self.cap * 1000), MAX_WAIT_MS)
        if self.table:
            return min(round(self.table[min(failed_attempt, len(self.table) - 1)] * 1000), cap)
        if not self.first_delay:
            return 0
        try:
            delay = self.first_delay * 1000 * self.multiplier**failed_attempt
        except OverflowError:
            return cap
        return cap if delay >= cap else round(delay)


def _seconds(value: Duration) -> float:
    return duration_ms(value) / 1000


def _text(seconds: float) -> str:
    return duration_text(round(seconds * 1000))


class RetryPresets:
    """Policies for the usual kinds of remote calls, which try again what is transient. Change any field with `.replace(...)`.

    They go to `call_with_retry`, and as `retries=` to a durable function or, best, to the step that makes the call:
    `ctx.step.options(retries=RetryPresets.ai_api).run("write", ask_model)`.
    """

    salla_api: Final = RetryPolicy(attempts=5, first_delay=1.0, multiplier=2.0, cap=30.0, transient_only=True)
    """A merchant API; the default of `call_with_retry`."""
    scraper: Final = RetryPolicy(attempts=3, first_delay=5.0, multiplier=2.0, cap=60.0, transient_only=True)
    """Somebody else's web site."""
    ai_api: Final = RetryPolicy(attempts=3, first_delay=0.5, multiplier=2.0, cap=10.0, transient_only=True)
    """A model behind an HTTP API."""


class Backoff:
    """Delays between the attempts of a durable function or step. Each method makes a `RetryPolicy`."""

    @staticmethod
    def table(*, attempts: int = DEFAULT_RETRIES + 1) -> RetryPolicy:
        """The default: 15 s, 30 s, 1, 2, 5, 10, 20, 40 min, 1 h, 2 h, each plus up to 30 s (protocol section 1.10)."""
        delays = (15, 30, 60, 120, 300, 600, 1200, 2400, 3600, 7200)
        return RetryPolicy(attempts=attempts, cap=7200, jitter="additive", spread=30, table=delays)

    @staticmethod
    def exponential(
        base: Duration = 1,
        factor: float = 2,
        *,
        cap: Duration | None = None,
        jitter: Literal["full", "none"] = "full",
        attempts: int = DEFAULT_RETRIES + 1,
    ) -> RetryPolicy:
        """`base * factor**n` after failed attempt n, counted from 0.

        Args:
            base: The first delay.
            factor: What each delay is multiplied by for the next one.
            cap: The longest delay; without one they grow up to a year.
            jitter: `full` for anything from nothing to that delay, `none` for exactly that delay.
            attempts: Calls in all, where the policy is given as `retries=`.
        """
        limit = None if cap is None else _seconds(cap)
        return RetryPolicy(attempts=attempts, first_delay=_seconds(base), multiplier=factor, cap=limit, jitter=jitter)

    @staticmethod
    def constant(delay: Duration, *, jitter: Duration = 0, attempts: int = DEFAULT_RETRIES + 1) -> RetryPolicy:
        """The same delay every time, plus up to `jitter`."""
        spread = _seconds(jitter)
        kind: Jitter = "additive" if spread else "none"
        return RetryPolicy(
            attempts=attempts, first_delay=_seconds(delay), multiplier=1, cap=None, jitter=kind, spread=spread
        )


# -- calling ---------------------------------------------------------------------------------------------------------


@overload
def call_with_retry(
    fn: Callable[[], Awaitable[T]],
    policy: RetryPolicy = ...,
    *,
    sleep: Callable[[float], Awaitable[object]] | None = ...,
    now: Callable[[], int] = ...,
    rng: Rng = ...,
) -> Coroutine[Any, Any, T]: ...
@overload
def call_with_retry(
    fn: Callable[[], T],
    policy: RetryPolicy = ...,
    *,
    sleep: Callable[[float], object] | None = ...,
    now: Callable[[], int] = ...,
    rng: Rng = ...,
) -> T: ...
def call_with_retry(
    fn: Callable[[], Any],
    policy: RetryPolicy = RetryPresets.salla_api,
    *,
    sleep: Callable[[float], Any] | None = None,
    now: Callable[[], int] = _CLOCK.now,
    rng: Rng = _RNG,
) -> Any:
    """Call `fn` until it succeeds, fails for a reason that trying again can't cure, or has been tried often enough.

    Tried again: HTTP 429, 500, 502, 503, 504, and connections reset, refused or timed out (see `retry_reason`). A call
    has failed when `fn` raises, so let the client raise for its status. `Retry-After` lengthens the wait. Each retry is
    logged by `holdfast.retry` as a warning with attempt, reason and delay. In a durable function, prefer the retries of
    `step.run`: they survive a restart, and nothing waits in memory.

        order = await call_with_retry(lambda: salla.get_order(order_id))
        page = await call_with_retry(fetch, RetryPresets.scraper.replace(attempts=5))

    Args:
        fn: Takes no arguments; give it some with a lambda or `functools.partial`. If it is async or returns an
            awaitable, await what `call_with_retry` returns; if not, the waits block the calling thread.
        policy: Attempts and delays.
        sleep: Called with seconds instead of `asyncio.sleep` or `time.sleep`; for tests.
        now: Milliseconds since 1970, against which a Retry-After date is read; for tests.
        rng: Where jitter comes from; for tests.

    Raises:
        Exception: what `fn` raised last, when it is not to be retried, attempts are used up, or Retry-After is longer
            than the cap.
    """
    attempts = _Attempts(fn, policy, now, rng)
    if _is_async(fn):
        return _call_async(fn, attempts, None, sleep or asyncio.sleep)
    while True:
        try:
            value = fn()
        except Exception as error:
            wait = attempts.wait_after(error)
            if wait is None:
                raise
        else:
            if inspect.isawaitable(value):
                return _call_async(fn, attempts, value, sleep or asyncio.sleep)
            return value
        (sleep or time.sleep)(wait)


async def _call_async(
    fn: Callable[[], Any],
    attempts: _Attempts,
    first: Awaitable[Any] | None,
    sleep: Callable[[float], Awaitable[object]],
) -> Any:
    pending = first
    while True:
        try:
            return await (fn() if pending is None else pending)
        except Exception as error:
            wait = attempts.wait_after(error)
            if wait is None:
                raise
        pending = None
        await sleep(wait)


def transient_delay(
    error: Exception, policy: RetryPolicy, failed_attempt: int, now: int, rng: Rng = _RNG
) -> tuple[str, int] | None:
    """Why an error is tried again, and after how many milliseconds; None if it is not transient, or asks to wait too long.

    Args:
        error: What the attempt raised.
        policy: The delays, which a Retry-After lengthens, and its cap, beyond which one ends trying.
        failed_attempt: The attempt, counted from 0.
        now: Milliseconds since 1970.
        rng: Where jitter comes from.
    """
    reason, source = judge(error)
    if reason is None:
        return None
    delay = policy.delay_ms(failed_attempt, rng)
    asked = retry_after_ms(error, now)
    if asked is None and source is not error:
        asked = retry_after_ms(source, now)
    if asked is not None:
        if asked > (MAX_RETRY_AFTER_MS if policy.cap is None else round(policy.cap * 1000)):
            return None
        delay = max(delay, asked)
    return reason, delay


class _Attempts:
    """One call's count of failed attempts."""

    __slots__ = ("_failed", "_fn", "_now", "_policy", "_rng")

    def __init__(self, fn: Callable[[], Any], policy: RetryPolicy, now: Callable[[], int], rng: Rng) -> None:
        self._fn = fn
        self._policy = policy
        self._now = now
        self._rng = rng
        self._failed = 0

    def wait_after(self, error: Exception) -> float | None:
        """Seconds to wait before the next attempt, or None if there is to be none."""
        failed = self._failed
        self._failed += 1
        if self._failed >= self._policy.attempts:
            return None
        again = transient_delay(error, self._policy, failed, self._now(), self._rng)
        if again is None:
            return None
        reason, delay = again
        self._log(reason, delay)
        return delay / 1000

    def _log(self, reason: str, delay: int) -> None:
        name = _name(self._fn)
        logger.warning(
            "%s: attempt %d of %d failed (%s), next in %s",
            name, self._failed, self._policy.attempts, reason, duration_text(delay),
            extra={"callable": name, "attempt": self._failed, "reason": reason, "delay_ms": delay},
        )  # fmt: skip


def _is_async(fn: Callable[[], Any]) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004 - the method itself is asked for


def _name(fn: Callable[[], Any]) -> str:
    inner = getattr(fn, "func", fn)  # functools.partial
    return getattr(inner, "__qualname__", None) or type(inner).__name__
