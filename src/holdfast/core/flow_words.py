"""The rules of a function in words, and which rule a gate belongs to: for pages, programs and people. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from holdfast.base.duration import duration_text
from holdfast.core.flow import CancelRule, Cap, Flow, Gate, GateKind, IdempotencyRule, Rate
from holdfast.core.keys import PYTHON_PREFIX, Key


class Rule(msgspec.Struct, frozen=True):
    """A rule of a function."""

    name: str
    """As limits are named where they are changed, or what the setting is called: debounce, batch, singleton."""
    words: str
    limit: int | None = None
    """The limit in force, of rules that have one."""
    declared: int | None = None
    """What the code says; the limit in force may have been changed."""
    key: str | None = None
    """The expression, or the name of the function, that its key comes from; None without a key."""


def rules_of(flow: Flow) -> list[Rule]:
    """All rules of a function, in the order in which an event meets them."""
    rules = [*_admitting(flow), *(_limited(flow, rule) for rule in gate_rules(flow))]
    if flow.priority is not None:
        rules.append(Rule("priority", f"goes ahead by {_source(flow.priority)} seconds", key=_source(flow.priority)))
    rules += [Rule("cancel", _cancelling(rule)) for rule in flow.cancel]
    if flow.start_timeout is not None:
        rules.append(Rule("start-timeout", f"cancelled unless it starts within {duration_text(flow.start_timeout)}"))
    if flow.finish_timeout is not None:
        rules.append(Rule("finish-timeout", f"cancelled unless it ends within {duration_text(flow.finish_timeout)} of its start"))
    return rules


def gate_rules(flow: Flow) -> list[Cap | Rate]:
    """The rules that make runs wait in the queue, in the order of `Flow.gates`."""
    return [*flow.caps, *([flow.run_cap] if flow.run_cap else []), *([flow.throttle] if flow.throttle else [])]


def named_gates(flow: Flow, lane: str, *, started: bool) -> dict[str, tuple[Cap | Rate, Gate]]:
    """The gates that a run of a lane has to pass, by their id, each with its rule."""
    rules = [rule for rule in gate_rules(flow) if not started or (isinstance(rule, Cap) and rule.kind == GateKind.LEASE)]
    gates = flow.gates(lane, started=started)
    return {gate.id: (rule, gate) for rule, gate in zip(rules, gates, strict=True)}


def gate_prefix(flow: Flow, rule: Cap | Rate) -> str:
    """How the ids of a rule's gates begin; the key's value follows."""
    holder = rule.scope if isinstance(rule, Cap) and rule.scope != "fn" else str(flow.function_id)
    letter = "lr"[rule.kind] if isinstance(rule, Cap) else "w" if rule is flow.rate_limit else "t"
    return f"{letter}{holder}.{rule.tag}:"


def _limited(flow: Flow, rule: Cap | Rate) -> Rule:
    limit = flow.limits.get(rule.name, rule.limit)
    if isinstance(rule, Cap):
        what = "runs at once, from start to end" if rule.kind == GateKind.RUN else "steps at once"
        words = f"at most {limit} {what if limit != 1 else what.replace('runs', 'run', 1).replace('steps', 'step', 1)}"
        if rule.scope != "fn":
            words += ", counted with every function that has this limit"
    elif rule is flow.rate_limit:
        words = f"at most {_starts(limit)} in any {duration_text(rule.period)}; further events start nothing"
    else:
        words = f"{_starts(limit)} in {duration_text(rule.period)}, evenly"
        if rule.burst:
            words += f", {rule.burst} more at once after a quiet time"
    return Rule(rule.name, words + _each(rule.key), limit, rule.limit, _source(rule.key) if rule.key else None)


def _admitting(flow: Flow) -> Iterator[Rule]:
    if flow.idempotency is not None:
        yield Rule("idempotency", _once(flow.idempotency), key=_source(flow.idempotency.key))
    if flow.rate_limit is not None:
        yield _limited(flow, flow.rate_limit)
    batch, debounce, singleton = flow.batch, flow.debounce, flow.singleton
    if batch is not None:
        words = f"one run for {batch.max_size} events, or for what has come within {duration_text(batch.timeout)}"
        yield Rule("batch", words + _each(batch.key), key=_source(batch.key) if batch.key else None)
    if debounce is not None:
        words = f"starts with the last event after {duration_text(debounce.period)} of quiet"
        if debounce.timeout is not None:
            words += f", {duration_text(debounce.timeout)} after the first at the latest"
        yield Rule("debounce", words + _each(debounce.key), key=_source(debounce.key) if debounce.key else None)
    if singleton is not None:
        what = "a further event starts nothing" if singleton.mode == "skip" else "a further event cancels it and starts anew"
        words = f"one live run; {what}"
        yield Rule("singleton", words + _each(singleton.key), key=_source(singleton.key) if singleton.key else None)


def _once(rule: IdempotencyRule) -> str:
    span = duration_text(rule.window)
    if not rule.bucketed:
        return f"one run in {span}" + _each(rule.key)
    after = "; one more follows if something came after it began" if rule.trailing else ""
    return f"one run in each {span}{after}" + _each(rule.key)


def _cancelling(rule: CancelRule) -> str:
    words = f"cancelled by {rule.event}"
    if rule.expression:
        words += f" if {rule.expression}"
    if rule.timeout is not None:
        words += f", within {duration_text(rule.timeout)}"
    return words


def _starts(count: int) -> str:
    return f"{count} start" if count == 1 else f"{count} starts"


def _each(key: Key | None) -> str:
    return "" if key is None else f", for each {_source(key)}"


def _source(key: Key) -> str:
    return key.source.removeprefix(PYTHON_PREFIX)
