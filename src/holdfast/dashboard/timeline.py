"""The waterfall of a run: what happened when, as bars on one time axis. Pure geometry, drawn by the template."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from holdfast.dashboard import humanize
from holdfast.dashboard.scale import Gap, Scale, Tick, folded, linear
from holdfast.dashboard.status import ACTIVE, KIND_LABELS, Status, detail_status, step_status
from holdfast.store.reads import AttemptView, RunDetail, StepView

MIN_WIDTH = 0.8
"""Percent below which a bar would not be seen."""
FOLD_OVER = 60
"""Runs with more steps than this show the first and the last of them."""
_HEAD, _TAIL = 30, 20
_LOOK_AHEAD = 0.04
_EXECUTING = frozenset({"queue", "ok", "bad", "run"})


class Segment(msgspec.Struct, frozen=True):
    """A piece of a bar."""

    tone: str
    """queue, ok, bad, run, retry (waiting for the next attempt), wait, idle."""
    start: int
    end: int
    title: str
    open: bool = False
    """It goes on beyond the axis."""
    x: float = 0.0
    width: float = 0.0


class TimelineRow(msgspec.Struct, frozen=True):
    """A step, or the run itself."""

    key: str
    """The step's key; empty for the run."""
    name: str
    kind: str
    """In words."""
    status: Status
    duration: str
    attempts: int
    """How often it was tried, for showing when it is more than once."""
    segments: tuple[Segment, ...]
    index: int
    """The step's place in `RunDetail.steps`; -1 for the run."""


class Timeline(msgspec.Struct, frozen=True):
    """Everything the template draws."""

    rows: tuple[TimelineRow, ...]
    hidden: int
    """Steps left out of the middle."""
    hidden_at: int
    """Index in `rows` before which they belong."""
    ticks: tuple[Tick, ...]
    gaps: tuple[Gap, ...]
    now_x: float | None
    """Where now is, while the run lives."""
    can_fold: bool
    """Whether folding idle time changes the axis."""
    start: int
    end: int


def build(
    detail: RunDetail, now: int, *, show_all: bool = False, fold_idle: bool = True, selected: str | None = None
) -> Timeline:
    """Lay a run out.

    Args:
        detail: The run.
        now: The moment up to which live parts are drawn.
        show_all: Show every step, however many there are.
        fold_idle: Draw long stretches of sleeping and waiting narrow.
        selected: Key of a step that must be among the rows.
    """
    steps = [(index, step) for index, step in enumerate(detail.steps) if step.kind != "end"]
    steps.sort(key=lambda pair: (first_start(pair[1]), pair[1].state == "pending", pair[1].seq))
    kept, hidden, hidden_at = _keep(steps, selected, show_all=show_all)
    live = detail.run.status in ACTIVE
    rows = [_run_row(detail, now), *(_step_row(index, step, now, live=live) for index, step in kept)]
    start = min((segment.start for row in rows for segment in row.segments), default=detail.run.queued_at)
    end = _axis_end(detail, rows, start, now)
    # also of the steps that are not shown: time they took is not idle
    shown = {row.index: row for row in rows}
    every = [shown.get(index) or _step_row(index, step, now, live=live) for index, step in steps]
    busy = [(s.start, s.end) for row in every for s in row.segments if s.tone in _EXECUTING]
    busy += [(attempt.started_at, attempt.ended_at) for attempt in detail.function_attempts]
    compressed = folded(start, end, busy)
    scale = compressed if fold_idle else linear(start, end)
    return Timeline(
        rows=tuple(_place(row, scale) for row in rows),
        hidden=hidden,
        hidden_at=hidden_at,
        ticks=scale.ticks(),
        gaps=scale.gaps,
        now_x=scale.x(now) if live else None,
        can_fold=compressed.folded,
        start=start,
        end=end,
    )


def _keep(
    steps: Sequence[tuple[int, StepView]], selected: str | None, *, show_all: bool
) -> tuple[list[tuple[int, StepView]], int, int]:
    if show_all or len(steps) <= FOLD_OVER:
        return list(steps), 0, 0
    head, middle, tail = steps[:_HEAD], steps[_HEAD:-_TAIL], steps[-_TAIL:]
    worth = [pair for pair in middle if pair[1].state != "done" or pair[1].key == selected][:_HEAD]
    return [*head, *worth, *tail], len(middle) - len(worth), 1 + len(head) + len(worth)


def _axis_end(detail: RunDetail, rows: Iterable[TimelineRow], start: int, now: int) -> int:
    if detail.run.status in ACTIVE:
        # room to the right of now, so that live bars have somewhere to grow
        return max(now + max(round((now - start) * _LOOK_AHEAD), 1), start + 10)
    last = max((segment.end for row in rows for segment in row.segments), default=start)
    return max(last, detail.run.ended_at or start, start + 1)


