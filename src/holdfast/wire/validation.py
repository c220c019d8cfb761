"""Whether a function's configuration can be used, in the protocol's own words (section 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import msgspec

from holdfast.base.errors import ConfigurationError
from holdfast.base.limits import MAX_NAME_LENGTH
from holdfast.core.cron import Schedule
from holdfast.core.expressions import compile_expression
from holdfast.wire.errors import WireError
from holdfast.wire.functions import BatchConfig, FunctionConfig, IdempotencyConfig, LimitConfig, TriggerConfig
from holdfast.wire.times import go_span_ms, span_ms

MAX_TRIGGERS = 10
MAX_CONCURRENCY_LIMITS = 2
MAX_CANCELLATIONS = 5
MAX_CRON_LENGTH = 255

_SECOND, _MINUTE, _HOUR, _DAY = 1000, 60_000, 3_600_000, 86_400_000
_SCHEMES = frozenset({"http", "https", "ws", "wss"})
_SCOPES = frozenset({"fn", "env", "account"})


class Problem(msgspec.Struct, frozen=True):
    """Something that makes a configuration unusable."""

    message: str
    code: str = "invalid_config"


def problems(config: FunctionConfig) -> list[Problem]:
    """Everything that is wrong with a function's configuration; nothing, when it can be used."""
    return [problem for check in _CHECKS for problem in check(config)]


def _endpoint(config: FunctionConfig) -> Iterator[Problem]:
    if not config.name:
        yield Problem("A function name is required")
    if len(config.steps or {}) != 1:
        yield Problem("Functions must contain one step")
        return
    if not config.url:
        yield Problem(f"No SDK URL provided for function '{config.name or ''}'")
        return
    try:
        scheme = urlsplit(config.url).scheme
    except ValueError:
        scheme = config.url[:40]
    if scheme not in _SCHEMES:
        yield Problem(f"Non-supported step schema: {scheme}")


# -- triggers --------------------------------------------------------------------------------------------------------


def _triggers(config: FunctionConfig) -> Iterator[Problem]:
    triggers = config.triggers or []
    if not triggers:
        yield Problem("At least one trigger is required")
    if len(triggers) > MAX_TRIGGERS:
        yield Problem(f"This function exceeds the max number of triggers: {MAX_TRIGGERS}")
    seen: set[tuple[str | None, str | None, str | None]] = set()
    for trigger in triggers:
        yield from _trigger(trigger)
        identity = (trigger.event, trigger.expression, trigger.cron)
        if identity in seen:
            what = f"cron schedule '{trigger.cron}'" if trigger.cron else f"trigger '{trigger.event}'"
            yield Problem(f"Duplicate {what}")
        seen.add(identity)


def _trigger(trigger: TriggerConfig) -> Iterator[Problem]:
    if bool(trigger.event) == bool(trigger.cron):
        yield Problem("A trigger must supply an event name or a cron schedule")
    elif trigger.cron:
        yield from _cron(trigger.cron, trigger.jitter)
    elif len(trigger.event or "") > MAX_NAME_LENGTH:
        yield Problem(f"event name must be at most {MAX_NAME_LENGTH} characters", "event_name_invalid")
    if trigger.expression:
        yield from _cel(trigger.expression, f"invalid trigger expression on '{trigger.event}': ", "invalid_expression")


def _cron(schedule: str, jitter: str | None) -> Iterator[Problem]:
    fields = schedule.split(" ", 1)[-1] if schedule.startswith(("TZ=", "CRON_TZ=")) else schedule
    try:
        usable = len(schedule) <= MAX_CRON_LENGTH and not fields.strip().startswith("@")
        Schedule.parse(schedule)
    except ConfigurationError:
        usable = False
    if not usable:
        yield Problem(f"'{schedule[:MAX_CRON_LENGTH]}' isn't a valid cron schedule")
    if jitter:
        yield from _span("cron jitter", jitter, _SECOND, 5 * _MINUTE)


# -- flow control ----------------------------------------------------------------------------------------------------


def _concurrency(config: FunctionConfig) -> Iterator[Problem]:
    try:
        limits = config.limits
    except WireError as error:
        yield Problem(str(error), "concurrency_limit_invalid")
        return
    if len(limits.step) > MAX_CONCURRENCY_LIMITS:
        yield Problem(
            f"There are more concurrency limits specified than the allowed max of: {MAX_CONCURRENCY_LIMITS}",
            "concurrency_limit_invalid",
        )
    if len(limits.fn) > 1:
        yield Problem("Only one function concurrency limit can be specified", "concurrency_limit_invalid")
    for limit in limits.fn:
        if limit.limit <= 0:
            yield Problem("A function concurrency limit must be greater than 0", "concurrency_limit_invalid")
        if limit.scope not in {None, "", "fn"}:
            yield Problem(f"A function concurrency limit can't have the scope '{limit.scope}'", "concurrency_limit_invalid")
    for limit in [*limits.fn, *limits.step]:
        yield from _limit(limit)


def _limit(limit: LimitConfig) -> Iterator[Problem]:
    scope = limit.scope or "fn"
    if scope not in _SCOPES:
        yield Problem(f"Unknown concurrency scope '{scope}'", "concurrency_limit_invalid")
    elif scope != "fn" and not limit.key:
        yield Problem(f"A concurrency key must be specified for {scope} scoped limits", "concurrency_limit_invalid")
    if limit.limit < 0:
        yield Problem("A concurrency limit must not be negative", "concurrency_limit_invalid")
    if limit.key:
        yield from _cel(limit.key, "Concurrency key is invalid: ", "concurrency_key_invalid")


