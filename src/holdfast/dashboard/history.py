"""The history of a run as a flat list of what happened, oldest first."""

from __future__ import annotations

import msgspec

from holdfast.dashboard import humanize
from holdfast.dashboard.status import KIND_LABELS
from holdfast.store.reads import AttemptView, RunDetail, StepView


class Entry(msgspec.Struct, frozen=True):
    """Something that happened."""

    at: int
    what: str
    step: str
    detail: str
    tone: str


def history(detail: RunDetail) -> list[Entry]:
    """All recorded transitions of a run."""
    run = detail.run
    out = [
        Entry(
            run.queued_at,
            "queued",
            "",
            f"by {run.origin}" + (f" of {run.event_name}" if run.event_name else ""),
            "queue",
        )
    ]
    if run.started_at is not None:
        out.append(
            Entry(
                run.started_at,
                "started",
                "",
                f"after {humanize.duration(run.started_at - run.queued_at)} in the queue",
                "run",
            )
        )
    out += [_attempt(attempt, "") for attempt in detail.function_attempts]
    for step in detail.steps:
        if step.kind != "end":
            out += _step(step)
    if run.ended_at is not None:
        tone = {"COMPLETED": "ok", "FAILED": "bad"}.get(run.status, "idle")
        out.append(Entry(run.ended_at, run.status.lower(), "", run.error or "", tone))
    return sorted(out, key=lambda entry: entry.at)


def _step(step: StepView) -> list[Entry]:
    out = [_attempt(attempt, step.name) for attempt in step.attempts]
    kind = KIND_LABELS.get(step.kind, step.kind)
    if step.kind not in {"run", "now", "send"} or step.state == "pending":
        out.append(Entry(step.started_at, "registered", step.name, kind, "wait"))
    if step.ended_at is not None:
        words = "recorded" if step.state == "done" else "failed for good"
        out.append(
            Entry(step.ended_at, words, step.name, f"{kind}, #{step.seq}", "ok" if step.state == "done" else "bad")
        )
    return out


def _attempt(attempt: AttemptView, step: str) -> Entry:
    error = f"{attempt.error.get('name', 'Error')}: {attempt.error.get('message', '')}"
    again = (
        f"; next in {humanize.duration(attempt.retry_at - attempt.ended_at)}" if attempt.retry_at is not None else ""
    )
    return Entry(attempt.ended_at, f"attempt {attempt.attempt + 1} failed", step, error[:300] + again, "bad")
