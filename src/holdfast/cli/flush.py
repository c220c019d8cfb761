"""`holdfast flush`."""

from __future__ import annotations

import click

from holdfast.cli.api import ServerApi, signing_key_option, url_option
from holdfast.cli.functions_api import Flushed, function_named, path_of
from holdfast.dashboard.humanize import plural


@click.command("flush")
@click.argument("function")
@click.option("--key", metavar="KEY", help="Only the debounce or batch of this key; all unless given.")
@url_option
@signing_key_option
def command(function: str, key: str | None, url: str, signing_key: str | None) -> None:
    """Start debounces and batches without waiting.

    Their runs start now, whatever quiet or further events they wait for. FUNCTION is its id, or <app>-<id>.

    \b
      holdfast flush sync-contacts
      holdfast flush sync-contacts --key customer-7
    """  # noqa: D301
    api = ServerApi(url, signing_key)
    found = function_named(api, function)
    body = {} if key is None else {"key": key}
    started = api.post(path_of(found, "flush"), Flushed, body).started
    of = "" if key is None else f" of key {key!r}"
    if started:
        click.echo(f"Started {plural(started, 'run')} of {found.function}.")
    else:
        click.echo(f"No debounce or batch{of} of {found.function} waits.")
