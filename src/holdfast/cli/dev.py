"""`holdfast dev`."""

from __future__ import annotations

import os
import threading
import webbrowser

import click

from holdfast.cli.applications import application_options, application_settings, workers_option
from holdfast.cli.console import say
from holdfast.cli.inngest_options import inngest_options, store_of
from holdfast.cli.listening import listen
from holdfast.cli.log_output import LEVELS
from holdfast.cli.process import ServerProcess, run_process
from holdfast.cli.server_settings import server_settings
from holdfast.cli.settings import DEFAULT_PORT, DEFAULT_STORE, ProcessSettings, store_url
from holdfast.cli.supervisor import Supervisor


@click.command("dev")
@click.argument("targets", nargs=-1, metavar="[TARGET]...")
@inngest_options
@click.option("--host", envvar="INNGEST_HOST", default="127.0.0.1", show_default=True, help="Address to listen on.")
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
    help="Where events and runs are kept: a URL, a file, or sqlite:// for memory, gone at each reload.",
)
@click.option("--reload/--no-reload", default=True, show_default=True, help="Start anew when a source file changes.")
@click.option("--open", "browser", is_flag=True, help="Open the dashboard in a browser.")
@click.option(
    "--drain",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long running steps may take to finish when it stops.",
)
@workers_option
@application_options(poll_interval=5.0, discovery=True)
@click.option(
    "-l", "--log-level", type=click.Choice(LEVELS), envvar="INNGEST_LOG_LEVEL", default="info", show_default=True
)
@click.pass_context
def command(
    ctx: click.Context,
    targets: tuple[str, ...],
    host: str,
    port: int,
    store: str,
    reload: bool,
    browser: bool,
    drain: float,
    workers: int,
    urls: tuple[str, ...],
    poll_interval: float,
    no_poll: bool,
    retry_interval: float | None,
    discovery: bool,
    log_level: str,
    queue_workers: int | None,
    sqlite_dir: str | None,
    postgres_uri: str | None,
) -> None:
    """Run an app with its dashboard, reloading as you edit.

    TARGET is a file (app.py), a module (shop.jobs), or either with the name of the App in it (app.py:app). All apps
    of a module are run when none is named, and several targets may be given. Without any, app.py, main.py and their
    like are looked for here; without an app the server still accepts events.

    The dashboard and the event API are on http://localhost:8288 and need no keys. Events and runs are kept in
    .holdfast/holdfast.db: runs that sleep or wait go on after a restart. When a source file changes, running steps
    get five seconds to finish, then the code is loaded anew; requests wait meanwhile. An app that can't be imported
    is shown here and on the dashboard, and loaded again on the next change.

    Applications written with an Inngest SDK, in any language, are called over HTTP: name their serve routes with -u,
    or let them be found. Set INNGEST_DEV=1 where they run.

    Ctrl-C lets running steps finish; a second Ctrl-C stops at once, and they run again at the next start.

    \b
      holdfast dev app.py
      holdfast dev shop.functions:app --port 9000
      holdfast dev orders.py mails.py --store sqlite:///both.db
      holdfast dev -u http://localhost:3000/api/inngest
      holdfast dev                              look for an app, or just run the server
    """  # noqa: D301
    if reload and os.name != "posix":
        say("Reloading needs a POSIX system; starting without it.")
        reload = False
    settings = ProcessSettings(
        mode="dev",
        targets=targets,
        host=host,
        port=port,
        store=store_url(store_of(store, sqlite_dir, postgres_uri)),
        capacity=queue_workers,
        reload=reload,
        drain_seconds=drain,
        workers=workers,
        log_level=log_level,
        browser=browser,
        **application_settings(urls, poll_interval, no_poll, retry_interval, discovery),
    )
    server = server_settings(settings)
    with listen(host, port) as sock:
        if reload:
            ctx.exit(Supervisor(settings, sock).run())

        def tell(directories: object, url: str | None) -> None:
            if url is not None and browser:
                threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

        run_process(ServerProcess(settings, server, sock, tell=tell))
