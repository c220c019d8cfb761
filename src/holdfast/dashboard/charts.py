"""Small charts as SVG geometry, for pages that must be readable without JavaScript."""

from __future__ import annotations

import msgspec

from holdfast.store.reads import Overview


class Bar(msgspec.Struct, frozen=True):
    """A rectangle of a stacked chart, in a 0..100 by 0..100 space with y growing downwards."""

    x: float
    y: float
    width: float
    height: float
    tone: str


class RunsChart(msgspec.Struct, frozen=True):
    """Runs that ended, by status, per slice of a period."""

    bars: tuple[Bar, ...]
    top: int
    """The value at the upper edge."""
    starts: tuple[int, ...]
    """Start of each slice, ms."""
    series: dict[str, tuple[int, ...]]
    """completed, failed, cancelled and started, per slice."""
    totals: dict[str, int]

    def data(self) -> str:
        """JSON for the interactive chart: seconds, then the series."""
        return msgspec.json.encode({"starts": [start / 1000 for start in self.starts], **self.series}).decode()


def runs_chart(overview: Overview) -> RunsChart:
    """The stacked chart of an overview."""
    names = ("completed", "failed", "cancelled", "started")
    series = {name: tuple(bucket[index + 1] for bucket in overview.buckets) for index, name in enumerate(names)}
    ended = [sum(bucket[1:4]) for bucket in overview.buckets]
    top = nice_top(max(ended, default=0))
    bars: list[Bar] = []
    width = 100 / len(ended) if ended else 100.0
    for slot, bucket in enumerate(overview.buckets):
        y = 100.0
        for value, tone in zip(bucket[1:4], ("ok", "bad", "idle"), strict=True):
            if value:
                height = 100 * value / top
                y -= height
                bars.append(
                    Bar(
                        round(slot * width + width * 0.1, 3), round(y, 3), round(width * 0.8, 3), round(height, 3), tone
                    )
                )
    starts = tuple(bucket[0] for bucket in overview.buckets)
    return RunsChart(tuple(bars), top, starts, series, {name: sum(values) for name, values in series.items()})


def nice_top(value: int) -> int:
    """The next of 1, 2, 5 times a power of ten, so that axis labels are round."""
    scale = 1
    while True:
        for factor in (1, 2, 5):
            if value <= factor * scale:
                return factor * scale
        scale *= 10
