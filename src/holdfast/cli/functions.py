"""`holdfast functions`."""

from __future__ import annotations

import click
import msgspec

from holdfast.base.clock import SystemClock
from holdfast.cli.api import ServerApi, signing_key_option, url_option
from holdfast.cli.console import out
from holdfast.cli.flow_tables import functions_table
from holdfast.cli.functions_api import all_functions


@click.command("functions")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@url_option
@signing_key_option
def command(as_json: bool, url: str, signing_key: str | None) -> None:
    """List functions, with what waits in line.

    It says whether they are paused, how many of their runs wait in line, since when and for what, and how many execute.
    `holdfast limits` shows their rules.

    \b
      holdfast functions
      holdfast functions --json
    """  # noqa: D301
    api = ServerApi(url, signing_key)
    if as_json:
        click.echo(msgspec.json.encode(api.get("/v1/flow", msgspec.Raw).data))
        return
    functions = all_functions(api)
    if functions:
        out().print(functions_table(functions, SystemClock().now()))
    else:
        click.echo("No functions yet. Run an app: holdfast dev app.py", err=True)
