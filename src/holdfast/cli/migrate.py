"""`holdfast migrate`."""

from __future__ import annotations

import click

from holdfast.cli.console import say
from holdfast.cli.settings import store_url
from holdfast.cli.stores import copy_everything, opened_source, opened_target, show_copied
from holdfast.dashboard.humanize import plural
from holdfast.store.urls import without_secrets


@click.command("migrate")
@click.option("--from", "source", required=True, metavar="URL", help="The store to copy: a URL or a file.")
@click.option("--to", "target", required=True, metavar="URL", help="Where to: a URL, or a file that isn't there yet.")
def command(source: str, target: str) -> None:
    """Move to another database.

    From SQLite to PostgreSQL, back, or to another of the same kind. Copies everything: runs with their steps, also those
    that sleep, wait or are queued; events, ids that were seen, schedules, limits and what is counted of them, dead
    letters, log lines, the audit log, registered applications. In the end all of it is read back and compared.

    Stop every server and application that uses the source first; while one is at work, this refuses. The source is only
    read. The target has to be empty, and gets everything at once at the end: interrupted at any moment, it is as it was
    before, and the command can simply be run again.

    \b
      holdfast migrate --from sqlite:///holdfast.db --to postgresql://shop@db.internal/shop
      holdfast migrate --from postgresql://shop@db.internal/shop --to sqlite:///holdfast.db
    """  # noqa: D301
    source, target = store_url(source), store_url(target)
    if source == target:
        raise click.UsageError("--from and --to are the same store")
    with opened_source(source, alone=True) as old, opened_target(target, old.schema) as new:
        copied = copy_everything(old, new, "copying")
    show_copied(copied)
    rows = sum(one.rows for one in copied)
    say(
        f"Copied and compared {plural(rows, 'row')}. Start with --store {without_secrets(target)} now, and not with "
        f"{without_secrets(source)} again: it still has every run that was copied, and both would execute them."
    )
