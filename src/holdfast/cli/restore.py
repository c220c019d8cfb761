"""`holdfast restore`."""

from __future__ import annotations

from pathlib import Path

import click

from holdfast.base.errors import StoreNotEmptyError
from holdfast.cli.commands import Problem
from holdfast.cli.console import say
from holdfast.cli.settings import DEFAULT_STORE, store_url
from holdfast.cli.stores import copy_everything, file_of, opened_source, opened_target, page_progress
from holdfast.store.sqlite.copying import restore_file
from holdfast.store.urls import is_postgres, without_secrets


@click.command("restore")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--store",
    envvar="HOLDFAST_STORE",
    default=DEFAULT_STORE,
    show_default=True,
    show_envvar=True,
    metavar="URL",
    help="The store to restore it to: a URL or a file.",
)
@click.option("--force", is_flag=True, help="Replace what is in the store already.")
def command(file: Path, store: str, force: bool) -> None:
    """Bring a backup back.

    Makes a store of what `holdfast backup` wrote to FILE: the one that was backed up or another, on SQLite or on
    PostgreSQL. It has to be empty, unless --force says that what is in it may go. A store that somebody works on is
    refused in any case: stop them first.

    Runs go on from where they were at the time of the backup: steps that were recorded after it are executed again.

    \b
      holdfast restore /backup/holdfast.db --store sqlite:////var/lib/shop/holdfast.db
      holdfast restore shop.db --store postgresql://shop@db.internal/shop
    """  # noqa: D301
    url = store_url(store)
    try:
        if is_postgres(url):
            with (
                opened_source(f"sqlite:///{file}", alone=False) as source,
                opened_target(url, source.schema, overwrite=force) as target,
            ):
                copy_everything(source, target, "restoring")
        else:
            with page_progress("restoring") as told:
                restore_file(file, file_of(url), told, overwrite=force)
    except StoreNotEmptyError as error:
        raise Problem(f"{error}; or let --force replace it") from error
    say(f"{without_secrets(url)} is as {file} was. Start with it now.")
