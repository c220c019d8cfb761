"""`holdfast limits`."""

from __future__ import annotations

from urllib.parse import quote

import click
import msgspec

from holdfast.base.clock import SystemClock
from holdfast.cli.api import ServerApi, signing_key_option, url_option
from holdfast.cli.console import out
from holdfast.cli.flow_tables import limits_view
from holdfast.cli.functions_api import Flow, all_functions, function_named, path_of


@click.command("limits")
@click.argument("function", required=False)
@click.option("--set", "changes", multiple=True, metavar="RULE=N", help="Change a limit at once. May be repeated.")
@click.option("--reset", "resets", multiple=True, metavar="RULE", help="Go back to the code's limit. May be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@url_option
@signing_key_option
def command(
    function: str | None,
    changes: tuple[str, ...],
    resets: tuple[str, ...],
    as_json: bool,
    url: str,
    signing_key: str | None,
) -> None:
    """Show limits and who waits for them, or change one.

    Shown are all rules of the functions, and how much of each limit is taken. A changed limit is in force at once, until
    it is changed again, also after a restart. FUNCTION is its id, or <app>-<id>; RULE is concurrency, concurrency-2,
    run-concurrency, throttle or rate-limit.

    \b
      holdfast limits
      holdfast limits fulfil --set concurrency=10
      holdfast limits fulfil --reset concurrency
    """  # noqa: D301
    if (changes or resets) and function is None:
        raise click.UsageError("name the function whose limit is to change")
    wanted = [_change(text) for text in changes]
    api = ServerApi(url, signing_key)
    if function is None:
        shown = [one for one in all_functions(api) if one.rules]
    else:
        shown = [_changed(api, function_named(api, function), wanted, resets)]
    if as_json:
        click.echo(msgspec.json.encode(shown))
    elif any(one.rules for one in shown):
        out().print(limits_view(shown, SystemClock().now()))
    else:
        what = f"{shown[0].function} has no rules" if shown else "No function has rules"
        click.echo(f"{what}: limits are declared in code.", err=True)


def _change(text: str) -> tuple[str, int]:
    rule, equals, number = text.partition("=")
    if not equals or not number.strip().isdecimal():
        raise click.UsageError(f"--set takes RULE=N, such as concurrency=10, not {text!r}")
    return rule.strip(), int(number)


def _changed(api: ServerApi, function: Flow, changes: list[tuple[str, int]], resets: tuple[str, ...]) -> Flow:
    for rule, limit in changes:
        function = api.put(_path(function, rule), Flow, {"limit": limit})
    for rule in resets:
        function = api.delete(_path(function, rule), Flow)
    return function


def _path(function: Flow, rule: str) -> str:
    return path_of(function, f"limits/{quote(rule, safe='')}")
