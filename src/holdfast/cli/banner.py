"""What a starting server says: where it listens, what it found, how to send a first event."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from holdfast.base.version import __version__
from holdfast.cli.loading import CANDIDATES, Loaded, shown_path
from holdfast.cli.settings import ProcessSettings
from holdfast.dashboard.humanize import plural
from holdfast.dashboard.samples import sample
from holdfast.sdk.app import App
from holdfast.sdk.functions import Function
from holdfast.store.urls import without_secrets

_MODES = {"dev": "development", "start": "production"}


def greeting(settings: ProcessSettings, url: str, loaded: Loaded) -> RenderableType:
    """The banner of a first start."""
    dev = settings.mode == "dev"
    places = Table.grid(padding=(0, 3))
    places.add_row(Text("Dashboard", style="dim"), Text(url, style="bold"))
    places.add_row(
        Text("Event API", style="dim"),
        Text(f"{url}/e/{'dev' if dev else '<event key>'}"),
        Text("any key works" if dev else ""),
    )
    places.add_row(Text("API docs", style="dim"), Text(f"{url}/docs"))
    places.add_row(Text("Store", style="dim"), Text(without_secrets(settings.store)))
    if settings.workers and loaded.apps:
        places.add_row(Text("Workers", style="dim"), Text(plural(settings.workers, "process", "processes")))
    parts: list[RenderableType] = [
        Text.assemble(("holdfast", "bold"), f" {__version__}, {_MODES[settings.mode]}"),
        Text(""),
        Padding(places, (0, 0, 0, 2), expand=False),
        Text(""),
    ]
    parts += [functions_of(app, loaded.sources[app.id]) for app in loaded.apps]
    if not loaded.apps and not loaded.problems:
        parts.append(_no_apps(settings))
    example = first_event(loaded.apps)
    if example is not None:
        parts += [Text("  Send a first event:", style="dim"), Text(f"    {example}{_url_flag(url)}"), Text("")]
    if settings.reload:
        parts.append(Text("  Edit and save to reload. Ctrl-C stops once running steps have finished.", style="dim"))
    else:
        parts.append(Text("  Ctrl-C or SIGTERM stops once running steps have finished.", style="dim"))
    return Group(*parts)


def functions_of(app: App, source: str) -> RenderableType:
    """An app and its functions with their triggers."""
    head = Text.assemble("  ", (app.id, "bold"), (f"  {source}", "dim"))
    if not app.functions:
        advice = "It has no functions. Name the module that defines them, so that they are imported too."
        return Group(head, Text(f"    {advice}\n", style="yellow"))
    table = Table.grid(padding=(0, 3))
    for function in app.functions.values():
        table.add_row(Text(function.id), Text(_triggers(function), style="cyan"), Text(_retries(function), style="dim"))
    return Group(head, Padding(table, (0, 0, 1, 4), expand=False))


def _triggers(function: Function[object, object]) -> str:  # type: ignore[type-var]
    return ", ".join(f"cron {trigger.cron}" if trigger.cron else str(trigger.event) for trigger in function.triggers)


def _retries(function: Function[object, object]) -> str:  # type: ignore[type-var]
    count = function.options.retries
    return plural(count, "retry", "retries") if count else "no retries"


def first_event(apps: Sequence[App]) -> str | None:
    """A command that sends the first event that starts something, with made-up data that fits its schema."""
    for app in apps:
        for function in app.functions.values():
            for trigger in function.triggers:
                if trigger.event and "*" not in trigger.event and not trigger.event.startswith("inngest/"):
                    data = {} if trigger.model is None else sample(trigger.model)
                    quoted = json.dumps(data, ensure_ascii=False).replace("'", "'\\''")
                    return f"holdfast send {trigger.event} '{quoted}'"
    return None


def reloaded(loaded: Loaded, changed: Sequence[str]) -> str:
    """The line after a reload."""
    functions = sum(len(app.functions) for app in loaded.apps)
    because = f"{shown_path(changed[0])} changed" if len(changed) == 1 else f"{plural(len(changed), 'file')} changed"
    return f"Reloaded, {because}: {plural(len(loaded.apps), 'app')}, {plural(functions, 'function')}."


def problem_text(problem: str) -> Text:
    """An app that can't be loaded."""
    return Text(f"\n{problem}\n", style="red")


def _no_apps(settings: ProcessSettings) -> RenderableType:
    if settings.mode == "start":
        return Text("  No app runs in this process. Name one: holdfast start app.py\n", style="yellow")
    looked = ", ".join(CANDIDATES)
    return Text(
        f"  No app in this directory: none of {looked} uses holdfast.\n"
        "  The server accepts events; name an app to run its functions: holdfast dev app.py\n",
        style="yellow",
    )


def _url_flag(url: str) -> str:
    return "" if url.endswith(":8288") else f" --url {url}"
