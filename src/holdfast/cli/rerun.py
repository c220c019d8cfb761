"""`holdfast rerun`."""

from __future__ import annotations

from typing import Any

import click

from holdfast.cli.api import ServerApi, signing_key_option, url_option
from holdfast.cli.api_objects import Started
from holdfast.cli.bulk import (
    Words,
    carry_out,
    checked_rate,
    chosen,
    confirm,
    filter_options,
    how_many,
    one_by_one,
    read_json,
    run_path,
)
from holdfast.cli.console import say
from holdfast.dashboard.humanize import plural

WORDS = Words("rerun", "Run {} again from the beginning?", "Starting again", "started again")


@click.command("rerun")
@click.argument("run_ids", nargs=-1, metavar="[RUN_ID]...")
@click.option("--from-step", metavar="STEP", help="Keep what was recorded before this step, and begin there.")
@click.option("--input", "input_text", metavar="JSON", help='For that step: \'["o1", 5]\', or {"args", "kwargs"}.')
@click.option("--data", "data_text", metavar="JSON", help="Other data for the event: an object.")
@filter_options()
@url_option
@signing_key_option
def command(
    run_ids: tuple[str, ...],
    from_step: str | None,
    input_text: str | None,
    data_text: str | None,
    function: str | None,
    statuses: tuple[str, ...],
    event: str | None,
    error: str | None,
    since: str | None,
    until: str | None,
    everything: bool,
    rate: str | None,
    yes: bool,
    dry_run: bool,
    url: str,
    signing_key: str | None,
) -> None:
    """Run again: the same function for the same event, as a new run.

    The old run stays as it is. Without --from-step every step is done again. What failed for good is better redriven,
    which keeps the finished steps.

    \b
      holdfast rerun 01JB8Z5T2M6W0Q4X9C3V7N1K8R
      holdfast rerun 01JB8Z5T2M6W0Q4X9C3V7N1K8R --from-step charge --input '["o1", 5]'
      holdfast rerun 01JB8Z5T2M6W0Q4X9C3V7N1K8R --data '{"order_id": "o2"}'
      holdfast rerun --function report --since 2026-03-01 --rate 10/s
    """  # noqa: D301
    where = {
        "function": function,
        "status": [status.upper() for status in statuses],
        "event": event,
        "error": error,
        "since": since,
        "until": until,
    }
    found = chosen(run_ids, where, everything=everything)
    rate = checked_rate(rate)
    edit = edit_of(from_step, input_text, data_text, run_ids)
    api = ServerApi(url, signing_key)
    if run_ids:
        if dry_run:
            say(f"{plural(len(run_ids), 'run')} would be started again.")
            return
        one_by_one(run_ids, lambda run_id: start_again(api, run_id, WORDS, edit), WORDS)
        return
    total = how_many(api, WORDS, found)
    if not total:
        say("No run matches that has ended.")
        return
    if dry_run:
        say(f"{plural(total, 'run')} would be started again.")
        return
    confirm(WORDS, total, yes=yes)
    carry_out(api, WORDS, found, rate)


def edit_of(
    from_step: str | None, input_text: str | None, data_text: str | None, run_ids: tuple[str, ...]
) -> dict[str, Any]:
    """The body of a rerun or redrive.

    Raises:
        click.UsageError: it is no JSON, or meant for other than one run.
    """
    given = {
        "from_step": from_step,
        "input": read_json("--input", input_text),
        "event_data": read_json("--data", data_text),
    }
    edit = {name: value for name, value in given.items() if value is not None}
    if edit and len(run_ids) != 1:
        raise click.UsageError("what is to be different belongs to one run: name it")
    return edit


def start_again(api: ServerApi, run_id: str, words: Words, edit: dict[str, Any]) -> str:
    """Rerun or redrive one run; the line that says so."""
    return f"{run_id} -> {api.post(run_path(run_id, words.action), Started, edit).run_id}"
