"""What `migrate`, `backup` and `restore` share: stores by their URL, and a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from holdfast.base.clock import SystemClock
from holdfast.base.errors import ConfigurationError
from holdfast.cli.console import err, out
from holdfast.dashboard.humanize import number
from holdfast.store.copying import Copied, Source, Target, copy_rows, tables_to_copy
from holdfast.store.sqlite import copying as sqlite
from holdfast.store.sqlite.connection import database_path
from holdfast.store.urls import is_postgres


def file_of(url: str) -> Path:
    """The file of an SQLite store.

    Raises:
        ConfigurationError: the URL is not understood, or is one of a database in memory.
    """
    path = database_path(url)
    if path is None:
        raise ConfigurationError("a store in memory has no copy: name a file, sqlite:///path/to/file.db")
    return path


def opened_source(url: str, *, alone: bool) -> AbstractContextManager[Source]:
    """A store to be read; `alone` refuses while anybody executes on it."""
    if not is_postgres(url):
        return sqlite.source(file_of(url), alone=alone)
    _need_psycopg()
    from holdfast.store.postgres import copying as postgres
    from holdfast.store.postgres.connection import parse_url

    return postgres.source(parse_url(url), alone=alone)


def opened_target(url: str, schema: int, *, overwrite: bool = False) -> AbstractContextManager[Target]:
    """A store to be filled, with a schema of this number."""
    now = SystemClock().now()
    if not is_postgres(url):
        return sqlite.target(file_of(url), schema, now, overwrite=overwrite)
    _need_psycopg()
    from holdfast.store.postgres import copying as postgres
    from holdfast.store.postgres.connection import parse_url

    return postgres.target(parse_url(url), schema, now, overwrite=overwrite)


def _need_psycopg() -> None:
    if find_spec("psycopg") is None:
        raise ConfigurationError(
            "the store is on PostgreSQL, and psycopg is not installed: pip install 'holdfast[postgres]'"
        )


def copy_everything(source: Source, target: Target, doing: str) -> list[Copied]:
    """Copy all rows and compare them, with a progress bar."""
    # each row is written, and then read back and compared
    total = 2 * sum(map(source.count, tables_to_copy(source, target)))
    with progress(doing, total) as advance:
        return copy_rows(source, target, lambda table, rows: advance(rows, table))


@contextmanager
def progress(doing: str, total: int | None = None) -> Iterator[Callable[[int, str], None]]:
    """A bar on standard error, where that is a terminal. What it gives is called with how much more is done, and of what."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err(), transient=True, disable=not err().is_terminal) as bar:
        task = bar.add_task(doing, total=total)
        yield lambda done, of: bar.update(task, advance=done, description=f"{doing} {of}")


@contextmanager
def page_progress(doing: str) -> Iterator[Callable[[int, int], None]]:
    """The same for pages: what it gives is called with how many of how many are done."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err(), transient=True, disable=not err().is_terminal) as bar:
        task = bar.add_task(doing, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def show_copied(copied: Sequence[Copied]) -> None:
    """The tables that had rows, and how many."""
    table = Table("table", "rows", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for one in copied:
        if one.rows:
            table.add_row(one.table, number(one.rows))
    out().print(table)
