"""`holdfast backup`."""

from __future__ import annotations

from pathlib import Path

import click

from holdfast.base.clock import SystemClock
from holdfast.cli.console import say
from holdfast.cli.settings import DEFAULT_STORE, store_url
from holdfast.cli.stores import copy_everything, file_of, opened_source, page_progress
from holdfast.dashboard.humanize import size
from holdfast.store.sqlite.copying import back_up, backup_target
from holdfast.store.urls import is_postgres


@click.command("backup")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--store",
    envvar="HOLDFAST_STORE",
    default=DEFAULT_STORE,
    show_default=True,
    show_envvar=True,
    metavar="URL",
    help="The store to back up: a URL or a file.",
)
def command(file: Path, store: str) -> None:
    """Back a store up, also while it is used.

    FILE becomes an SQLite database with everything that was committed at one moment, whatever the store is on:
    `holdfast restore` brings it back to either. It is checked as a whole and on disk before it takes FILE's name; a
    backup that was there before stays as it is until then.

    \b
      holdfast backup /backup/holdfast.db --store sqlite:////var/lib/shop/holdfast.db
      holdfast backup shop.db --store postgresql://shop@db.internal/shop
    """  # noqa: D301
    url = store_url(store)
    if is_postgres(url):
        with (
            opened_source(url, alone=False) as source,
            backup_target(file, source.schema, SystemClock().now()) as target,
        ):
            copy_everything(source, target, "backing up")
    else:
        with page_progress("backing up") as told:
            back_up(file_of(url), file, told)
    say(f"{file} is a backup, checked and on disk ({size(file.stat().st_size)}).")
