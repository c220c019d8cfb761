"""The `holdfast` command line. Each command lives in its own module and is imported only when it is used."""

from holdfast.cli.commands import main

__all__ = ["main"]
