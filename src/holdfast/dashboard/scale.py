"""From moments to places on a time axis; long stretches in which nothing executes can be folded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec

from holdfast.dashboard import humanize

FOLD_SHARE = 0.92
"""Idle time is folded when it takes more than this share of the axis."""
_MIN_GAP_SHARE = 0.04
_MAX_TICKS = 6
_TICK_ROOM = 13.0
"""Percent that a label takes."""


class Tick(msgspec.Struct, frozen=True):
    """A label on the axis."""

    x: float
    """Percent of the axis."""
    label: str
    anchor: str
    """start, middle or end."""


class Gap(msgspec.Struct, frozen=True):
    """A folded stretch."""

    x: float
    width: float
    label: str
    """How long it really was, in short."""
    title: str


class Scale:
    """Maps milliseconds to percent, piecewise linear and rising."""

    __slots__ = ("_points", "end", "gaps", "start")

    def __init__(self, points: Sequence[tuple[int, float]], gaps: Sequence[Gap]) -> None:
        self._points = points
        self.gaps = tuple(gaps)
        self.start = points[0][0]
        self.end = points[-1][0]

    @property
    def folded(self) -> bool:
        return bool(self.gaps)

    def x(self, moment: float) -> float:
        """Percent of the axis at a moment; moments outside are put on its ends."""
        previous, x0 = self._points[0]
        if moment <= previous:
            return x0
        for at, x1 in self._points[1:]:
            if moment <= at:
                return x0 + (x1 - x0) * (moment - previous) / (at - previous)
            previous, x0 = at, x1
        return x0

    def ticks(self) -> tuple[Tick, ...]:
        """Labels counted from the start of the axis; on a folded axis, where execution resumes."""
        if not self.folded:
            return _linear_ticks(self.end - self.start)
        resumes = {round(gap.x + gap.width, 6) for gap in self.gaps}
        marks = [self.start, *(at for at, x in self._points[1:-1] if round(x, 6) in resumes)]
        out: list[Tick] = []
        for moment in marks:
            x = self.x(moment)
            if (out and x - out[-1].x < _TICK_ROOM) or x > 100 - _TICK_ROOM:
                continue
            out.append(Tick(x, "0" if moment == self.start else humanize.offset(moment - self.start), "start"))
        return tuple(out)


def linear(start: int, end: int) -> Scale:
    """An axis on which equal widths are equal times."""
    return Scale(((start, 0.0), (max(end, start + 1), 100.0)), ())


def folded(start: int, end: int, busy: Iterable[tuple[int, int]]) -> Scale:
    """An axis on which long stretches outside `busy` are narrow; a linear one when there are none worth folding.

    Each stretch, busy or not, is as wide as the logarithm of its length, so that neither a week of waiting nor a
    millisecond of work takes all of the axis.
    """
    end = max(end, start + 1)
    total = end - start
    gaps = [(a, b) for a, b in _gaps(start, end, busy) if b - a > total * _MIN_GAP_SHARE]
    idle = sum(b - a for a, b in gaps)
    if not gaps or idle < total * FOLD_SHARE or idle == total:
        return linear(start, end)
    stretches = _stretches(start, end, gaps)
    weight = 100.0 / sum(math.log2(1 + b - a) for a, b, _ in stretches)
    points, shown, x = [(start, 0.0)], [], 0.0
    for a, b, idle_here in stretches:
        width = math.log2(1 + b - a) * weight
        if idle_here:
            shown.append(
                Gap(
                    x,
                    width,
                    humanize.coarse(b - a) if b - a >= 1000 else humanize.duration(b - a),
                    humanize.duration(b - a),
                )
            )
        x += width
        points.append((b, x))
    return Scale(points, shown)


def _stretches(start: int, end: int, gaps: Sequence[tuple[int, int]]) -> list[tuple[int, int, bool]]:
    """The axis cut at the gaps: (start, end, whether it is a gap)."""
    out: list[tuple[int, int, bool]] = []
    at = start
    for a, b in gaps:
        if a > at:
            out.append((at, a, False))
        out.append((a, b, True))
        at = b
    if at < end:
        out.append((at, end, False))
    return out


def _gaps(start: int, end: int, busy: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    at = start
    for a, b in sorted((min(max(a, start), end), min(max(b, start), end)) for a, b in busy):
        if a > at:
            out.append((at, a))
        at = max(at, b)
    if at < end:
        out.append((at, end))
    return out


def _linear_ticks(total: int) -> tuple[Tick, ...]:
    step = _nice_step(total)
    return tuple(
        Tick(100.0 * at / total, humanize.duration(at) if at else "0", "start" if at == 0 else "middle")
        for at in range(0, int(total * 0.96) + 1, step)
    )


def _nice_step(total: int) -> int:
    for unit in (1, 1000, 60_000, 3_600_000, 86_400_000):
        for factor in (1, 2, 5, 10, 15, 20, 30, 50, 100, 200, 500):
            step = unit * factor
            if total / step <= _MAX_TICKS:
                return step
    return max(1, total // _MAX_TICKS)
