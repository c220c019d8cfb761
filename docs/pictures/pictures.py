"""What the pictures of the documentation show: time from left to right, one row for each thing that time passes for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Arrives:
    """An event."""

    time: float
    label: str


@dataclass(frozen=True)
class Dropped:
    """An event that starts nothing."""

    time: float
    label: str


@dataclass(frozen=True)
class Bar:
    """Something that lasts: `run` executes, `wait` is in the queue, `sleep` executes nothing, `stopped` ends there."""

    start: float
    end: float
    kind: str = "run"
    label: str = ""


@dataclass(frozen=True)
class Span:
    """A length of time."""

    start: float
    end: float
    label: str


Mark = Arrives | Dropped | Bar | Span


@dataclass(frozen=True)
class Row:
    """One thing that time passes for."""

    label: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Picture:
    """One file."""

    name: str
    title: str
    until: float
    ticks: tuple[tuple[float, str], ...]
    rows: tuple[Row, ...]


def every(step: float, until: float, unit: str) -> tuple[tuple[float, str], ...]:
    """Ticks of the axis."""
    count = int(until // step)
    return tuple((n * step, f"{n * step:g} {unit}") for n in range(count + 1))


PICTURES = (
    Picture(
        "concurrency", "concurrency=2: who sleeps leaves the place", 12, every(2, 12, "s"),
        (
            Row("run 1", (Bar(0, 3, "run", "step"), Bar(3, 8, "sleep", "sleeps"), Bar(8, 10, "run", "step"))),
            Row("run 2", (Bar(0, 5, "run", "step"),)),
            Row("run 3", (Bar(0, 3, "wait", "queued"), Bar(3, 7, "run", "step"))),
            Row("run 4", (Bar(0, 5, "wait", "queued"), Bar(5, 8, "run", "step"))),
        ),
    ),
    Picture(
        "run-concurrency", "run_concurrency=2: who sleeps keeps the place", 12, every(2, 12, "s"),
        (
            Row("run 1", (Bar(0, 2, "run", "step"), Bar(2, 6, "sleep", "sleeps"), Bar(6, 8, "run", "step"))),
            Row("run 2", (Bar(0, 5, "run", "step"),)),
            Row("run 3", (Bar(0, 5, "wait", "queued"), Bar(5, 9, "run", "step"))),
            Row("run 4", (Bar(0, 8, "wait", "queued"), Bar(8, 11, "run", "step"))),
        ),
    ),
    Picture(
        "fairness", "Two places, a lane for each key: everybody has a turn", 12, every(2, 12, "s"),
        (
            Row("lane of a", (
                Bar(0, 2, "run", "a1 a2"), Bar(2, 4, "run", "a3"), Bar(4, 6, "wait"), Bar(6, 8, "run", "a4"), Bar(8, 10, "run", "a5"),
                Bar(10, 12, "wait", "a6 ... a1000"),
            )),
            Row("lane of b", (Bar(0, 2, "wait"), Bar(2, 4, "run", "b1"), Bar(4, 6, "wait"), Bar(6, 8, "run", "b2"))),
            Row("lane of c", (Bar(0, 4, "wait"), Bar(4, 6, "run", "c1"), Bar(6, 8, "wait"), Bar(8, 10, "run", "c2"))),
            Row("lane of d", (Bar(0, 4, "wait"), Bar(4, 6, "run", "d1"))),
        ),
    ),
    Picture(
        "throttle", 'Throttle(2, "10s", burst=1): none is lost, starts are spread', 25, every(5, 25, "s"),
        (
            Row("events", (Arrives(0, "1-5"), Arrives(22, "6"))),
            Row("starts", (
                Bar(0, 1.4, "run", "1 2"), Bar(5, 6, "run", "3"), Bar(10, 11, "run", "4"), Bar(15, 16, "run", "5"),
                Bar(22, 23, "run", "6"),
            )),
            Row("between", (Span(0, 5, "10 s / 2"), Span(5, 10, "10 s / 2"), Span(10, 15, "10 s / 2"))),
        ),
    ),
    Picture(
        "rate-limit", 'RateLimit(2, "60s"): what is beyond starts nothing', 120, every(20, 120, "s"),
        (
            Row("events", (
                Arrives(0, "1"), Arrives(20, "2"), Arrives(35, "3"), Arrives(60, "4"), Arrives(70, "5"), Arrives(85, "6"),
            )),
            Row("runs", (
                Bar(0, 6, "run", "1"), Bar(20, 26, "run", "2"), Dropped(35, "3"), Bar(60, 66, "run", "4"), Dropped(70, "5"),
                Bar(85, 91, "run", "6"),
            )),
            Row("any period", (Span(0, 60, "1 and 2"), Span(60, 120, "4 and 6"))),
            Row("", (Span(20, 80, "2 and 4"),)),
        ),
    ),
    Picture(
        "debounce", 'Debounce("10s", timeout="30s"): once it is quiet, with the last event', 70, every(10, 70, "s"),
        (
            Row("events", (
                Arrives(0, "1"), Arrives(4, "2"), Arrives(8, "3"), Arrives(30, "4"), Arrives(38, "5"), Arrives(46, "6"),
                Arrives(54, "7"),
            )),
            Row("quiet", (Span(8, 18, "10 s"), Span(30, 60, "timeout: 30 s from the first"))),
            Row("runs", (Bar(18, 23, "run", "3"), Bar(60, 65, "run", "7"))),
        ),
    ),
    Picture(
        "batching", 'Batch(3, "10s"): full, or its time is up', 40, every(5, 40, "s"),
        (
            Row("events", (
                Arrives(1, "1"), Arrives(3, "2"), Arrives(6, "3"), Arrives(15, "4"), Arrives(19, "5"), Arrives(30, "6"),
            )),
            Row("batch", (Span(1, 6, "is full"), Span(15, 25, "10 s from its first"), Span(30, 40, "10 s"))),
            Row("runs", (Bar(6, 10, "run", "1 2 3"), Bar(25, 28, "run", "4 5"))),
        ),
    ),
    Picture(
        "priority", "One place: the third in the queue goes 60 seconds ahead", 12, every(2, 12, "s"),
        (
            Row("run 1", (Bar(0, 3, "run", "1"),)),
            Row("run 2", (Bar(0.5, 6, "wait", "queued"), Bar(6, 9, "run", "2"))),
            Row("run 3, gold", (Bar(1, 3, "wait", "queued"), Bar(3, 6, "run", "3"))),
            Row("run 4", (Bar(1.5, 9, "wait", "queued"), Bar(9, 12, "run", "4"))),
        ),
    ),
    Picture(
        "singleton", "Singleton: one live run", 12, every(2, 12, "s"),
        (
            Row("events", (Arrives(0.5, "1"), Arrives(3, "2"), Arrives(8, "3"))),
            Row('"skip"', (Bar(0.5, 6, "run", "1"), Bar(8, 11, "run", "3"))),
            Row("", (Dropped(3, "2 is SKIPPED"),)),
            Row('"cancel"', (Bar(0.5, 3, "stopped", "1"), Bar(3.1, 8, "stopped", "2"), Bar(8.1, 11, "run", "3"))),
        ),
    ),
    Picture(
        "idempotency", "One run per key: in 24 hours from the first, or in each bucket", 30, every(10, 30, "s"),
        (
            Row("events", (Arrives(2, "1"), Arrives(5, "2"), Arrives(12, "3"), Arrives(16, "4"), Arrives(22, "5"))),
            Row("key, 24 hours", (Bar(2, 4, "run", "1"), Dropped(5, "2"), Dropped(12, "3"), Dropped(16, "4"), Dropped(22, "5"))),
            Row("bucket of 10 s", (
                Bar(2, 4, "run", "1"), Dropped(5, "2"), Bar(12, 14, "run", "3"), Dropped(16, "4"), Bar(22, 24, "run", "5"),
            )),
            Row("and trailing", (
                Bar(2, 4, "run", "1"), Bar(5, 10, "wait", "2 waits"), Bar(10, 12, "run", "2"), Bar(12.2, 20, "wait", "3, for 4 too"),
                Bar(20, 22, "run", "3"), Bar(22.2, 30, "wait", "5 waits"),
            )),
        ),
    ),
    Picture(
        "delayed-events", "An event with a ts in the future is accepted now and starts its run then", 60, every(10, 60, "min"),
        (
            Row("sent", (Arrives(2, "ts: in 40 min"), Arrives(20, "ts: in 20 min"))),
            Row("run 1", (Bar(2, 42, "wait", "queued, on disk"), Bar(42, 52, "run", "run"))),
            Row("run 2", (Bar(20, 40, "wait", "queued"), Bar(40, 48, "run", "run"))),
        ),
    ),
    Picture(
        "cancel-on-event", 'CancelOn(OrderCancelled, match="data.order_id")', 12, every(2, 12, "h"),
        (
            Row("events", (Arrives(0.5, "paid o1"), Arrives(2, "paid o2"), Arrives(6, "cancelled o1"))),
            Row("run of o1", (Bar(0.5, 2, "run", "step"), Bar(2, 6, "stopped", "sleeps"))),
            Row("run of o2", (Bar(2, 3.5, "run", "step"), Bar(3.5, 9, "sleep", "sleeps"), Bar(9, 11, "run", "step"))),
        ),
    ),
    Picture(
        "cancel-by-api", "Cancelled by hand: at once, wherever it is", 12, every(2, 12, "s"),
        (
            Row("cancel", (Arrives(5, "DELETE /v1/runs/..."),)),
            Row("executing", (Bar(1, 5, "stopped", "async body"),)),
            Row("in a thread", (Bar(1, 5, "stopped", "run"), Bar(5, 8, "sleep", "body ends"), Dropped(8, "result"))),
            Row("queued", (Bar(2, 5, "wait", "queued"), Dropped(5, ""))),
        ),
    ),
    Picture(
        "timeouts", 'Timeouts(start="2m", finish="6m")', 12, every(2, 12, "min"),
        (
            Row("run 1", (Bar(0, 1, "wait"), Bar(1, 2.5, "run", "step"), Bar(2.5, 5, "sleep", "sleeps"), Bar(5, 6, "run", "step"))),
            Row("run 2", (Bar(0, 2, "wait", "queued"), Dropped(2, ""))),
            Row("run 3", (Bar(0, 1, "wait"), Bar(1, 3, "run", "step"), Bar(3, 7, "stopped", "sleeps"))),
            Row("start", (Span(0, 2, "2 min, of run 2"),)),
            Row("finish", (Span(1, 7, "6 min, of run 3"),)),
        ),
    ),
    Picture(
        "pausing", "A pause that holds, and one that skips", 12, every(2, 12, "min"),
        (
            Row("events", (Arrives(1, "1"), Arrives(4, "2"), Arrives(6, "3"), Arrives(10, "4"))),
            Row("paused", (Span(3, 8, "pause ... resume"),)),
            Row('"hold"', (Bar(1, 2, "run", "1"), Bar(4, 8, "wait", "2, 3 queued"), Bar(8, 9.5, "run", "2 3"), Bar(10, 11, "run", "4"))),
            Row('"skip"', (Bar(1, 2, "run", "1"), Dropped(4, "2"), Dropped(6, "3"), Bar(10, 11, "run", "4"))),
        ),
    ),
    Picture(
        "invoke", "step.invoke asks the callee's rules; a caller that waits holds no place", 12, every(2, 12, "s"),
        (
            Row("caller A", (Bar(0, 1, "run", "step"), Bar(1, 5, "sleep", "waits for invoke"), Bar(5, 6, "run", "step"))),
            Row("caller B", (Bar(0.5, 1.5, "run", "step"), Bar(1.5, 9, "sleep", "waits for invoke"), Bar(9, 10, "run", "step"))),
            Row("callee, for A", (Bar(1, 5, "run", "concurrency=1"),)),
            Row("callee, for B", (Bar(1.5, 5, "wait", "queued"), Bar(5, 9, "run", "runs"))),
        ),
    ),
)  # fmt: skip
