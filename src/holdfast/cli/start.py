"""`holdfast start`."""

from __future__ import annotations

from typing import Literal

import click

from holdfast.cli.applications import application_options, application_settings, workers_option
from holdfast.cli.inngest_options import inngest_options, store_of
from holdfast.cli.listening import listen
from holdfast.cli.log_output import LEVELS
from holdfast.cli.process import ServerProcess, run_process
from holdfast.cli.server_settings import server_settings
from holdfast.cli.settings import DEFAULT_PORT, DEFAULT_STORE, ProcessSettings, store_url


@click.command("start")
@click.argument("targets", nargs=-1, metavar="[TARGET]...")
@inngest_options
@click.option("--host", envvar="INNGEST_HOST", default="0.0.0.0", show_default=True, help="Address to listen on.")  # noqa: S104 - production, with keys
@click.option(
    "-p",
    "--port",
    type=click.IntRange(0, 65535),
    envvar="INNGEST_PORT",
    default=DEFAULT_PORT,
    show_default=True,
    help="0 takes a free one.",
)
@click.option(
    "--store",
    envvar="HOLDFAST_STORE",
    default=DEFAULT_STORE,
    show_default=True,
    show_envvar=True,
    metavar="URL",
    help="Where events and runs are kept: a URL or a file.",
)
@click.option(
    "--event-key",
    "event_keys",
    multiple=True,
    metavar="KEY",
    help="Instead of INNGEST_EVENT_KEY. May be repeated. Prefer the variable: arguments show in process lists.",
)
@click.option("--signing-key", metavar="KEY", help="Instead of INNGEST_SIGNING_KEY.")
@click.option(
    "--drain",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long running steps may take to finish when it stops.",
)
@workers_option
@application_options(poll_interval=0.0, discovery=False)
@click.option(
    "--allow-private-networks",
    envvar="HOLDFAST_ALLOW_PRIVATE_NETWORKS",
    show_envvar=True,
    metavar="LIST",
    help="Where on private networks applications may be called: `all`, or networks and host names such as "
    "10.0.0.0/8,app,*.internal. Addresses given with -u are allowed.",
)
@click.option(
    "-l", "--log-level", type=click.Choice(LEVELS), envvar="INNGEST_LOG_LEVEL", default="info", show_default=True
)
@click.option("--log-format", type=click.Choice(["plain", "json"]), default="plain", show_default=True)
def command(
    targets: tuple[str, ...],
    host: str,
    port: int,
    store: str,
    event_keys: tuple[str, ...],
    signing_key: str | None,
    drain: float,
    workers: int,
    urls: tuple[str, ...],
    poll_interval: float,
    no_poll: bool,
    retry_interval: float | None,
    allow_private_networks: str | None,
    log_level: str,
    queue_workers: int | None,
    sqlite_dir: str | None,
    postgres_uri: str | None,
    log_format: Literal["plain", "json"],
) -> None:
    """Run the server in production, with keys.

    TARGET is as for `holdfast dev`. The server refuses to start without INNGEST_EVENT_KEY, with which applications
    send events, and INNGEST_SIGNING_KEY, which opens the API and the dashboard; `holdfast keys new` makes both. Set
    HOLDFAST_DASHBOARD_PASSWORD to let people log in to the dashboard with a password instead of the signing key.

    SIGTERM lets running steps finish, up to --drain seconds; runs that sleep, wait or are cut short go on at the next
    start. Put TLS in front of it: a reverse proxy or your platform's load balancer. The health check is GET /health.

    \b
      holdfast keys new >> .env && set -a && . ./.env && set +a
      holdfast start shop.functions:app
      holdfast start app.py --store sqlite:////var/lib/shop/holdfast.db --log-format json
    """  # noqa: D301
    settings = ProcessSettings(
        mode="start",
        targets=targets,
        host=host,
        port=port,
        store=store_url(store_of(store, sqlite_dir, postgres_uri)),
        capacity=queue_workers,
        drain_seconds=drain,
        workers=workers,
        log_level=log_level,
        log_format=log_format,
        allow_private_networks=allow_private_networks or "",
        **application_settings(urls, poll_interval, no_poll, retry_interval),
    )
    server = server_settings(settings, event_keys, signing_key, allow_private_networks)
    with listen(host, port) as sock:
        run_process(ServerProcess(settings, server, sock))
