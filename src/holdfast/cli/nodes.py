"""`holdfast nodes`."""

from __future__ import annotations

from collections.abc import Sequence

import click
import msgspec
from rich.console import RenderableType
from rich.text import Text

from holdfast.base.clock import SystemClock
from holdfast.cli.api import ServerApi, signing_key_option, url_option
from holdfast.cli.console import out
from holdfast.cli.run_tables import since, styled_table

_STYLES = {"alive": "green", "silent": "yellow", "stopped": "dim", "dead": "red"}


class Node(msgspec.Struct, frozen=True):
    """What is shown of a node; further fields are passed over, so newer servers are read too."""

    number: int
    name: str
    version: str
    state: str
    leads: bool
    started_at: str | None
    seen_at: str | None
    ended_at: str | None
    in_flight: int
    capacity: int


@click.command("nodes")
@click.option("--json", "as_json", is_flag=True, help="Print JSON as the API answers it.")
@url_option
@signing_key_option
def command(as_json: bool, url: str, signing_key: str | None) -> None:
    """List the nodes on the server's database.

    Those alive first, then those that ended within a day: stopped, or dead, which the others declare once its lease has run
    out. On SQLite there is one.

    \b
      holdfast nodes
      holdfast nodes --json
    """  # noqa: D301
    api = ServerApi(url, signing_key)
    if as_json:
        click.echo(msgspec.json.encode(api.get("/v1/nodes", msgspec.Raw).data))
        return
    out().print(nodes_table(api.get("/v1/nodes", list[Node]).data, SystemClock().now()))


def nodes_table(nodes: Sequence[Node], now: int) -> RenderableType:
    """A list of nodes; `now` in milliseconds since 1970."""
    table = styled_table("Node", "Name", "State", "In flight", "Version", "Started", "Last seen", "Ended")
    for node in nodes:
        state = Text(node.state, style=_STYLES.get(node.state, ""))
        if node.leads:
            state.append(", leads", style="bold")
        table.add_row(
            str(node.number),
            Text(node.name),
            state,
            f"{node.in_flight} of {node.capacity}" if node.capacity else str(node.in_flight),
            node.version,
            since(node.started_at, now) if node.started_at else "",
            since(node.seen_at, now) if node.seen_at else "",
            since(node.ended_at, now) if node.ended_at else "",
        )
    return table
