"""Options about applications that are called over HTTP, shared by `dev` and `start` (protocol section 8, CLI)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from holdfast.cli.inngest_options import Addresses, discovery_is_off

F = TypeVar("F", bound=Callable[..., Any])


def application_options(*, poll_interval: float, discovery: bool) -> Callable[[F], F]:
    """The options, with the defaults of a command.

    Args:
        poll_interval: Seconds between two looks at every application; 0 looks again only where the last look failed.
        discovery: Whether applications on this machine are looked for, with an option that turns it off.
    """

    def decorate(fn: F) -> F:
        options = [
            click.option(
                "-u",
                "--sdk-url",
                "urls",
                multiple=True,
                type=Addresses(),
                envvar="INNGEST_SDK_URL",
                show_envvar=True,
                help="The serve route of an application, such as http://localhost:3000/api/inngest. May be repeated.",
            ),
            click.option(
                "--poll-interval",
                type=click.FloatRange(0),
                default=poll_interval,
                show_default=True,
                envvar="INNGEST_POLL_INTERVAL",
                metavar="SECONDS",
                help="How often applications are asked to register again; 0 asks those again that failed.",
            ),
            click.option("--no-poll", is_flag=True, envvar="INNGEST_NO_POLL", help="The same as --poll-interval 0."),
            click.option(
                "--retry-interval",
                type=click.FloatRange(0),
                envvar="INNGEST_RETRY_INTERVAL",
                metavar="SECONDS",
                help="A constant delay between the attempts of functions called over HTTP; 0 keeps their backoff.",
            ),
        ]
        if discovery:
            options.append(
                click.option(
                    "--discovery/--no-discovery",
                    default=True,
                    envvar="INNGEST_DISCOVERY",
                    show_default=True,
                    help="Look for applications on the usual ports of this machine.",
                )
            )
        for option in reversed(options):
            fn = option(fn)
        return fn

    return decorate


def workers_option(fn: F) -> F:
    """`--workers`."""
    return click.option(
        "--workers",
        type=click.IntRange(0, 256),
        default=0,
        envvar="HOLDFAST_WORKERS",
        show_envvar=True,
        metavar="N",
        help="Processes that execute functions, for more than one core; without, the server's own process does.",
    )(fn)


def application_settings(
    urls: tuple[str, ...], poll_interval: float, no_poll: bool, retry_interval: float | None, discovery: bool = False
) -> dict[str, Any]:
    """The fields of `ProcessSettings` that these options fill.

    Raises:
        click.BadParameter: an address is not one of HTTP.
    """
    source = click.get_current_context().get_parameter_source("discovery")
    if source is not ParameterSource.COMMANDLINE and discovery_is_off():
        discovery = False
    for url in urls:
        if not url.startswith(("http://", "https://")):
            raise click.BadParameter(f"{url!r} is no address; write it as http://localhost:3000/api/inngest", param_hint="-u")
    return {
        "urls": urls,
        "poll_interval": 0.0 if no_poll else poll_interval,
        "retry_interval": retry_interval or None,
        "discovery": discovery,
    }
