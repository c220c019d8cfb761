"""Output: results on standard output, everything else on standard error, plain when it isn't a terminal."""

from __future__ import annotations

import sys
from functools import lru_cache

from rich.console import Console
from rich.text import Text

# a pipe has no width: wide enough that no id or name is cut for the program that reads it
_PIPE_WIDTH = 240

_STATUS_STYLES = {
    "QUEUED": "yellow",
    "RUNNING": "blue",
    "WAITING": "cyan",
    "COMPLETED": "green",
    "FAILED": "red",
    "CANCELLED": "magenta",
    "SKIPPED": "dim",
}


@lru_cache(maxsize=1)
def out() -> Console:
    """Standard output."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)


@lru_cache(maxsize=1)
def err() -> Console:
    """Standard error."""
    return Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else _PIPE_WIDTH)


def say(message: str, style: str = "dim") -> None:
    """A line on standard error about what the command itself is doing; never markup, whatever is in it."""
    err().print(Text(message, style=style), soft_wrap=True)


def status_text(status: str) -> Text:
    """A run's status in its colour."""
    return Text(status, style=_STATUS_STYLES.get(status, ""))
