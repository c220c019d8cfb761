"""The options, variables and configuration files of the `inngest` command, so that what starts it starts holdfast as well
(protocol section 8). What an option there sets and here doesn't exist is said, not passed over.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from holdfast.base.errors import ConfigurationError
from holdfast.cli.console import say

F = TypeVar("F", bound=Callable[..., Any])
_NAMES = ("inngest.json", "inngest.yaml", "inngest.yml")
_YES = frozenset({"1", "true", "yes", "on"})
_POOLED = "connections to PostgreSQL are few and stay open"
_CONNECT = "applications are called over HTTP; there is no gateway for workers"
_NOTHING: Mapping[str, str] = {
    "--tick": "nothing is polled for, so there is no interval to set",
    "--persist": "events and runs are always kept in the store",
    "--redis-uri": "the queue is in the store itself",
    "--postgres-max-idle-conns": _POOLED,
    "--postgres-max-open-conns": _POOLED,
    "--postgres-conn-max-idle-time": _POOLED,
    "--postgres-conn-max-lifetime": _POOLED,
    "--connect-gateway-port": _CONNECT,
    "--connect-gateway-grpc-ip": _CONNECT,
    "--connect-gateway-grpc-port": _CONNECT,
    "--connect-executor-grpc-ip": _CONNECT,
    "--connect-executor-grpc-port": _CONNECT,
    "--debug-api-port": "there is no debugging API",
}
"""Options that mean nothing here, and why."""


class Addresses(click.types.StringParamType):
    """URLs; of the environment, separated by commas or spaces."""

    name = "URL"

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        """The addresses of a variable."""
        return [part for part in re.split(r"[,\s]+", rv) if part]


def inngest_options(fn: F) -> F:
    """Add them to `dev` or `start`."""
    options = [
        click.option(
            "--config",
            type=click.Path(path_type=Path, dir_okay=False),
            is_eager=True,
            expose_value=False,
            callback=_read_config,
            envvar="INNGEST_CONFIG",
            metavar="FILE",
            help="Options from a JSON or YAML file; inngest.json is looked for upwards from here.",
        ),
        click.option(
            "--queue-workers",
            type=click.IntRange(1),
            envvar="INNGEST_QUEUE_WORKERS",
            metavar="N",
            help="How many runs are executed at once.",
        ),
        click.option("--sqlite-dir", envvar="INNGEST_SQLITE_DIR", hidden=True),
        click.option("--postgres-uri", envvar="INNGEST_POSTGRES_URI", hidden=True),
        *(
            click.option(
                name,
                is_flag=name == "--persist",
                default=None,
                hidden=True,
                expose_value=False,
                callback=_say_why,
                envvar="INNGEST_" + name[2:].replace("-", "_").upper(),
            )
            for name in _NOTHING
        ),
    ]
    for option in reversed(options):
        fn = option(fn)
    return fn


def store_of(store: str, sqlite_dir: str | None, postgres_uri: str | None) -> str:
    """The store, which these two may name as well."""
    if postgres_uri:
        return postgres_uri
    return f"sqlite:///{Path(sqlite_dir) / 'holdfast.db'}" if sqlite_dir else store


def discovery_is_off() -> bool:
    """Whether the environment says `--no-discovery`."""
    return os.environ.get("INNGEST_NO_DISCOVERY", "").strip().lower() in _YES


def _say_why(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    if value:
        name = param.opts[0]
        say(f"{name} means nothing here: {_NOTHING[name]}.")
    return value


# -- configuration files -----------------------------------------------------------------------------------------------


def _read_config(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
    path = value or _find(Path.cwd())
    if path is None:
        return
    found = _load(path)
    ctx.default_map = {**(ctx.default_map or {}), **dict(_defaults(ctx.command, found))}


def _find(start: Path) -> Path | None:
    places = [start, *start.parents, Path.home() / ".config" / "inngest"]
    return next((place / name for place in places for name in _NAMES if (place / name).is_file()), None)


def _load(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigurationError(f"the configuration file {path} can't be read: {error.strerror}") from error
    try:
        found = _yaml(path, text) if path.suffix in {".yaml", ".yml"} else json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"the configuration file {path} can't be understood: {error}") from error
    if not isinstance(found, dict):
        raise ConfigurationError(f"the configuration file {path} must hold an object of options")
    return found


def _yaml(path: Path, text: str) -> Any:
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError:
        raise ConfigurationError(
            f"{path} is YAML, and PyYAML is not installed; install it, or write the file as {path.with_suffix('.json').name}"
        ) from None
    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _defaults(command: click.Command, found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Values by parameter, for the keys that are options of the command; others are for commands of other programs."""
    named: dict[str, tuple[str, bool]] = {}
    for parameter in command.params:
        named |= {opt.lstrip("-"): (str(parameter.name), True) for opt in parameter.opts}
        named |= {opt.lstrip("-"): (str(parameter.name), False) for opt in parameter.secondary_opts}
    out = []
    for key, value in found.items():
        if key in named:
            name, straight = named[key]
            out.append((name, value if straight else not value))
    return out
