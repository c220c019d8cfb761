"""The words, tones and signs of run and step states. Never colour alone: each tone has a sign and a label."""

from __future__ import annotations

import msgspec

from holdfast.store.reads import RunDetail, RunView, StepView


class Status(msgspec.Struct, frozen=True):
    """How a state is shown."""

    label: str
    tone: str
    """Class suffix in the style sheet: ok, bad, run, wait, retry, idle."""
    icon: str
    """Name of a sign in `icons.py`."""


RUN_STATUSES: dict[str, Status] = {
    "QUEUED": Status("Queued", "queue", "queued"),
    "RUNNING": Status("Running", "run", "running"),
    "WAITING": Status("Waiting", "wait", "waiting"),
    "COMPLETED": Status("Completed", "ok", "check"),
    "FAILED": Status("Failed", "bad", "cross"),
    "CANCELLED": Status("Cancelled", "idle", "stop"),
    "SKIPPED": Status("Skipped", "idle", "skip"),
}
ACTIVE = frozenset({"QUEUED", "RUNNING", "WAITING"})
RETRYING = Status("Retrying", "retry", "retry")

LETTER_STATES: dict[str, Status] = {
    "dead": Status("Dead", "bad", "cross"),
    "redriven": Status("Redriven", "ok", "retry"),
    "discarded": Status("Discarded", "idle", "stop"),
}

BULK_STATES: dict[str, Status] = {
    "running": Status("Running", "run", "running"),
    "done": Status("Done", "ok", "check"),
    "cancelled": Status("Stopped", "idle", "stop"),
}


class BulkAction(msgspec.Struct, frozen=True):
    """How an action on many runs is spoken of."""

    verb: str
    doing: str
    done: str
    thing: str = "run"


BULK_ACTIONS = {
    "cancel": BulkAction("Cancel", "Cancelling", "cancelled"),
    "rerun": BulkAction("Rerun", "Starting again", "started again"),
    "redrive": BulkAction("Redrive", "Redriving", "redriven", "dead letter"),
    "discard": BulkAction("Discard", "Discarding", "discarded", "dead letter"),
}

KIND_LABELS = {
    "run": "step",
    "sleep": "sleep",
    "wait_event": "wait for event",
    "wait_signal": "wait for signal",
    "invoke": "invoke",
    "send": "send events",
    "send_signal": "send signal",
    "race": "race",
    "now": "time",
    "end": "end",
    "fetch": "fetch",
    "ai": "AI call",
}


def run_status(run: RunView) -> Status:
    """How a run's status is shown."""
    return RUN_STATUSES.get(run.status) or Status(run.status.capitalize(), "idle", "dot")


def detail_status(detail: RunDetail) -> Status:
    """The same where all is known of the run: one that is between two attempts, or in a second one, is retrying."""
    if detail.run.status in ACTIVE:
        pending = [step for step in detail.steps if step.state == "pending"]
        if any(step.attempts for step in pending) or (detail.function_attempts and not pending):
            return RETRYING
    return run_status(detail.run)


def step_status(step: StepView, now: int) -> Status:
    """How a step's state is shown."""
    if step.state == "done":
        return Status("Done", "ok", "check")
    if step.state == "failed":
        return Status("Failed", "bad", "cross")
    if step.kind == "sleep":
        return Status("Sleeping", "wait", "waiting")
    if step.kind in {"wait_event", "wait_signal"}:
        return Status("Waiting", "wait", "waiting")
    if step.kind == "invoke":
        return Status("Invoked", "wait", "waiting")
    if step.attempts and step.due is not None and step.due > now:
        return RETRYING
    return Status("Running", "run", "running")
