"""What a run is doing, said in words."""

from __future__ import annotations

import json
from typing import Any

from holdfast.base.codec import decode_json
from holdfast.core.cron import Schedule
from holdfast.dashboard import flow_words, humanize
from holdfast.dashboard.status import ACTIVE
from holdfast.store.reads import QueueView, RunDetail, StepView


def standing(detail: RunDetail, now: int, retries: int | None = None) -> list[str]:
    """Where a run stands: one sentence per thing it waits for, or how it ended.

    Args:
        detail: The run.
        now: Milliseconds since 1970.
        retries: The function's configured retries, for "attempt 2 of 4".
    """
    run = detail.run
    if run.status not in ACTIVE:
        return [_ending(detail)]
    sentences = [text for step in detail.steps if (text := _pending(step, now, retries)) is not None]
    place = _place(detail, detail.queue, now, bool(sentences))
    if detail.queue is not None and detail.queue.crashes:
        times = humanize.plural(detail.queue.crashes, "time")
        sentences.append(
            f"The process executing it died {times} in a row without recording progress; it is tried alone."
        )
    return (([place] if place else []) + sentences or ["Between two steps."]) + list(flow_words.limits(detail, now))


def _ending(detail: RunDetail) -> str:
    run = detail.run
    took = "" if run.duration_ms is None else f" in {humanize.duration(run.duration_ms)}"
    if run.status == "COMPLETED":
        return f"Completed{took}, {humanize.plural(run.steps, 'step')} recorded."
    if run.status == "FAILED":
        why = f": {_short(run.error)}" if run.error else "."
        return (
            f"Failed after {humanize.duration(run.duration_ms)}{why}"
            if run.duration_ms is not None
            else f"Failed before it started{why}"
        )
    if run.status == "CANCELLED":
        why = f": {_short(run.reason)}." if run.reason else "."
        after = "before it started" if run.started_at is None else f"after {humanize.duration(run.duration_ms or 0)}"
        return f"Cancelled {after}{why}"
    return f"Skipped: {_short(run.reason)}." if run.reason else "Skipped: it was not to run."


def _short(text: str) -> str:
    return text if len(text) <= 240 else text[:239] + "…"


def _place(detail: RunDetail, queue: QueueView | None, now: int, has_steps: bool) -> str | None:
    if queue is None:
        return None
    if queue.state == "leased":
        return None if has_steps else "Executing now."
    if queue.state == "ready" or queue.gate is not None:
        return flow_words.in_line(queue, now)
    if queue.state == "timed" and not has_steps:
        if detail.function_attempts:
            last = detail.function_attempts[-1]
            return f"Attempt {last.attempt + 1} failed with {last.error.get('name', 'an error')}; tries again {_when(queue.due, now)}."
        return (
            f"Starts {_when(queue.due, now)}." if detail.run.started_at is None else f"Goes on {_when(queue.due, now)}."
        )
    return None


def _pending(step: StepView, now: int, retries: int | None) -> str | None:
    if step.state != "pending":
        return None
    what = waits_for(step)
    if step.kind == "sleep":
        due = step.due or _int(what.get("until"))
        return f"Sleeps in '{step.name}'" + (
            f" until {humanize.absolute(due)} ({humanize.ago(due, now)})." if due else "."
        )
    if step.kind == "wait_event":
        return f"Waits in '{step.name}' for event {what.get('event', '?')}{matching(what)}{_expiry(step, what, now)}."
    if step.kind == "wait_signal":
        return f"Waits in '{step.name}' for signal {what.get('signal', '?')}{_expiry(step, what, now)}."
    if step.kind == "invoke":
        return (
            f"Waits in '{step.name}' for the run of {what.get('function', '?')} it invoked{_expiry(step, what, now)}."
        )
    if step.attempts:
        last = step.attempts[-1]
        of = f" of {retries + 1}" if retries is not None else ""
        again = (
            f"tries again {_when(step.due, now)}" if step.due is not None and step.due > now else "is being tried again"
        )
        return f"Step '{step.name}' failed with {last.error.get('name', 'an error')} (attempt {last.attempt + 1}{of}) and {again}."
    return f"Executing step '{step.name}' for {humanize.duration(now - step.started_at)}."


def waits_for(step: StepView) -> dict[str, Any]:
    """What a pending step is registered with."""
    if step.data is None:
        return {}
    value = decode_json(step.data)
    return value if isinstance(value, dict) else {}


def matching(what: dict[str, Any]) -> str:
    """The condition of a wait, ` where order_id is "o1"`."""
    parts = []
    where = what.get("where")
    if isinstance(where, dict):
        parts += [f"{path} is {json.dumps(value, ensure_ascii=False)}" for path, value in where.items()]
    if what.get("if"):
        parts.append(str(what["if"]))
    return " where " + " and ".join(parts) if parts else ""


def _expiry(step: StepView, what: dict[str, Any], now: int) -> str:
    due = step.due or _int(what.get("timeout_at"))
    return f", gives up {_when(due, now)}" if due else ""


def _when(due: int | None, now: int) -> str:
    if due is None:
        return "soon"
    return f"in {humanize.duration(due - now)}" if due > now else "now"


def _int(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


_WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def schedule(text: str) -> str:
    """A cron schedule in words where it has an everyday form, else its five fields."""
    parsed = Schedule.parse(text)
    minute, hour, day, month, weekday = parsed.fields.split()
    zone = parsed.zone.key
    if (hour, day, month, weekday) == ("*", "*", "*", "*"):
        if minute == "*":
            return "every minute"
        if minute.startswith("*/") and minute[2:].isdecimal():
            return f"every {minute[2:]} minutes"
        return f"every hour at :{int(minute):02d}" if minute.isdecimal() else parsed.fields
    if (
        minute.isdecimal()
        and (day, month, weekday) == ("*", "*", "*")
        and hour.startswith("*/")
        and hour[2:].isdecimal()
    ):
        return f"every {hour[2:]} hours at :{int(minute):02d}"
    if not (minute.isdecimal() and hour.isdecimal() and month == "*"):
        return parsed.fields
    at = f"at {int(hour):02d}:{int(minute):02d} {zone}"
    if (day, weekday) == ("*", "*"):
        return f"every day {at}"
    if day == "*" and weekday.lower() in {"mon-fri", "1-5"}:
        return f"Monday to Friday {at}"
    if day == "*" and weekday.isdecimal() and int(weekday) <= 7:
        return f"every {_WEEKDAYS[int(weekday)]} {at}"
    if weekday == "*" and day.isdecimal():
        return f"on the {humanize.ordinal(int(day))} of the month {at}"
    return parsed.fields


def trigger(config: dict[str, object]) -> str:
    """A trigger of a function's configuration on one line."""
    if "cron" in config:
        return schedule(str(config["cron"]))
    expression = config.get("expression")
    return f"{config.get('event', '?')}" + (f" if {expression}" if expression else "")
