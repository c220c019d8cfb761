"""`holdfast crons`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

import click
import msgspec
from click.core import ParameterSource
from rich.console import RenderableType
from rich.text import Text

from holdfast.base.clock import SystemClock
from holdfast.cli.api import ServerApi, signing_key_option, url_option
from holdfast.cli.api_objects import Cron, Started
from holdfast.cli.console import out
from holdfast.cli.run_tables import since, styled_table

_SHOWN = 3


@click.group("crons", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON as the API answers it.")
@url_option
@signing_key_option
@click.pass_context
def command(ctx: click.Context, as_json: bool, url: str, signing_key: str | None) -> None:
    """List schedules, or fire one now.

    Times are in the zone of each schedule. MISSED counts the occurrences that passed while nothing was there to fire
    them and that its catch-up did not make up for.

    \b
      holdfast crons
      holdfast crons run report
      holdfast crons run shop-report "TZ=Europe/Paris 0 9 * * *"
    """  # noqa: D301
    ctx.obj = api = ServerApi(url, signing_key)
    if ctx.invoked_subcommand is not None:
        return
    if as_json:
        click.echo(msgspec.json.encode(api.get("/v1/crons", msgspec.Raw).data))
        return
    crons = api.get("/v1/crons", list[Cron]).data
    if crons:
        out().print(crons_table(crons, SystemClock().now()))
    else:
        click.echo('No schedules. Give a function one: @app.function(Cron("0 9 * * *", tz="Europe/Paris"))', err=True)


@command.command("run")
@click.argument("function")
@click.argument("schedule", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON as the API answers it.")
@url_option
@signing_key_option
@click.pass_context
def run(
    ctx: click.Context, function: str, schedule: str | None, as_json: bool, url: str, signing_key: str | None
) -> None:
    """Fire a schedule now, beside its regular occurrences.

    FUNCTION is report or shop-report; SCHEDULE, as `holdfast crons` lists it, may be left out where there is only one.
    """
    # a server that was named before `run` counts unless another is named after it
    named = any(ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE for name in ("url", "signing_key"))
    api = ServerApi(url, signing_key) if named else ctx.obj
    started = api.post("/v1/crons/run", Started, {"function": function, "schedule": schedule})
    click.echo(msgspec.json.encode(started) if as_json else started.run_id)


def crons_table(crons: Sequence[Cron], now: int) -> RenderableType:
    """A list of schedules; `now` in milliseconds since 1970."""
    rows = styled_table("Function", "Schedule", "Zone", "Next", "Last", "Missed")
    for cron in crons:
        coming = "\n".join(_local(moment, cron.zone) for moment in cron.next[:_SHOWN])
        missed = Text(str(cron.missed), style="yellow" if cron.missed else "")
        rows.add_row(Text(cron.function), Text(cron.schedule), cron.zone, coming, since(cron.last_at, now), missed)
    return rows


def _local(moment: str, zone: str) -> str:
    return datetime.fromisoformat(moment).astimezone(ZoneInfo(zone)).strftime("%a %d %b %H:%M")
