"""Flow control in sentences: what a run waits at, what will cancel it, why an event started nothing."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.dashboard import humanize
from holdfast.store.flow_reads import AlarmView, CancelView, GateView
from holdfast.store.reads import NO_FUNCTION, QueueView, RunDetail, SkipView

LABELS = {
    "concurrency": "Concurrency",
    "concurrency-2": "Second concurrency",
    "run-concurrency": "Run concurrency",
    "throttle": "Throttle",
    "rate-limit": "Rate limit",
    "debounce": "Debounce",
    "batch": "Batch",
    "singleton": "Singleton",
    "idempotency": "Idempotency",
    "priority": "Priority",
    "cancel": "Cancellation",
    "start-timeout": "Start timeout",
    "finish-timeout": "Finish timeout",
    "paused": "Paused",
}
"""What rules are called on pages."""


def label(rule: str) -> str:
    """A rule's name for people."""
    return LABELS.get(rule, rule)


def in_line(queue: QueueView, now: int) -> str:
    """What a run that is in line waits for, and its place."""
    gate = queue.gate
    line = _line(queue)
    if gate is None or gate.rule == "capacity":
        since = f", for {humanize.duration(now - queue.due)}" if now > queue.due > 0 else ""
        return f"Waits for a free place{', ' + line if line else ''}{since}."
    if gate.rule == "paused":
        return f"Held: the function is paused{', ' + line if line else ''}."
    if gate.rule == "singleton":
        return "Waits for the run before it to be cancelled (singleton)."
    if gate.rule == "throttle":
        return f"Throttled{_key(gate)}: starts at about {_moment(gate.until, now)}{', ' + line if line else ''}."
    places = f"{gate.used} of {gate.limit} place{'' if gate.limit == 1 else 's'} taken"
    return f"{label(gate.rule)}{_key(gate)}: {places}{', ' + line if line else ''}."


def _line(queue: QueueView) -> str:
    if queue.position is None:
        return ""
    if queue.more_ahead:
        return f"more than {humanize.number(queue.position - 1)} ahead of it"
    return f"{humanize.ordinal(queue.position)} in line"


def _key(gate: GateView) -> str:
    return f" key {gate.key}" if gate.key else ""


def _moment(at: int | None, now: int) -> str:
    if at is None or at <= now:
        return "once"
    return f"{humanize.clock(at)[:8]} UTC (in {humanize.duration(at - now)})"


def limits(detail: RunDetail, now: int) -> Iterator[str]:
    """What will, or may, cancel a live run."""
    for alarm in detail.alarms:
        yield _alarm(alarm, now)
    for one in detail.cancels:
        yield cancelled_by(one, now)


def _alarm(alarm: AlarmView, now: int) -> str:
    when = f"{humanize.absolute(alarm.at)} ({humanize.ago(alarm.at, now)})"
    if alarm.kind == "start":
        return f"Will be cancelled unless it starts by {when}."
    if alarm.kind == "finish":
        return f"Will be cancelled unless it ends by {when}."
    return f"Is being cancelled: {alarm.reason}."


def cancelled_by(one: CancelView, now: int) -> str:
    """An event that cancels a run."""
    condition = f" if {one.condition}" if one.condition else ""
    until = f", until {humanize.absolute(one.expires)} ({humanize.ago(one.expires, now)})" if one.expires else ""
    return f"Can be cancelled by event {one.event}{condition}{until}."


def skipped(skip: SkipView, now: int) -> str:
    """Why an event did not start a function, or not yet: `debounced: 5s of quiet for key 'a'; starts in 3 s`."""
    if skip.reason == NO_FUNCTION:
        return skip.detail
    words = skip.reason + (f": {skip.detail}" if skip.detail else "")
    if skip.until is not None:
        words += f"; starts {'now' if skip.until <= now else 'in ' + humanize.duration(skip.until - now)} unless more comes"
    return words
