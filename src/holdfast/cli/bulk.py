"""What `cancel`, `rerun` and `redrive` share: named runs one by one, or all that a filter matches as a bulk operation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import click
import msgspec
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from holdfast.base.clock import SystemClock
from holdfast.base.codec import decode_json
from holdfast.base.errors import ConfigurationError
from holdfast.base.moment import moment
from holdfast.base.rate import rate_of
from holdfast.cli.api import ApiError, ServerApi
from holdfast.cli.api_objects import Bulk, BulkStarted
from holdfast.cli.commands import Problem
from holdfast.cli.console import err, say
from holdfast.dashboard.humanize import number, plural

F = TypeVar("F", bound=Callable[..., Any])
_EVERY_SECONDS = 0.25
_PAUSE = threading.Event()
"""Never set: waiting for it is a pause that Ctrl-C ends."""


class Words(msgspec.Struct, frozen=True):
    """How an action is spoken of."""

    action: str
    question: str
    """With `{}` for the runs: `Cancel {}?`."""
    doing: str
    done: str
    thing: str = "run"


def filter_options(*, status: bool = True) -> Callable[[F], F]:
    """The options that choose runs, and those of every bulk operation."""

    def decorate(command: F) -> F:
        options = [
            click.option("--function", metavar="ID", help="Those of this function: fulfil, or shop-fulfil."),
            click.option("--event", metavar="NAME", help="Those that this event started."),
            click.option("--error", metavar="TEXT", help="Those whose error contains this text."),
            click.option("--since", metavar="TIME", help="Queued since then: 1h (ago), 2026-03-01, RFC 3339."),
            click.option("--until", metavar="TIME", help="Queued before then."),
            click.option("--all", "everything", is_flag=True, help="All there are."),
            click.option("--rate", metavar="N/TIME", help="At most so many in so much time: 10/s, 100/m."),
            click.option("--yes", "-y", is_flag=True, help="Don't ask."),
            click.option("--dry-run", is_flag=True, help="Only say how many they are."),
        ]
        if status:
            several = click.option("--status", "statuses", multiple=True, metavar="STATUS", help="May be repeated.")
            options.insert(1, several)
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def chosen(run_ids: Sequence[str], where: Mapping[str, Any], *, everything: bool) -> dict[str, Any]:
    """The filter that the options make; empty when runs are named.

    Raises:
        click.UsageError: neither runs nor a filter are given, or more than one of them.
    """
    narrowed = {name: value for name, value in where.items() if value not in (None, "", (), [])}
    if sum(map(bool, (run_ids, narrowed, everything))) != 1:
        raise click.UsageError(
            "name run ids, or say which by --function, --since and the like, or --all; `holdfast runs` lists them"
        )
    for name in ("since", "until"):
        if name in narrowed:
            narrowed[name] = _moment(name, narrowed[name])
    return {"all": True} if everything else narrowed


def _moment(name: str, text: str) -> int:
    try:
        return moment(text, SystemClock().now())
    except ConfigurationError as error:
        raise click.UsageError(f"--{name}: {error}") from error


def checked_rate(rate: str | None) -> str | None:
    """The `--rate`, as it was given.

    Raises:
        click.UsageError: it isn't one.
    """
    try:
        if rate is not None:
            rate_of(rate)
    except ConfigurationError as error:
        raise click.UsageError(f"--rate: {error}") from error
    return rate


def read_json(name: str, text: str | None) -> Any:
    """The JSON of an option; None when it isn't given.

    Raises:
        click.UsageError: it is not JSON.
    """
    if text is None:
        return None
    try:
        return decode_json(text)
    except msgspec.DecodeError as error:
        raise click.UsageError(f"{name} is not JSON: {error}") from error


# -- named runs ------------------------------------------------------------------------------------------------------


def one_by_one(run_ids: Sequence[str], act: Callable[[str], str], words: Words) -> None:
    """Act on named runs and print a line for each.

    Raises:
        Problem: some could not be done; why is said of each.
    """
    refused: list[str] = []
    for run_id in run_ids:
        try:
            line = act(run_id)
        except ApiError as error:
            if error.status in {None, 401}:
                raise
            refused.append(f"{run_id}: {error}")
        else:
            click.echo(line)
    for line in refused:
        say(line, "red")
    if refused:
        raise Problem(f"{plural(len(refused), 'run')} of {len(run_ids)} could not be {words.done}")


def run_path(run_id: str, action: str = "") -> str:
    """The address of a run, or of something to do with it."""
    return f"/v1/runs/{quote(run_id, safe='')}" + (f"/{action}" if action else "")


# -- all that match --------------------------------------------------------------------------------------------------


def how_many(api: ServerApi, words: Words, where: Mapping[str, Any]) -> int:
    """How many a filter matches, as the server counts them."""
    asked = {"action": words.action, "filter": where, "dry_run": True}
    return api.post("/v1/bulk", BulkStarted, asked).total


def confirm(words: Words, total: int, *, yes: bool) -> None:
    """Ask, unless told not to; no answer is a no."""
    if not yes:
        click.confirm(words.question.format(plural(total, words.thing)), abort=True)


def carry_out(api: ServerApi, words: Words, where: Mapping[str, Any], rate: str | None) -> Bulk:
    """Begin a bulk operation and follow it to its end. Ctrl-C stops it.

    Raises:
        Problem: some could not be done.
    """
    asked = {"action": words.action, "filter": where} | ({} if rate is None else {"rate": rate})
    started = api.post("/v1/bulk", BulkStarted, asked)
    path = f"/v1/bulk/{started.id}"
    try:
        bulk = _follow(api, path, words)
    except KeyboardInterrupt:
        api.remove(path)
        bulk = api.get(path, Bulk).data
    said = f"{number(bulk.done)} {words.done}"
    said += f", {number(bulk.skipped)} had nothing left to do" if bulk.skipped else ""
    if bulk.state == "cancelled":
        raise Problem(f"stopped after {number(bulk.seen)} of {number(bulk.total)}: {said}")
    say(f"{said}.")
    if bulk.failed:
        raise Problem(f"{plural(bulk.failed, 'run')} of {number(bulk.total)} could not be {words.done}: {bulk.error}")
    return bulk


def _follow(api: ServerApi, path: str, words: Words) -> Bulk:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err(), transient=True, disable=not err().is_terminal) as progress:
        bulk = api.get(path, Bulk).data
        task = progress.add_task(words.doing, total=bulk.total)
        while bulk.state == "running":
            progress.update(task, completed=bulk.seen)
            _PAUSE.wait(_EVERY_SECONDS)
            bulk = api.get(path, Bulk).data
        progress.update(task, completed=bulk.seen)
    return bulk
