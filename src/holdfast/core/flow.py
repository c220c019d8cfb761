"""The flow control of a function, compiled: its rules, and the gates that a run of it has to pass. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TypeAlias
from zlib import crc32

import msgspec

from holdfast.core.keys import Key, Subject
from holdfast.core.matching import SameField

if TYPE_CHECKING:
    from holdfast.core.rows import RunRow

MAX_CACHED = 20_000
CONTINUING = "~"
"""Ends the name of a lane whose runs have started: they need no throttle and have their place as a run."""

FunctionState: TypeAlias = tuple[str | None, dict[str, int]]
"""How a function is paused, if it is, and those of its limits that were changed while it runs."""
UNCHANGED: FunctionState = (None, {})


class GateKind(IntEnum):
    """What holds a place of a gate, and for how long."""

    LEASE = 0
    """Whatever executes: a lease, and each step body in parallel to it."""
    RUN = 1
    """A run, from its start to its end."""
    THROTTLE = 2
    """Nothing: a start takes its turn and is past."""


class Gate(msgspec.Struct, frozen=True, gc=False):
    """What a run must find open before it is leased."""

    kind: GateKind
    id: str
    """The rule, its scope and the key's value: what has the same id is counted together."""
    limit: int
    period: int = 0
    """Milliseconds."""
    burst: int = 0
    key: str = ""
    """The value of its key, "" without one."""


class Cap(msgspec.Struct, frozen=True):
    """A concurrency limit: of executing steps, or of runs."""

    name: str
    """What it is called where limits are shown and changed: concurrency, concurrency-2, run-concurrency."""
    kind: GateKind
    limit: int
    key: Key | None = None
    scope: str = "fn"
    """Who shares it: fn, env or account (protocol section 3)."""

    @property
    def tag(self) -> str:
        """Tells its key's values from those of other rules, and from those of its former expression."""
        return _tag(self.name if self.scope == "fn" else self.scope, self.key)


class Rate(msgspec.Struct, frozen=True):
    """So many per period."""

    name: str
    limit: int
    period: int
    burst: int = 0
    key: Key | None = None

    @property
    def tag(self) -> str:
        """See `Cap.tag`."""
        return _tag(self.name, self.key)


class DebounceRule(msgspec.Struct, frozen=True):
    """Start once nothing more has come for a period."""

    period: int
    key: Key | None = None
    timeout: int | None = None


class BatchRule(msgspec.Struct, frozen=True):
    """Gather events for one run."""

    max_size: int
    timeout: int
    key: Key | None = None
    condition: Key | None = None
    max_bytes: int = 10 * 1024 * 1024


class SingletonRule(msgspec.Struct, frozen=True):
    """One live run per key."""

    mode: str
    """skip or cancel."""
    key: Key | None = None


class IdempotencyRule(msgspec.Struct, frozen=True):
    """One run per key and window."""

    key: Key
    window: int
    """Milliseconds from the first, or the length of a bucket."""
    bucketed: bool = False
    trailing: bool = False


class CancelRule(msgspec.Struct, frozen=True):
    """An event that cancels the run."""

    event: str
    same: SameField | None = None
    """The field that must be there, and equal in the triggering and the cancelling event: the indexed part."""
    expression: str | None = None
    """CEL over `event` and `async`."""
    timeout: int | None = None
    """How long after it is due to start the run can be cancelled so; as long as it lives unless given."""


