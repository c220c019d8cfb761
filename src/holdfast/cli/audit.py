"""`holdfast audit`."""

from __future__ import annotations

import click
import msgspec
from rich.table import Table
from rich.text import Text

from holdfast.cli.api import ServerApi, signing_key_option, url_option
from holdfast.cli.console import out
from holdfast.server.shapes import AuditEntry


@click.command("audit")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many entries.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@url_option
@signing_key_option
def command(limit: int, as_json: bool, url: str, signing_key: str | None) -> None:
    """List what was changed, by whom and from where.

    Every change from the dashboard, the API and this command line is there, the latest first. Entries can't be changed.

    \b
      holdfast audit
      holdfast audit --limit 1000 --json
    """  # noqa: D301
    api = ServerApi(url, signing_key)
    if as_json:
        click.echo(msgspec.json.encode(api.get("/v1/audit", msgspec.Raw, limit=limit).data))
        return
    entries = api.get("/v1/audit", list[AuditEntry], limit=limit).data
    if not entries:
        click.echo("Nothing has been changed yet.", err=True)
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("WHEN", "WHO", "FROM", "WHAT", "OF WHAT", "DETAIL"):
        table.add_column(name, overflow="fold")
    for one in entries:
        when = one.at[:19].replace("T", " ")
        table.add_row(*map(Text, (when, one.actor, one.origin, one.action, one.target, one.detail)))
    out().print(table)
