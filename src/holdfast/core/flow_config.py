"""Reading the flow control of a registration document (protocol section 3), with its bounds and its words. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from holdfast.base.duration import duration_ms
from holdfast.base.errors import ConfigurationError
from holdfast.base.limits import event_name_problem
from holdfast.core.expressions import compile_expression
from holdfast.core.flow import (
    BatchRule,
    CancelRule,
    Cap,
    DebounceRule,
    Flow,
    GateKind,
    IdempotencyRule,
    Rate,
    SingletonRule,
)
from holdfast.core.keys import PYTHON_PREFIX, Key
from holdfast.core.matching import same_field

DAY_MS = 86_400_000
MAX_CAPS = 2
MAX_CANCELS = 5
MAX_BATCH_BYTES = 10 * 1024 * 1024
MAX_PRIORITY = 43_200
"""Seconds by which a run may go ahead of, or behind, its place."""

Functions = Mapping[str, Callable[[Any], Any]]


class FlowReader:
    """Reads one document.

    Args:
        config: The registration document.
        function_id: The function's id in the store; 0 while it is only checked.
        functions: The keys that are Python functions, by their source text.
    """

    def __init__(self, config: Mapping[str, Any], function_id: int = 0, functions: Functions | None = None) -> None:
        self._config = config
        self._function_id = function_id
        self._functions = functions or {}

    def read(self) -> Flow:
        """The compiled flow control.

        Raises:
            ConfigurationError: a value is out of its range, an expression is not valid, or rules exclude each other.
        """
        config = self._config
        steps, runs = self._concurrency(config.get("concurrency"))
        timeouts = config.get("timeouts") or {}
        flow = Flow(
            self._function_id,
            caps=steps,
            run_cap=runs,
            throttle=self._throttle(config.get("throttle")),
            rate_limit=self._rate_limit(config.get("rateLimit")),
            debounce=self._debounce(config.get("debounce")),
            batch=self._batch(config.get("batchEvents")),
            priority=self._priority(config.get("priority")),
            singleton=self._singleton(config.get("singleton")),
            idempotency=self._idempotency(config.get("idempotency")),
            cancel=self._cancel(config.get("cancel") or ()),
            start_timeout=_span(timeouts.get("start"), "timeouts.start"),
            finish_timeout=_span(timeouts.get("finish"), "timeouts.finish"),
            limits={},
            cache={},
        )
        _check_combination(flow)
        return flow

    def _key(self, source: str | None, what: str) -> Key | None:
        if not source:
            return None
        try:
            return Key(source, self._functions.get(source))
        except ConfigurationError as error:
            raise ConfigurationError(f"{what} expression is invalid: {error}") from error

    # -- gates -------------------------------------------------------------------------------------------------------

    def _concurrency(self, given: Any) -> tuple[tuple[Cap, ...], Cap | None]:
        by_kind: Mapping[str, Any] = given if isinstance(given, Mapping) and "limit" not in given else {"step": given}
        steps = _many(by_kind.get("step"))
        runs = _many(by_kind.get("fn"))
        if len(steps) > MAX_CAPS:
            raise ConfigurationError(
                f"a function may have {MAX_CAPS} concurrency limits, not {len(steps)} (concurrency_limit_invalid)"
            )
        if len(runs) > 1:
            raise ConfigurationError(f"a function may have one limit of its runs, not {len(runs)}")
        names = ("concurrency", "concurrency-2")
        caps = [self._cap(one, name, GateKind.LEASE) for one, name in zip(steps, names, strict=False)]
        run_cap = self._cap(runs[0], "run-concurrency", GateKind.RUN) if runs else None
        if run_cap is not None and run_cap.limit == 0:
            raise ConfigurationError("the limit of run concurrency must be greater than 0")
        return tuple(cap for cap in caps if cap.limit > 0), run_cap

    def _cap(self, given: Any, name: str, kind: GateKind) -> Cap:
        if isinstance(given, int):
            given = {"limit": given}
        limit = _whole(given.get("limit", 0), f"{name}: the limit", 0)
        scope = given.get("scope") or "fn"
        if scope not in {"fn", "env", "account"}:
            raise ConfigurationError(f"{name}: scope is 'fn', 'env' or 'account', not {scope!r}")
        key = self._key(given.get("key"), f"{name}: the key")
        if key is None and scope != "fn":
            raise ConfigurationError(f"A concurrency key must be specified for {scope} scoped limits")
        return Cap(name, kind, limit, key, scope)

    def _throttle(self, given: Mapping[str, Any] | None) -> Rate | None:
        if given is None:
            return None
        limit = max(1, _whole(given.get("limit", 1), "throttle: the limit", 0))
        burst = _whole(given.get("burst") or 0, "throttle: burst", 0)
        period = _required_span(given.get("period"), "throttle: the period")
        return Rate("throttle", limit, period, burst, self._key(given.get("key"), "throttle: the key"))

    # -- what may keep an event from starting a run ----------------------------------------------------------------------

    def _rate_limit(self, given: Mapping[str, Any] | None) -> Rate | None:
        if given is None:
            return None
        limit = _whole(given.get("limit", 0), "rate limit: limit", 0)
        if limit < 1:
            raise ConfigurationError("rate limit: limit must be greater than 0")
        if not given.get("period"):
            raise ConfigurationError("rate limit: period must be specified")
        period = _required_span(given["period"], "rate limit: the period")
        if period > DAY_MS:
            raise ConfigurationError(f"rate limit: the period of '{given['period']}' is greater than the max of: 24h")
        return Rate("rate-limit", limit, period, 0, self._key(given.get("key"), "rate limit: the key"))

    def _idempotency(self, given: Any) -> IdempotencyRule | None:
        if not given:
            return None
        if isinstance(given, str):
            given = {"key": given}
        key = self._key(given.get("key"), "idempotency")
        if key is None:
            raise ConfigurationError("idempotency needs a key")
        if given.get("bucket") is None:
            if given.get("trailing"):
                raise ConfigurationError("idempotency: trailing needs a bucket")
            return IdempotencyRule(key, DAY_MS)
        bucket = _required_span(given["bucket"], "idempotency: the bucket")
        if bucket > DAY_MS:
            raise ConfigurationError(f"idempotency: the bucket of '{given['bucket']}' is greater than the max of: 24h")
        return IdempotencyRule(key, bucket, bucketed=True, trailing=bool(given.get("trailing")))

    def _debounce(self, given: Mapping[str, Any] | None) -> DebounceRule | None:
        if given is None:
            return None
        period = _required_span(given.get("period"), "debounce: the period")
        if period < 1000:
            raise ConfigurationError(f"The debounce period of '{given['period']}' is less than the min of: 1s")
        if period > 7 * DAY_MS:
            raise ConfigurationError(f"The debounce period of '{given['period']}' is greater than the max of: 7d")
        timeout = _span(given.get("timeout"), "debounce: the timeout")
        if timeout is not None and timeout < period:
            raise ConfigurationError("debounce: the timeout must not be shorter than the period")
        return DebounceRule(period, self._key(given.get("key"), "debounce: the key"), timeout)

    def _batch(self, given: Mapping[str, Any] | None) -> BatchRule | None:
        if given is None:
            return None
        size = _whole(given.get("maxSize", 0), "batch: max_size", 0)
        if size < 2:
            raise ConfigurationError(f"batch: max_size must be 2 or more, not {size} (batch_size_invalid)")
        timeout = _required_span(given.get("timeout"), "batch: the timeout")
        if timeout < 1000:
            raise ConfigurationError("batch: the timeout must be 1s or more (batch_timeout_invalid)")
        max_bytes = _whole(given.get("maxBytes", MAX_BATCH_BYTES), "batch: max_bytes", 1)
        if max_bytes > MAX_BATCH_BYTES:
            raise ConfigurationError(f"batch: max_bytes may be {MAX_BATCH_BYTES} (10 MiB), not {max_bytes}")
        key = self._key(given.get("key"), "batch: the key (batch_key_expression_invalid)")
        condition = self._key(given.get("if"), "batch: the condition (batch_if_expression_invalid)")
        return BatchRule(size, timeout, key, condition, max_bytes)

    # -- the rest ----------------------------------------------------------------------------------------------------

    def _priority(self, given: Any) -> Key | None:
        source = given.get("run") if isinstance(given, Mapping) else given
        return self._key(source, "Priority.Run")

    def _singleton(self, given: Any) -> SingletonRule | None:
        if given is None:
            return None
        mode = given.get("mode", "skip")
        if mode not in {"skip", "cancel"}:
            raise ConfigurationError(f"singleton: the mode is 'skip' or 'cancel', not {mode!r}")
        return SingletonRule(mode, self._key(given.get("key"), "singleton: the key"))

    def _cancel(self, given: Sequence[Mapping[str, Any]]) -> tuple[CancelRule, ...]:
        if len(given) > MAX_CANCELS:
            raise ConfigurationError(f"a function may have {MAX_CANCELS} cancelling events, not {len(given)}")
        return tuple(self._cancel_rule(one) for one in given)

    def _cancel_rule(self, given: Mapping[str, Any]) -> CancelRule:
        event = str(given.get("event") or "")
        problem = event_name_problem(event)
        if problem:
            raise ConfigurationError(f"cancel: {problem}")
        expression = given.get("if")
        if expression:
            if expression.startswith(PYTHON_PREFIX):
                raise ConfigurationError("cancel: a condition over two events is an expression, not a function")
            try:
                compile_expression(expression)
            except ConfigurationError as error:
                raise ConfigurationError(f"Cancellation expression is invalid: {error}") from error
        return CancelRule(
            event, same_field(expression), expression, _span(given.get("timeout"), "cancel: the timeout")
        )


def _check_combination(flow: Flow) -> None:
    if flow.batch is not None:
        others = {
            "cancellation": flow.cancel, "debounce": flow.debounce, "singleton": flow.singleton,
            "priority": flow.priority,
        }  # fmt: skip
        for name, rule in others.items():
            if rule:
                raise ConfigurationError(f"Batching and {name} are mutually exclusive (combo_unsupported)")
    if flow.idempotency is not None and flow.rate_limit is not None:
        raise ConfigurationError("idempotency and a rate limit are mutually exclusive: idempotency is a limit of one")
    if flow.debounce is not None and flow.idempotency is not None and flow.idempotency.trailing:
        raise ConfigurationError("debounce and trailing idempotency are mutually exclusive: both put a start off")
    if flow.batch is not None and flow.idempotency is not None and flow.idempotency.trailing:
        raise ConfigurationError("batching and trailing idempotency are mutually exclusive: both put a start off")


def _many(given: Any) -> list[Any]:
    if given is None:
        return []
    return list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]


def _whole(value: Any, what: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{what} must be a whole number of {least} or more, not {value!r}")
    return value


def _span(value: Any, what: str) -> int | None:
    if value is None or value == "":
        return None
    return _required_span(value, what)


def _required_span(value: Any, what: str) -> int:
    if value is None or value == "":
        raise ConfigurationError(f"{what} must be specified")
    try:
        ms = duration_ms(value)
    except ConfigurationError as error:
        raise ConfigurationError(f"{what}: {error}") from error
    if ms <= 0:
        raise ConfigurationError(f"{what} must be longer than nothing")
    return ms