class Flow(msgspec.Struct):
    """All flow control of a function."""

    function_id: int
    caps: tuple[Cap, ...] = ()
    run_cap: Cap | None = None
    throttle: Rate | None = None
    rate_limit: Rate | None = None
    debounce: DebounceRule | None = None
    batch: BatchRule | None = None
    priority: Key | None = None
    singleton: SingletonRule | None = None
    idempotency: IdempotencyRule | None = None
    cancel: tuple[CancelRule, ...] = ()
    start_timeout: int | None = None
    finish_timeout: int | None = None
    limits: Mapping[str, int] = {}
    """Limits that were changed while it runs, by the rule's name."""
    cache: dict[tuple[str, bool], tuple[Gate, ...]] = {}

    @property
    def empty(self) -> bool:
        """Whether there is no rule at all."""
        return not (
            self.gated or self.rate_limit or self.debounce or self.batch or self.priority or self.singleton
            or self.idempotency or self.cancel or self.start_timeout or self.finish_timeout
        )  # fmt: skip

    @property
    def gated(self) -> bool:
        """Whether a run of it may have to wait at a gate."""
        return bool(self.caps or self.run_cap or self.throttle)

    @property
    def watched(self) -> bool:
        """Whether something may cancel a run of it: an event, a timeout, or a newer run."""
        return bool(self.cancel or self.start_timeout or self.finish_timeout or self.singleton)

    @property
    def limit_of(self) -> dict[str, int]:
        """The limit in force of each rule that has one, by the rule's name."""
        rules = [*self.caps, *(rule for rule in (self.run_cap, self.throttle, self.rate_limit) if rule is not None)]
        return {rule.name: self.limits.get(rule.name, rule.limit) for rule in rules}

    def change_limits(self, limits: Mapping[str, int]) -> None:
        """Put other limits into force."""
        self.limits = dict(limits)
        self.cache = {}

    # -- gates -------------------------------------------------------------------------------------------------------

    def lane(self, subject: Subject) -> str:
        """The lane of a run that starts for an event: the function, and the values of its keys."""
        if not self.gated:
            return str(self.function_id)
        values = {}
        rules: tuple[Cap | Rate | None, ...] = (*self.caps, self.run_cap, self.throttle)
        for rule in rules:
            if rule is not None and rule.key is not None:
                values[rule.tag] = rule.key.text(subject) or ""
        return f"{self.function_id}/{msgspec.json.encode(values).decode()}"

    def gates(self, lane: str, *, started: bool) -> tuple[Gate, ...]:
        """What a run of this lane has to pass to be leased."""
        found = self.cache.get((lane, started))
        if found is None:
            if len(self.cache) >= MAX_CACHED:
                self.cache = {}
            found = self.cache[lane, started] = self._gates(lane_values(lane), started)
        return found

    def _gates(self, values: Mapping[str, str], started: bool) -> tuple[Gate, ...]:
        caps = self.caps if started or self.run_cap is None else (*self.caps, self.run_cap)
        gates = []
        for cap in caps:
            limit = self.limits.get(cap.name, cap.limit)
            if limit > 0:
                gates.append(Gate(cap.kind, *self._identity(cap, cap.scope, values, limit)))
        throttle = self.throttle
        if throttle is not None and not started:
            identity, limit, key = self._with_key(throttle, "fn", values)
            gates.append(Gate(GateKind.THROTTLE, identity, limit, throttle.period, throttle.burst, key))
        return tuple(gates)

    def _identity(self, cap: Cap, scope: str, values: Mapping[str, str], limit: int) -> tuple[str, int, int, int, str]:
        identity, _, key = self._with_key(cap, scope, values)
        return identity, limit, 0, 0, key

    def _with_key(self, rule: Cap | Rate, scope: str, values: Mapping[str, str]) -> tuple[str, int, str]:
        key = values.get(rule.tag, "")
        holder = f"{self.function_id}" if scope == "fn" else scope
        letter = "t" if isinstance(rule, Rate) else "lr"[rule.kind]
        return f"{letter}{holder}.{rule.tag}:{key}", self.limits.get(rule.name, rule.limit), key

    def waiting_lane(self, run: RunRow) -> str:
        """Where a run of it lines up: what has started waits apart, as it needs less."""
        if run.started_at is not None and (self.run_cap is not None or self.throttle is not None):
            return run.lane + CONTINUING
        return run.lane


def lane_function(lane: str) -> int:
    """The function of a lane."""
    return int(lane.partition("/")[0].removesuffix(CONTINUING))


def lane_values(lane: str) -> dict[str, str]:
    """The key values in a lane's name, by the tag of their rule."""
    _, _, values = lane.removesuffix(CONTINUING).partition("/")
    if not values:
        return {}
    decoded: dict[str, str] = msgspec.json.decode(values)
    return decoded


def key_of_lane(lane: str) -> str | None:
    """The key values of a lane, for lists; None where it has none."""
    return ", ".join(dict.fromkeys(lane_values(lane).values())) or None


def _tag(name: str, key: Key | None) -> str:
    source = key.source if key is not None else ""
    return f"{crc32(f'{name} {source}'.encode()):08x}"


def window_id(flow: Flow, key: str) -> str:
    """The identity of a rate limit's window."""
    rate: Any = flow.rate_limit
    return f"w{flow.function_id}.{rate.tag}:{key}"
