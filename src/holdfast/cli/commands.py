"""The command group: names, one-line summaries, and where each command is imported from when it is called."""

from __future__ import annotations

import difflib
import os
import sys
from importlib import import_module
from typing import Any, NoReturn

import click

from holdfast.base.errors import HoldfastError
from holdfast.base.masks import hide_credentials
from holdfast.base.version import __version__

COMMANDS = {
    "dev": ("holdfast.cli.dev", "Run an app with its dashboard, reloading as you edit."),
    "start": ("holdfast.cli.start", "Run the server in production, with keys."),
    "send": ("holdfast.cli.send", "Send an event."),
    "runs": ("holdfast.cli.runs", "List runs, or show one with its steps."),
    "cancel": ("holdfast.cli.cancel", "Cancel runs: those named, or all that match."),
    "rerun": ("holdfast.cli.rerun", "Run again: the same function for the same event, as a new run."),
    "crons": ("holdfast.cli.crons", "List schedules, or fire one now."),
    "redrive": ("holdfast.cli.redrive", "Run dead letters again."),
    "nodes": ("holdfast.cli.nodes", "List the nodes on the server's database."),
    "functions": ("holdfast.cli.functions", "List functions, with what waits in line."),
    "limits": ("holdfast.cli.limits", "Show limits and who waits for them, or change one."),
    "pause": ("holdfast.cli.pause", "Start no more runs of a function."),
    "resume": ("holdfast.cli.resume", "End a pause."),
    "flush": ("holdfast.cli.flush", "Start debounces and batches without waiting."),
    "audit": ("holdfast.cli.audit", "List what was changed, by whom and from where."),
    "keys": ("holdfast.cli.keys", "Make the keys that production needs."),
    "migrate": ("holdfast.cli.migrate", "Move to another database."),
    "backup": ("holdfast.cli.backup", "Back a store up, also while it is used."),
    "restore": ("holdfast.cli.restore", "Bring a backup back."),
    "doctor": ("holdfast.cli.doctor", "Say what is wrong, and how to mend it."),
    "version": ("holdfast.cli.version", "Print versions, for a bug report."),
}
"""Command name to (module with an attribute `command`, summary)."""


class Problem(click.ClickException):
    """A failure told as a sentence on standard error; the exit status is 1."""

    def show(self, file: Any = None) -> None:
        click.echo(f"{click.style('error:', fg='red', bold=True)} {self.format_message()}", err=True, file=file)


class LazyGroup(click.Group):
    """Knows its commands by name and imports one only to run it or to show its help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(COMMANDS[cmd_name][0]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name in COMMANDS or name.startswith("-"):
            return super().resolve_command(ctx, args)
        return self._refuse(ctx, name)

    def _refuse(self, ctx: click.Context, name: str) -> NoReturn:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        if close:
            remedy = f"did you mean `holdfast {close[0]}`?"
        elif name.endswith(".py"):
            remedy = f"to run that file, write `holdfast dev {name}`"
        else:
            remedy = f"the commands are {', '.join(COMMANDS)}"
        ctx.fail(f"there is no command {name!r}; {remedy}")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HoldfastError as error:
            raise Problem(hide_credentials(str(error))) from error
        except BrokenPipeError:
            # whoever read our output has seen enough (`holdfast runs | head`); point the descriptor elsewhere so
            # that the flush at exit doesn't complain
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return None


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Each command explains itself: holdfast COMMAND --help",
)
@click.version_option(__version__, message="holdfast %(version)s")
def main() -> None:
    """Durable execution and background jobs for Python web applications.

    Start with `holdfast dev app.py`: it runs the functions in that file, serves the dashboard on
    http://localhost:8288 and accepts events there.

    \b
      holdfast dev app.py                                   run it, reload as you edit
      holdfast send shop/order.paid '{"order_id": "o1"}'    send it an event
      holdfast runs                                         see what became of it
    """  # noqa: D301
