"""`holdfast resume`."""

from __future__ import annotations

import click

from holdfast.cli.api import ServerApi, signing_key_option, url_option
from holdfast.cli.functions_api import Flow, function_named, path_of


@click.command("resume")
@click.argument("function")
@url_option
@signing_key_option
def command(function: str, url: str, signing_key: str | None) -> None:
    """End a pause.

    FUNCTION is its id, or <app>-<id>.

    \b
      holdfast resume fulfil
    """  # noqa: D301
    api = ServerApi(url, signing_key)
    found = function_named(api, function)
    if found.paused is None:
        click.echo(f"{found.function} is not paused.")
        return
    now = api.post(path_of(found, "resume"), Flow)
    click.echo(f"{now.function} goes on.")
