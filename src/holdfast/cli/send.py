"""`holdfast send`."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from holdfast.base.clock import to_ms
from holdfast.cli.api import ServerApi, url_option
from holdfast.cli.commands import Problem

_KINDS = {
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}


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


def _data(text: str) -> msgspec.Raw:
    """The data as it was written, so that no number is changed on the way."""
    source, raw = "DATA", text.encode(errors="surrogateescape")
    if text == "-":
        source, raw = "standard input", sys.stdin.buffer.read()
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(f"{source} is not JSON: {error}{_quoting(raw)}") from None
    if not isinstance(value, dict):
        raise Problem(f'{source} must be a JSON object such as {{"order_id": "o1"}}, not {_KINDS[type(value)]}')
    return msgspec.Raw(raw)


def _quoting(raw: bytes) -> str:
    if raw.startswith(b"{") and b'"' not in raw and len(raw) > 2:
        return " (did the shell take the double quotes away? Put single quotes around the whole)"
    return f", in {raw[:60].decode(errors='replace')!r}" if raw else " (it is empty)"


def _moment(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Problem(f"--at {text!r} is not a time; write it as 2026-03-01T09:00:00+01:00") from None
    return to_ms(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
