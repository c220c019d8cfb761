"""`holdfast send`."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

import click

from holdfast.base.clock import to_ms
from holdfast.cli.api import ServerApi, url_option
from holdfast.cli.commands import Problem


@click.command("send")
@click.argument("name")
@click.argument("data", required=False, default="{}")
@click.option(
    "--id", "event_id", metavar="ID", help="Your id for it: the same id within 24 hours starts each function once."
)
@click.option(
    "--at", metavar="TIME", help="When its functions are to start: 2026-03-01T09:00:00+01:00; without a zone, UTC."
)
@click.option("--json", "as_json", is_flag=True, help="Print the server's answer as JSON.")
@url_option
@click.option(
    "--event-key",
    envvar="INNGEST_EVENT_KEY",
    show_envvar=True,
    metavar="KEY",
    help="Needed when the server runs in production. Prefer the variable: arguments show in process lists.",
)
def command(
    name: str, data: str, event_id: str | None, at: str | None, as_json: bool, url: str, event_key: str | None
) -> None:
    """Send an event.

    NAME is the event's name, DATA its data as a JSON object; `-` reads the data from standard input. The command
    returns when the event is on the server's disk; what it starts can be seen with `holdfast runs`.

    \b
      holdfast send shop/order.paid '{"order_id": "o1", "amount": 5}'
      holdfast send shop/order.paid '{"order_id": "o1", "amount": 5}' --id payment-123
      cat order.json | holdfast send shop/order.paid -
    """  # noqa: D301
    event: dict[str, Any] = {"name": name, "data": _data(data)}
    if event_id is not None:
        event["id"] = event_id
    if at is not None:
        event["ts"] = _moment(at)
    api = ServerApi(url)
    internal_id = api.send_event(event, (event_key or "").split(",")[0].strip() or None)
    if as_json:
        click.echo(json.dumps({"ids": [internal_id], "status": 200}))
        return
    click.echo(f"Sent {name}, event {internal_id}")
    click.echo(f"  {api.url}/events/{internal_id}")


def _data(text: str) -> dict[str, Any]:
    source = "DATA"
    if text == "-":
        source, text = "standard input", sys.stdin.read()
    try:
        value = json.loads(text)
    except ValueError as error:
        raise Problem(f"{source} is not JSON: {error}{_quoting(text)}") from None
    if not isinstance(value, dict):
        kinds = {
            list: "an array",
            str: "a string",
            int: "a number",
            float: "a number",
            bool: "a boolean",
            type(None): "null",
        }
        raise Problem(f'{source} must be a JSON object such as {{"order_id": "o1"}}, not {kinds[type(value)]}')
    return value


def _quoting(text: str) -> str:
    if text.startswith("{") and '"' not in text:
        return " (the shell took the double quotes away: put single quotes around the whole)"
    return f", in {text[:60]!r}" if text else " (it is empty)"


def _moment(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Problem(f"--at {text!r} is not a time; write it as 2026-03-01T09:00:00+01:00") from None
    return to_ms(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
