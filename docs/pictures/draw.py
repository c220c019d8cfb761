"""Draws the pictures of the documentation from `pictures.py`: `python docs/pictures/draw.py`. A test checks that they are current."""

from __future__ import annotations

from html import escape
from pathlib import Path

from pictures import PICTURES, Arrives, Bar, Dropped, Mark, Picture, Row, Span

HERE = Path(__file__).parent

WIDTH = 760
LEFT = 150
RIGHT = 24
TOP = 40
ROW = 40
BAR = 20
CHAR = 6.1
"""About the width of a letter, to keep labels inside."""

STYLE = """
  .ground { fill: #ffffff; stroke: #d0d7de; } .ink { fill: #1f2328; } .soft { fill: #59636e; } .grid { stroke: #d8dee4; }
  .axis, .span { stroke: #59636e; fill: none; }
  .run { fill: #2f6feb; } .wait { fill: #d8dee4; } .sleep { fill: #dbe9ff; stroke: #2f6feb; stroke-dasharray: 4 3; }
  .stopped { fill: #b42318; } .event { fill: #9a6700; } .dropped { stroke: #b42318; } .on { fill: #ffffff; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117; stroke: #3d444d; } .ink { fill: #f0f6fc; } .soft { fill: #9198a1; } .grid { stroke: #2a313c; }
    .axis, .span { stroke: #9198a1; }
    .wait { fill: #2f3742; } .sleep { fill: #132c57; stroke: #6ea0ff; }
    .event { fill: #d29922; } .dropped { stroke: #ff7b72; }
  }
  text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; } .small { font-size: 11px; }
"""
"""The ground is drawn too, so that a picture is readable wherever it stands."""


class Drawing:
    """One picture on its way to SVG."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.height = TOP + ROW * len(picture.rows) + 34
        self.parts: list[str] = []

    def x(self, time: float) -> float:
        """Where a moment is."""
        if not 0 <= time <= self.picture.until:
            raise ValueError(f"{self.picture.name}: {time} is not within 0 to {self.picture.until}")
        return round(LEFT + time / self.picture.until * (WIDTH - LEFT - RIGHT), 1)

    def y(self, row: int) -> float:
        """The middle of a row."""
        return TOP + ROW * row + ROW / 2

    def text(self, x: float, y: float, words: str, css: str = "ink", anchor: str = "start") -> None:
        """Words, which have to fit onto the picture."""
        width = len(words) * CHAR
        left = x if anchor == "start" else x - width if anchor == "end" else x - width / 2
        if left < 0 or left + width > WIDTH:
            raise ValueError(f"{self.picture.name}: {words!r} does not fit")
        self.parts.append(f'<text x="{x}" y="{y}" class="{css}" text-anchor="{anchor}">{escape(words)}</text>')

    def svg(self) -> str:
        """The whole of it."""
        picture = self.picture
        self.text(16, 24, picture.title, "ink")
        self._axis()
        for number, row in enumerate(picture.rows):
            self._row(number, row)
        body = "\n  ".join(self.parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height}" width="{WIDTH}" height="{self.height}"'
            f' role="img" aria-label="{escape(picture.title)}">\n<style>{STYLE}</style>\n'
            f'  <rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{self.height - 1}" rx="6"/>\n  {body}\n</svg>\n'
        )

    def _axis(self) -> None:
        picture = self.picture
        bottom = TOP + ROW * len(picture.rows)
        self.parts.append(f'<path class="axis" d="M{LEFT} {bottom}H{WIDTH - RIGHT}"/>')
        for time, words in picture.ticks:
            x = self.x(time)
            self.parts.append(f'<path class="grid" d="M{x} {TOP}V{bottom}"/>')
            self.text(x, bottom + 18, words, "soft small", "middle")

    def _row(self, number: int, row: Row) -> None:
        self.text(16, self.y(number) + 4, row.label, "ink")
        for mark in row.marks:
            self._mark(number, mark)

    def _mark(self, number: int, mark: Mark) -> None:
        y = self.y(number)
        match mark:
            case Arrives(time, label):
                self.parts.append(f'<circle class="event" cx="{self.x(time)}" cy="{y}" r="5"/>')
                self.text(self.x(time), y - 9, label, "soft small", "middle")
            case Dropped(time, label):
                x = self.x(time)
                self.parts.append(f'<path class="dropped" stroke-width="2.5" d="M{x - 5} {y - 5}l10 10m0 -10l-10 10"/>')
                self.text(x, y - 9, label, "soft small", "middle")
            case Bar(start, end, kind, label):
                self._bar(y, start, end, kind, label)
            case Span(start, end, label):
                a, b = self.x(start), self.x(end)
                self.parts.append(f'<path class="span" d="M{a} {y - 4}v8M{a} {y}H{b}M{b} {y - 4}v8"/>')
                self.text((a + b) / 2, y - 5, label, "soft small", "middle")

    def _bar(self, y: float, start: float, end: float, kind: str, label: str) -> None:
        a, b = self.x(start), self.x(end)
        if len(label) * CHAR > b - a:
            raise ValueError(f"{self.picture.name}: {label!r} does not fit into its bar")
        self.parts.append(
            f'<rect class="{kind}" x="{a}" y="{y - BAR / 2}" width="{round(b - a, 1)}" height="{BAR}" rx="3"/>'
        )
        if label:
            self.text((a + b) / 2, y + 4, label, "on small" if kind in {"run", "stopped"} else "ink small", "middle")


def draw(picture: Picture) -> str:
    """A picture as SVG."""
    return Drawing(picture).svg()


def main() -> None:
    """Write them all."""
    for picture in PICTURES:
        (HERE / f"{picture.name}.svg").write_text(draw(picture))


if __name__ == "__main__":
    main()
