"""`holdfast redrive`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from holdfast.base.clock import SystemClock, iso
from holdfast.cli.api import ServerApi, signing_key_option, url_option
from holdfast.cli.api_objects import DeadLetter, Run
from holdfast.cli.bulk import (
    Words,
    carry_out,
    checked_rate,
    chosen,
    confirm,
    filter_options,
    how_many,
    one_by_one,
)
from holdfast.cli.console import out, say
from holdfast.cli.rerun import edit_of, start_again
from holdfast.cli.run_tables import runs_table
from holdfast.cli.runs import list_runs
from holdfast.dashboard.humanize import number

WORDS = Words("redrive", "Run {} again?", "Redriving", "redriven", "dead letter")
_PAGE = 100
_SHOWN = 10
_NAMED = 1000
"""Up to so many letters, which run became which is printed."""


@click.command("redrive")
@click.argument("run_ids", nargs=-1, metavar="[RUN_ID]...")
@click.option("--input", "input_text", metavar="JSON", help="Other input for the step that failed, of one run.")
@click.option("--data", "data_text", metavar="JSON", help="Other data for the event, of one run.")
@filter_options(status=False)
@click.option("--fingerprint", metavar="TEXT", help="Those of one error, as the API and dashboard group them.")
@click.option("--limit", type=click.IntRange(1, _NAMED), metavar="N", help="At most this many, oldest failures last.")
@url_option
@signing_key_option
def command(
    run_ids: tuple[str, ...],
    input_text: str | None,
    data_text: str | None,
    function: str | None,
    event: str | None,
    error: str | None,
    since: str | None,
    until: str | None,
    everything: bool,
    rate: str | None,
    yes: bool,
    dry_run: bool,
    fingerprint: str | None,
    limit: int | None,
    url: str,
    signing_key: str | None,
) -> None:
    """Run dead letters again.

    A run that has failed for good is kept as a dead letter for 90 days. Redriving it makes a new run, linked to the
    old one, in which the steps that had finished are not done again. Redriving the same dead letter twice makes one
    run, so the command can be repeated safely.

    \b
      holdfast redrive 01JB8Z5T2M6W0Q4X9C3V7N1K8R
      holdfast redrive 01JB8Z5T2M6W0Q4X9C3V7N1K8R --input '["o1", 5]'
      holdfast redrive --function fulfil --since 1h
      holdfast redrive --all --yes --rate 10/s
    """  # noqa: D301
    where = {
        "function": function,
        "event": event,
        "error": error,
        "since": since,
        "until": until,
        "fingerprint": fingerprint,
    }
    found = chosen(run_ids, where, everything=everything)
    rate = checked_rate(rate)
    edit = edit_of(None, input_text, data_text, run_ids)
    api = ServerApi(url, signing_key)
    if run_ids:
        if not dry_run:
            one_by_one(run_ids, lambda run_id: start_again(api, run_id, WORDS, edit), WORDS)
        return
    total = how_many(api, WORDS, found)
    if not total:
        of = f" of {function}" if function else ""
        say(f"There are no dead letters{of}." if everything or function else "No dead letter matches.")
        return
    letters = _letters(api, found, min(total, limit or _NAMED))
    out().print(runs_table(letters[:_SHOWN], SystemClock().now()))
    total = total if limit is None else min(total, limit)
    if total > _SHOWN:
        say(f"... {number(total)} in all")
    if dry_run:
        return
    confirm(WORDS, total, yes=yes)
    named = [letter.run_id for letter in letters]
    try:
        carry_out(api, WORDS, found if limit is None else {"ids": named}, rate)
    finally:
        if total <= _NAMED:
            _print_new_runs(api, named)


def _letters(api: ServerApi, where: Mapping[str, Any], count: int) -> list[Run]:
    """The runs whose dead letters a filter matches, newest first, `count` at most."""
    query = {name: iso(value) if name in {"since", "until"} else value for name, value in where.items() if name != "all"}
    return list_runs(api, Run, {**query, "dead": "true"}, count)


def _print_new_runs(api: ServerApi, run_ids: Sequence[str]) -> None:
    """Which run each letter became. The newest are first on every page, so those are found at once."""
    wanted = set(run_ids)
    cursor: str | None = None
    while wanted:
        page = api.get("/v1/dead-letters", list[DeadLetter], state="redriven", limit=_PAGE, cursor=cursor)
        for letter in page.data:
            if letter.run_id in wanted:
                wanted.discard(letter.run_id)
                click.echo(f"{letter.run_id} -> {letter.redriven_as}")
        cursor = page.metadata.next_cursor
        if cursor is None or not page.data or page.data[-1].run_id < min(run_ids):
            return
