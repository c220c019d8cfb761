"""`holdfast doctor`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

import click
import msgspec
from rich.text import Text

from holdfast.base.findings import Finding, Level
from holdfast.cli import checks
from holdfast.cli.api import DEFAULT_URL, ServerApi
from holdfast.cli.console import out
from holdfast.cli.endpoint import examine
from holdfast.cli.settings import DEFAULT_STORE, store_url
from holdfast.dashboard.humanize import plural

_MARKS = {Level.FINE: ("ok", "green"), Level.NOTE: ("note", "yellow"), Level.WRONG: ("WRONG", "bold red")}


@click.command("doctor")
@click.argument("targets", nargs=-1, metavar="[TARGET]...")
@click.option(
    "-u",
    "--endpoint",
    "endpoints",
    multiple=True,
    metavar="URL",
    help="Look at an application's serve route instead of this machine. May be repeated.",
)
@click.option(
    "--store",
    envvar="HOLDFAST_STORE",
    default=DEFAULT_STORE,
    show_default=True,
    show_envvar=True,
    metavar="URL",
    help="The store to look at: a URL or a file.",
)
@click.option("--check", is_flag=True, help="Also let SQLite check the whole database file; it reads all of it.")
@click.option(
    "--url",
    envvar="INNGEST_BASE_URL",
    show_envvar=True,
    metavar="URL",
    help=f"The server that should be running.  [default: {DEFAULT_URL}, if one is]",
)
@click.option(
    "--timeout", type=click.FloatRange(0.1, 300), default=10.0, show_default=True, help="Seconds to wait for an answer."
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    targets: tuple[str, ...],
    endpoints: tuple[str, ...],
    store: str,
    check: bool,
    url: str | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Say what is wrong, and how to mend it.

    Looks at Python and SQLite, the store (its owner, version, size, and how fast the disk below it syncs), the keys in
    the environment, the server and its port, and whether the app (TARGET as for `holdfast dev`) can be imported. It
    changes nothing. With -u it asks an application's serve route who it is, and tells a missing route from a login in
    front of it, a web page, a time-out, or something that is no SDK at all.

    The exit status is 1 when something is wrong, 0 otherwise; notes don't count.

    \b
      holdfast doctor
      holdfast doctor app.py --store sqlite:///shop.db
      holdfast doctor -u http://127.0.0.1:8000/api/inngest
    """  # noqa: D301
    if endpoints:
        findings = [finding for endpoint in endpoints for finding in examine(endpoint, timeout)]
    else:
        findings = list(_machine(targets, store_url(store), url, timeout, check=check))
    if as_json:
        click.echo(json.dumps([msgspec.to_builtins(finding) for finding in findings], indent=2))
    else:
        _show(findings)
    if any(finding.level is Level.WRONG for finding in findings):
        ctx.exit(1)


def _machine(
    targets: tuple[str, ...], store: str, url: str | None, timeout: float, *, check: bool
) -> Iterator[Finding]:
    yield from checks.interpreter()
    yield from checks.store(store, check=check)
    yield from checks.keys(os.environ)
    api = ServerApi(url or DEFAULT_URL, timeout=timeout)
    yield from checks.server(api, urlsplit(api.url).port or 80, asked=url is not None)
    yield from checks.apps(targets)


def _show(findings: Iterable[Finding]) -> None:
    findings = list(findings)
    width = max(len(finding.subject) for finding in findings)
    margin = " " * (8 + width + 1)
    for finding in findings:
        mark, style = _MARKS[finding.level]
        text = finding.text.replace("\n", "\n" + margin)
        out().print(Text.assemble((f"{mark:>6}  ", style), f"{finding.subject:<{width}} ", text), soft_wrap=True)
        if finding.remedy:
            out().print(Text(f"{margin}-> {finding.remedy}", style="bold"), soft_wrap=True)
    bad = sum(finding.level is Level.WRONG for finding in findings)
    notes = sum(finding.level is Level.NOTE for finding in findings)
    summary = f"{plural(bad, 'thing is', 'things are')} wrong" if bad else "Nothing is wrong"
    out().print(f"\n{summary}" + (f", {plural(notes, 'note')}." if notes else "."))
