"""`holdfast redrive`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from urllib.parse import quote

import click
from rich.progress import track

from holdfast.base.clock import SystemClock
from holdfast.cli.api import ApiError, ServerApi, signing_key_option, url_option
from holdfast.cli.api_objects import DeadLetter, Started
from holdfast.cli.commands import Problem
from holdfast.cli.console import err, out, say
from holdfast.cli.run_tables import dead_letters_table
from holdfast.dashboard.humanize import plural

_PAGE = 100
_SHOWN = 10


@click.command("redrive")
@click.argument("run_ids", nargs=-1, metavar="[RUN_ID]...")
@click.option("--function", metavar="ID", help="All dead letters of this function: fulfil, or shop-fulfil.")
@click.option("--all", "everything", is_flag=True, help="All dead letters there are.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most this many, oldest failures last.")
@click.option("--yes", "-y", is_flag=True, help="Don't ask.")
@click.option("--dry-run", is_flag=True, help="Only say which they are.")
@url_option
@signing_key_option
def command(
    run_ids: tuple[str, ...],
    function: str | None,
    everything: bool,
    limit: int | None,
    yes: bool,
    dry_run: bool,
    url: str,
    signing_key: str | None,
) -> None:
    """Run dead letters again.

    A run that has failed for good is kept as a dead letter for 90 days. Redriving it makes a new run, linked to the
    old one, in which the steps that had finished are not done again. Redriving the same dead letter twice makes one
    run, so the command can be repeated safely.

    \b
      holdfast redrive 01JB8Z5T2M6W0Q4X9C3V7N1K8R
      holdfast redrive --function fulfil
      holdfast redrive --all --yes
    """  # noqa: D301
    if sum(map(bool, (run_ids, function, everything))) != 1:
        raise click.UsageError("name run ids, or --function ID, or --all; `holdfast runs --status FAILED` lists them")
    api = ServerApi(url, signing_key)
    if run_ids:
        chosen: Sequence[str] = run_ids
    else:
        letters = dead_letters(api, function, limit)
        if not letters:
            of = f" of {function}" if function else ""
            say(f"There are no dead letters{of}.")
            return
        out().print(dead_letters_table(letters[:_SHOWN], SystemClock().now()))
        if len(letters) > _SHOWN:
            counts = Counter(letter.function for letter in letters)
            by_function = ", ".join(f"{count} of {name}" for name, count in counts.most_common())
            say(f"... {plural(len(letters), 'dead letter')}: {by_function}")
        chosen = [letter.run_id for letter in letters]
    if dry_run:
        return
    if not run_ids and not yes:
        click.confirm(f"Run {plural(len(chosen), 'dead letter')} again?", abort=True)
    _redrive(api, chosen)


def dead_letters(api: ServerApi, function: str | None, limit: int | None) -> list[DeadLetter]:
    """Dead letters that were neither redriven nor discarded, page by page."""
    found: list[DeadLetter] = []
    cursor: str | None = None
    while limit is None or len(found) < limit:
        size = _PAGE if limit is None else min(_PAGE, limit - len(found))
        page = api.get("/v1/dead-letters", list[DeadLetter], function=function, state="dead", limit=size, cursor=cursor)
        found += page.data
        cursor = page.metadata.next_cursor
        if cursor is None:
            break
    return found


def _redrive(api: ServerApi, run_ids: Sequence[str]) -> None:
    refused: list[str] = []
    progress = track(run_ids, "Redriving", console=err(), transient=True, disable=len(run_ids) < _SHOWN)
    for run_id in progress:
        try:
            started = api.post(f"/v1/runs/{quote(run_id, safe='')}/redrive", Started)
        except ApiError as error:
            if error.status in {None, 401}:
                raise
            refused.append(f"{run_id}: {error}")
        else:
            click.echo(f"{run_id} -> {started.run_id}")
    for line in refused:
        say(line, "red")
    if refused:
        raise Problem(f"{plural(len(refused), 'run')} of {len(run_ids)} could not be redriven")