def _run_row(detail: RunDetail, now: int) -> TimelineRow:
    run = detail.run
    live = run.status in ACTIVE
    end = run.ended_at if run.ended_at is not None else now
    started = run.started_at if run.started_at is not None else end
    segments: list[Segment] = []
    if started > run.queued_at:
        segments.append(_segment("queue", run.queued_at, started, "in the queue"))
    if run.started_at is not None:
        tone = {"COMPLETED": "ok", "FAILED": "bad", "CANCELLED": "idle", "SKIPPED": "idle", "WAITING": "wait"}.get(
            run.status, "run"
        )
        failed, resumed = _attempt_segments(detail.function_attempts, end, now)
        if failed:
            segments.extend(failed)
            if resumed < end and (live or run.status == "COMPLETED"):
                segments.append(_segment(tone, resumed, end, "running"))
        else:
            segments.append(_segment(tone, started, max(end, started), "running"))
    return TimelineRow(
        key="",
        name=run.function_name,
        kind="run",
        status=detail_status(detail),
        duration=humanize.duration(end - run.queued_at),
        attempts=len(detail.function_attempts) + (1 if live or run.status == "COMPLETED" else 0),
        segments=tuple(segments),
        index=-1,
    )


def _step_row(index: int, step: StepView, now: int, *, live: bool) -> TimelineRow:
    end = step.ended_at if step.ended_at is not None else max(now, step.started_at)
    if step.kind in {"sleep", "wait_event", "wait_signal", "invoke"}:
        segments = [_waiting_segment(step, end)]
    else:
        segments, resumed = _attempt_segments(step.attempts, end, now)
        resumed = max(resumed, step.started_at)
        if step.state == "done":
            segments.append(_segment("ok", resumed, end, "done"))
        elif step.state == "failed" and (not segments or resumed < end):
            segments.append(_segment("bad", resumed, end, "failed"))
        elif step.state == "pending" and live and (step.due is None or step.due <= now):
            segments.append(_segment("run", resumed, end, "running", open_=True))
    tries = len(step.attempts) + (1 if step.state == "done" else 0)
    return TimelineRow(
        key=step.key,
        name=step.name,
        kind=KIND_LABELS.get(step.kind, step.kind),
        status=step_status(step, now),
        duration=humanize.duration(end - first_start(step)),
        attempts=tries,
        segments=tuple(segments),
        index=index,
    )


def first_start(step: StepView) -> int:
    """When the first attempt of a step began; its row holds that of the latest."""
    return min([step.started_at, *(attempt.started_at for attempt in step.attempts)])


def _waiting_segment(step: StepView, end: int) -> Segment:
    what = {"sleep": "sleeping", "invoke": "waiting for the invoked run"}.get(step.kind, "waiting")
    tone = "bad" if step.state == "failed" else "wait"
    return _segment(tone, step.started_at, end, what, open_=step.state == "pending")


def _attempt_segments(attempts: Sequence[AttemptView], end: int, now: int) -> tuple[list[Segment], int]:
    """Bars of failed attempts with the waits between them, and the moment at which the next attempt began or begins."""
    out: list[Segment] = []
    resumed = 0
    for attempt in sorted(attempts, key=lambda a: a.attempt):
        words = f"attempt {attempt.attempt + 1} failed: {attempt.error.get('name', 'Error')}"
        out.append(_segment("bad", attempt.started_at, attempt.ended_at, words))
        resumed = attempt.ended_at
        if attempt.retry_at is not None:
            until = min(attempt.retry_at, end)
            title = f"next attempt after {humanize.duration(attempt.retry_at - attempt.ended_at)}"
            if until > attempt.ended_at:
                out.append(_segment("retry", attempt.ended_at, until, title, open_=attempt.retry_at > now))
            resumed = until
    return out, resumed


def _segment(tone: str, start: int, end: int, what: str, *, open_: bool = False) -> Segment:
    end = max(start, end)
    return Segment(tone, start, end, f"{what}, {humanize.duration(end - start)}", open_)


def _place(row: TimelineRow, scale: Scale) -> TimelineRow:
    placed = []
    for segment in row.segments:
        x = scale.x(segment.start)
        width = max(scale.x(segment.end) - x, MIN_WIDTH)
        x = min(x, 100.0 - width)
        placed.append(msgspec.structs.replace(segment, x=round(x, 3), width=round(width, 3)))
    return msgspec.structs.replace(row, segments=tuple(placed))