def _throttle(config: FunctionConfig) -> Iterator[Problem]:
    found = config.throttle
    if found is None:
        return
    if not found.period:
        yield Problem("Throttle: period must be specified")
    else:
        yield from _span("throttle period", found.period, 1, None)
    if (found.burst or 0) < 0:
        yield Problem("Throttle: burst must not be negative")
    if found.key:
        yield from _cel(found.key, "Throttle key is invalid: ", "throttle_key_invalid")


def _rate_limit(config: FunctionConfig) -> Iterator[Problem]:
    once = config.idempotency
    key = once.key if isinstance(once, IdempotencyConfig) else once
    if key:
        yield from _cel(key, "Idempotency expression is invalid: ", "idempotency_invalid")
    found = config.rate_limit
    if found is None:
        return
    if found.limit <= 0:
        yield Problem("limit must be greater than 0")
    if not found.period:
        yield Problem("period must be specified")
    else:
        yield from _span("rate limit period", found.period, 1, _DAY)
    if found.key:
        yield from _cel(found.key, "Rate limit key is invalid: ", "rate_limit_key_invalid")


def _debounce(config: FunctionConfig) -> Iterator[Problem]:
    found = config.debounce
    if found is None:
        return
    yield from _span("debounce period", found.period, _SECOND, 7 * _DAY)
    if found.timeout:
        yield from _span("debounce timeout", found.timeout, 0, None)
    if found.key:
        yield from _cel(found.key, "Debounce key is invalid: ", "debounce_key_invalid")


def _batch(config: FunctionConfig) -> Iterator[Problem]:
    found = config.batch_events
    if found is None:
        return
    yield from _batch_alone(found)
    for other, word in (
        (config.cancel, "cancellation"),
        (config.debounce, "debouncing"),
        (config.singleton, "singletons"),
        (config.priority, "priority"),
    ):
        if other:
            yield Problem(f"Batching and {word} are mutually exclusive", "combo_unsupported")


def _batch_alone(batch: BatchConfig) -> Iterator[Problem]:
    if batch.max_size < 2:
        yield Problem(f"batch size cannot be smaller than 2: {batch.max_size}", "batch_size_invalid")
    try:
        long_enough = go_span_ms(batch.timeout or "") >= _SECOND
    except WireError:
        yield Problem(f"invalid timeout string: '{batch.timeout or ''}'", "batch_timeout_invalid")
    else:
        if not long_enough:
            yield Problem("batch timeout should be more than 1s", "batch_timeout_invalid")
    if batch.key:
        yield from _cel(batch.key, "batch key is invalid: ", "batch_key_expression_invalid")
    if batch.if_:
        yield from _cel(batch.if_, "batch if expression is invalid: ", "batch_if_expression_invalid")


def _others(config: FunctionConfig) -> Iterator[Problem]:
    if config.priority is not None and config.priority.run:
        yield from _cel(config.priority.run, "Priority.Run expression is invalid: ", "priority_invalid")
    if config.singleton is not None:
        if config.singleton.mode not in {"skip", "cancel"}:
            yield Problem(f"Unknown singleton mode '{config.singleton.mode}'")
        if config.singleton.key:
            yield from _cel(config.singleton.key, "Singleton key is invalid: ", "singleton_key_invalid")
    if config.retries is not None and type(config.retries) is not int:
        yield Problem(f"retries must be a number, not {config.retries!r:.40}")
    cancels = config.cancel or []
    if len(cancels) > MAX_CANCELLATIONS:
        yield Problem(f"This function exceeds the max number of cancellation events: {MAX_CANCELLATIONS}")
    for cancel in cancels:
        if not cancel.event:
            yield Problem("A cancellation must supply an event name")
        if cancel.if_:
            yield from _cel(cancel.if_, "Cancellation expression is invalid: ", "cancellation_expression_invalid")
        if cancel.timeout:
            yield from _span("cancellation timeout", cancel.timeout, 0, None)


_CHECKS: tuple[Callable[[FunctionConfig], Iterator[Problem]], ...] = (
    _endpoint, _triggers, _concurrency, _throttle, _rate_limit, _debounce, _batch, _others,
)  # fmt: skip


# -- expressions and spans -------------------------------------------------------------------------------------------


def _cel(expression: str, prefix: str, code: str) -> Iterator[Problem]:
    try:
        compile_expression(expression)
    except ConfigurationError as error:
        yield Problem(prefix + str(error), code)


def _span(what: str, text: str, least: int, most: int | None) -> Iterator[Problem]:
    try:
        ms = span_ms(text)
    except WireError:
        yield Problem(f"The {what} of '{text}' is invalid")
        return
    if ms < least:
        yield Problem(f"The {what} of '{text}' is less than the min of: {_shown(least)}")
    elif most is not None and ms > most:
        yield Problem(f"The {what} of '{text}' is greater than the max of: {_shown(most)}")


def _shown(ms: int) -> str:
    for size, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "m"), (_SECOND, "s")):
        if ms >= size:
            return f"{ms // size}{unit}"
    return f"{ms}ms"
