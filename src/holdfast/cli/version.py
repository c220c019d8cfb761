"""`holdfast version`."""

from __future__ import annotations

import json
import platform
import sys
from importlib import metadata

import click

from holdfast.base.version import __version__
from holdfast.store.sqlite.inspection import SQLITE_VERSION

_SHOWN = ("msgspec", "pydantic", "starlette", "uvicorn")


def versions() -> dict[str, str]:
    """Name to version of what decides holdfast's behaviour."""
    found = {"holdfast": __version__, "python": platform.python_version(), "sqlite": SQLITE_VERSION}
    found |= {name: metadata.version(name) for name in _SHOWN}
    return found | {"platform": f"{platform.system()} {platform.machine()}", "executable": sys.executable}


@click.command("version")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def command(as_json: bool) -> None:
    """Print versions, for a bug report.

    holdfast asks nobody whether there is a newer one.

    \b
      holdfast version
      holdfast version --json
    """  # noqa: D301
    found = versions()
    if as_json:
        click.echo(json.dumps(found))
        return
    width = max(map(len, found))
    for name, version in found.items():
        click.echo(f"{name:<{width}}  {version}")
