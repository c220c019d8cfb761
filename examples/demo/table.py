"""The table that the demo ends with."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .expectations import Row


def print_table(console: Console, rows: Sequence[Row]) -> None:
    """One line for each expectation: what was expected, what was observed, where it was read."""
    table = Table(title="What was expected, and what was found from outside", title_justify="left")
    for heading in ("shows", "expectation", "read from", "expected", "observed", ""):
        table.add_column(heading)
    for row in rows:
        verdict = Text("ok", "green") if row.holds else Text("OFF", "bold red")
        observed = Text(row.observed, "" if row.holds else "red")
        table.add_row(
            row.shows, Text(row.expectation), Text(row.read_from, "dim"), Text(row.expected), observed, verdict
        )
    console.print(table)
    off = sum(not row.holds for row in rows)
    console.print(
        f"{len(rows) - off} of {len(rows)} expectations hold" + (f", [bold red]{off} do not[/]" if off else "")
    )
