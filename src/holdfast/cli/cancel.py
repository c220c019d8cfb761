"""`holdfast cancel`."""

from __future__ import annotations

import click

from holdfast.cli.api import ServerApi, signing_key_option, url_option
from holdfast.cli.bulk import (
    Words,
    carry_out,
    checked_rate,
    chosen,
    confirm,
    filter_options,
    how_many,
    one_by_one,
    run_path,
)
from holdfast.cli.console import say
from holdfast.dashboard.humanize import plural

WORDS = Words("cancel", "Cancel {}?", "Cancelling", "cancelled")


@click.command("cancel")
@click.argument("run_ids", nargs=-1, metavar="[RUN_ID]...")
@filter_options()
@url_option
@signing_key_option
def command(
    run_ids: tuple[str, ...],
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
    """Cancel runs: those named, or all that match.

    A step in flight finishes; its result is dropped. Runs that have ended are left alone. What matches is counted
    first, and you are asked. It is carried out by the server, and goes on there if this command is killed; Ctrl-C stops it.

    \b
      holdfast cancel 01JB8Z5T2M6W0Q4X9C3V7N1K8R
      holdfast cancel --function fulfil --status queued
      holdfast cancel --event shop/order.paid --since 1h --rate 100/s
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
    api = ServerApi(url, signing_key)
    if run_ids:
        if dry_run:
            say(f"{plural(len(run_ids), 'run')} would be cancelled.")
            return
        one_by_one(run_ids, lambda run_id: _cancel(api, run_id), WORDS)
        return
    total = how_many(api, WORDS, found)
    if not total:
        say("No run matches that could be cancelled.")
        return
    if dry_run:
        say(f"{plural(total, 'run')} would be cancelled.")
        return
    confirm(WORDS, total, yes=yes)
    carry_out(api, WORDS, found, rate)


def _cancel(api: ServerApi, run_id: str) -> str:
    api.remove(run_path(run_id))
    return f"{run_id} cancelled"
