"""`holdfast pause`."""

from __future__ import annotations

import click

from holdfast.cli.api import ServerApi, signing_key_option, url_option
from holdfast.cli.functions_api import Flow, function_named, path_of


@click.command("pause")
@click.argument("function")
@click.option("--skip", is_flag=True, help="Let live runs go on; events that come start nothing and say so.")
@url_option
@signing_key_option
def command(function: str, skip: bool, url: str, signing_key: str | None) -> None:
    """Start no more runs of a function.

    Its runs wait in their queue until it is resumed, those that come and those that go on from a wait; also after a
    restart. FUNCTION is its id, or <app>-<id>.

    \b
      holdfast pause fulfil
      holdfast pause fulfil --skip
    """  # noqa: D301
    api = ServerApi(url, signing_key)
    mode = "skip" if skip else "hold"
    now = api.post(path_of(function_named(api, function), "pause"), Flow, {"mode": mode})
    what = "events that come start nothing" if skip else f"{now.backlog.queued} in line"
    click.echo(f"{now.function} is paused: {what}. Resume it with `holdfast resume {now.function}`.")
