"""Functions and their limits as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from holdfast.base.clock import to_ms
from holdfast.cli.functions_api import Flow, Rule
from holdfast.dashboard.humanize import ago

_SHOWN_KEYS = 5


def functions_table(functions: Sequence[Flow], now: int) -> RenderableType:
    """A list of functions with state and backlog; `now` in milliseconds since 1970."""
    table = _table("Function", "State", "In line", "Oldest", "Executing", "Waiting for")
    for one in functions:
        backlog = one.backlog
        table.add_row(
            Text(one.function),
            state_text(one),
            _count(backlog.queued, more=backlog.more),
            _ago(backlog.oldest, now),
            str(backlog.running),
            Text(", ".join(f"{rule} {count}" for rule, count in backlog.delayed.items())),
        )
    return table


def limits_view(functions: Sequence[Flow], now: int) -> RenderableType:
    """The rules of functions, and how they stand."""
    parts: list[RenderableType] = []
    for one in functions:
        title = Text.assemble((one.function, "bold"), "  ", state_text(one))
        table = _table("Rule", "Limit", "Taken", "Waiting", "Since", "What it says")
        for rule in one.rules:
            table.add_row(*_rule(rule, now))
            for key in rule.hot_keys[:_SHOWN_KEYS] if rule.key else ():
                table.add_row(
                    Text(f"  {key.key}", style="dim"), "", str(key.used), str(key.waiting or ""), _ago(key.since, now), ""
                )
        parts += [title, table]
    return Group(*parts)


def state_text(one: Flow) -> Text:
    """Whether a function is paused, and how."""
    if one.paused is None:
        return Text("running", style="green")
    return Text("paused" if one.paused == "hold" else "paused, skipping events", style="yellow")


def _rule(rule: Rule, now: int) -> tuple[Text, Text, str, str, str, Text]:
    limit = "" if rule.limit is None else str(rule.limit)
    changed = rule.limit != rule.declared
    return (
        Text(rule.name),
        Text(f"{limit} (code: {rule.declared})" if changed else limit, style="yellow" if changed else ""),
        "" if rule.used is None else str(rule.used),
        _count(rule.waiting, more=rule.more) if rule.waiting else "",
        _ago(rule.since, now),
        Text(rule.words),
    )


def _count(count: int, *, more: bool) -> str:
    return f"{count:,}+" if more else f"{count:,}"


def _ago(moment: str | None, now: int) -> str:
    return ago(to_ms(datetime.fromisoformat(moment)), now) if moment else ""


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold", justify="right" if column in {"In line", "Executing", "Taken", "Waiting"} else "left")
    return table
