"""Runs and their histories as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from holdfast.base.clock import to_ms
from holdfast.cli.api_objects import NULL, Attempt, History, Run, Step
from holdfast.cli.console import status_text
from holdfast.dashboard.humanize import ago, duration

_LONGEST_PAYLOAD = 400
_STEP_STYLES = {"done": "green", "failed": "red", "pending": "cyan"}


def runs_table(runs: Sequence[Run], now: int) -> RenderableType:
    """A list of runs; `now` in milliseconds since 1970."""
    table = styled_table("Status", "Function", "Run", "Queued", "Took", "Steps", "Error")
    for run in runs:
        table.add_row(
            status_text(run.status.upper()),
            Text(run.function),
            Text(run.run_id),
            since(run.queued_at, now),
            _took(run.duration_ms),
            str(run.steps),
            Text(run.error, style="red") if run.error else Text(run.reason or "", style="dim"),
        )
    return table


def history_view(history: History, now: int) -> RenderableType:
    """Everything about one run: where it stands, its steps with their attempts, output or error, notes, log lines."""
    run = history.run
    parts: list[RenderableType] = [
        Text.assemble(status_text(run.status.upper()), "  ", (run.function, "bold"), "  ", run.run_id),
        Text(_origin(run), style="dim"),
        Text(_times(run, now), style="dim"),
    ]
    parts += [Text(sentence) for sentence in run.why if not run.ended or run.reason]
    parts += [Text(note, style="yellow") for note in history.notes]
    if history.steps:
        parts += [Text(""), _steps(history.steps, now)]
    parts += [_function_attempt(attempt) for attempt in history.attempts if attempt.retry_at]
    if run.output != NULL:
        parts += [Text(""), *_outcome(bytes(run.output))]
    if history.logs:
        parts.append(Text(""))
    parts += [Text(f"{line.at[11:23]}  {line.level:<8} {line.message}") for line in history.logs]
    return Group(*parts)


def _origin(run: Run) -> str:
    text = f"event {run.event_name} {run.event_id}"
    if run.original_run_id:
        text += f", {run.origin} of {run.original_run_id}"
    if run.parent_run_id:
        text += f", invoked by {run.parent_run_id}"
    return text


def _times(run: Run, now: int) -> str:
    text = f"queued {since(run.queued_at, now)}"
    if run.ended_at:
        text += f", ended {since(run.ended_at, now)}"
    if run.duration_ms is not None:
        text += f", took {duration(run.duration_ms)}"
    return text


def _steps(steps: Iterable[Step], now: int) -> RenderableType:
    table = styled_table("Step", "Kind", "State", "Took", "Attempts", "Result")
    for step in steps:
        took = duration(_ms(step.ended_at) - _ms(step.started_at)) if step.ended_at else ""
        state = f"pending, {since(step.due, now)}" if step.state == "pending" and step.due else step.state
        table.add_row(
            Text(step.name),
            step.kind.replace("_", " "),
            Text(state, style=_STEP_STYLES.get(step.state, "")),
            took,
            str(step.failed_attempts + (step.state != "pending")) if step.kind == "run" else "",
            Text(_result(step)),
        )
        for attempt in step.attempts:
            table.add_row("", "", Text("failed", style="red"), "", str(attempt.attempt + 1), _attempt_text(attempt))
    return table


def _result(step: Step) -> str:
    if step.error:
        return _error_line(step.error)
    return _shortened(bytes(step.output).decode()) if step.output != NULL else ""


def _function_attempt(attempt: Attempt) -> Text:
    return Text.assemble(f"attempt {attempt.attempt + 1} of the function failed: ", _attempt_text(attempt))


def _attempt_text(attempt: Attempt) -> Text:
    again = f", again at {attempt.retry_at[11:19]}" if attempt.retry_at else ""
    return Text(_error_line(attempt.error) + again, style="red")


def _outcome(output: bytes) -> list[RenderableType]:
    value = msgspec.json.decode(output)
    error = value.get("error") if isinstance(value, dict) and set(value) == {"error"} else None
    if not isinstance(error, dict):
        return [Text.assemble(("output  ", "dim"), _shortened(output.decode()))]
    parts: list[RenderableType] = [Text(_error_line(error), style="bold red")]
    if error.get("stack"):
        parts.append(Padding(Text(str(error["stack"]).rstrip(), style="dim"), (0, 0, 0, 2), expand=False))
    return parts


def _error_line(error: dict[str, Any]) -> str:
    name, message = str(error.get("name", "Error")), str(error.get("message", ""))
    return f"{name}: {message}" if message else name


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_PAYLOAD else f"{text[:_LONGEST_PAYLOAD]}... ({len(text)} characters)"


def since(moment: str | None, now: int) -> str:
    """How long ago a moment was, in words; nothing for none."""
    return ago(_ms(moment), now) if moment else ""


def _took(ms: int | None) -> str:
    return "" if ms is None else duration(ms)


def _ms(moment: str) -> int:
    return to_ms(datetime.fromisoformat(moment))


def styled_table(*columns: str) -> Table:
    """An empty table in the style of all lists."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    for column in columns:
        if column in {"Run", "Status"}:
            table.add_column(column, no_wrap=True)
        else:
            table.add_column(column, overflow="fold")
    return table
