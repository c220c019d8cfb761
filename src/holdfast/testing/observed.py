"""What a test sees of runs and events: snapshots, read from the store as the dashboard reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from holdfast.base.clock import to_datetime
from holdfast.base.codec import ResultCodec, decode_json
from holdfast.sdk.functions import Function
from holdfast.store.reads import AttemptView, EventView, RunDetail, StepView

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class ObservedError:
    """An error as it was recorded."""

    name: str
    """Its class, such as `ConnectionRefusedError`."""
    message: str
    stack: str | None


@dataclass(frozen=True, slots=True)
class ObservedAttempt:
    """A failed attempt."""

    started_at: datetime
    error: ObservedError
    retry_at: datetime | None
    """When the next attempt was due; None when this was the last."""


@dataclass(frozen=True, slots=True)
class ObservedEvent:
    """A stored event."""

    id: str
    """The id its sender gave, else the internal one."""
    name: str
    data: Any
    """The data as JSON."""
    ts: datetime
    source_run: str | None
    """The run that sent it with `ctx.step.send`, if one did."""


@dataclass(frozen=True, slots=True)
class ObservedLog:
    """A line a function logged with `ctx.logger`."""

    at: datetime
    level: str
    """debug, info, warning, error or critical."""
    message: str
    step: str | None


@dataclass(frozen=True, slots=True)
class ObservedStep:
    """A step of a run."""

    id: str
    """With its repeat index: `id`, `id:1`, ..."""
    kind: str
    """run, sleep, wait_event, wait_signal, invoke, send, send_signal, race or now."""
    state: str
    """done, failed or pending."""
    result: Any
    """What is recorded, as JSON; None unless the step is done."""
    error: ObservedError | None
    failed_attempts: tuple[ObservedAttempt, ...]
    started_at: datetime
    ended_at: datetime | None
    due: datetime | None
    """While pending: the next attempt, the wake-up or the time-out."""


@dataclass(frozen=True, slots=True)
class ObservedRun(Generic[R]):
    """A run at one moment; it doesn't change afterwards. `await h.read(run)` gives a newer one."""

    id: str
    function: str
    """`<app>-<function id>`."""
    status: str
    """QUEUED, RUNNING, WAITING, COMPLETED, FAILED or CANCELLED."""
    event: ObservedEvent | None
    """The event that started it."""
    output: R | None
    """What the function returned, once COMPLETED."""
    error: ObservedError | None
    """Why it FAILED."""
    steps: tuple[ObservedStep, ...]
    """In the order in which they were recorded, pending ones last."""
    failed_attempts: tuple[ObservedAttempt, ...]
    """Of the function itself, outside steps."""
    logs: tuple[ObservedLog, ...]
    sent: tuple[ObservedEvent, ...]
    """Events it sent with `ctx.step.send`, oldest first."""
    notes: tuple[str, ...]
    """What holdfast has to say about it: steps that are not reached any more, code that behaves differently on replay."""
    parent_id: str | None
    """The run that invoked it, or that it was made of."""
    queued_at: datetime
    started_at: datetime | None
    ended_at: datetime | None

    def step(self, id: str) -> ObservedStep:  # noqa: A002 - what users call it
        """The step with this id.

        Raises:
            AssertionError: there is none; the message names those there are.
        """
        for step in self.steps:
            if step.id == id:
                return step
        there = ", ".join(repr(step.id) for step in self.steps) or "none"
        raise AssertionError(f"run {self.id} of {self.function} has no step {id!r}; it has: {there}")

    @property
    def ended(self) -> bool:
        """Whether it has completed, failed or been cancelled."""
        return self.ended_at is not None


def observe_event(view: EventView) -> ObservedEvent:
    """A stored event, with its data decoded."""
    return ObservedEvent(view.id, view.name, decode_json(view.data), to_datetime(view.ts), view.source_run)


def observe_run(
    detail: RunDetail, function: Function[Any, Any] | None, sent: Sequence[ObservedEvent]
) -> ObservedRun[Any]:
    """A run, its output decoded by the function's return annotation."""
    view = detail.run
    output = None
    if view.status == "COMPLETED" and detail.output is not None:
        output = ResultCodec.of(Any if function is None else function.result_type).decode(detail.output, None)
    return ObservedRun(
        id=view.id,
        function=view.function,
        status=view.status,
        event=None if detail.event is None else observe_event(detail.event),
        output=output,
        error=_error(detail.error),
        steps=tuple(_step(step) for step in detail.steps if step.kind != "end"),
        failed_attempts=tuple(_attempt(attempt) for attempt in detail.function_attempts),
        logs=tuple(ObservedLog(to_datetime(log.at), log.level, log.message, log.step) for log in detail.logs),
        sent=tuple(event for event in sent if event.source_run == view.id),
        notes=detail.notes,
        parent_id=view.parent_id,
        queued_at=to_datetime(view.queued_at),
        started_at=_moment(view.started_at),
        ended_at=_moment(view.ended_at),
    )


def _step(view: StepView) -> ObservedStep:
    return ObservedStep(
        id=view.key,
        kind=view.kind,
        state=view.state,
        result=decode_json(view.data) if view.state == "done" and view.data is not None else None,
        error=_error(view.error),
        failed_attempts=tuple(_attempt(attempt) for attempt in view.attempts),
        started_at=to_datetime(view.started_at),
        ended_at=_moment(view.ended_at),
        due=_moment(view.due),
    )


def _attempt(view: AttemptView) -> ObservedAttempt:
    error = _error(view.error) or ObservedError("Error", "", None)
    return ObservedAttempt(to_datetime(view.started_at), error, _moment(view.retry_at))


def _error(body: dict[str, object] | None) -> ObservedError | None:
    if body is None:
        return None
    stack = body.get("stack")
    return ObservedError(
        str(body.get("name", "Error")), str(body.get("message", "")), None if stack is None else str(stack)
    )


def _moment(ms: int | None) -> datetime | None:
    return None if ms is None else to_datetime(ms)
