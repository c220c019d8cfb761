"""Work on a store that is killed at one point after another, each time in a process of its own, and then done to the end.

`python killed.py migrations <store url> <every>` dies at each statement of the migrations, or every nth; `{}` in the URL is the
number of the statement.
`python killed.py copying <source> <target> <points>` dies at these numbers of rows of a copy. Prints what it found as JSON.

Forked from a process without threads, so that a death costs milliseconds.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg

from holdfast.cli.stores import opened_source, opened_target
from holdfast.store import copying
from holdfast.store.migrate import migrate_sqlite, migrations, split_statements
from holdfast.store.postgres.connection import connect, parse_url
from holdfast.store.postgres.migrating import migrate_postgres, statements_of
from holdfast.store.sqlite.connection import database_path


def dies(work: Callable[[], None]) -> bool:
    """Whether a process that does this is killed on the way."""
    pid = os.fork()
    if not pid:
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    return os.WIFSIGNALED(status)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# -- migrations ------------------------------------------------------------------------------------------------------------


def migrate(url: str, connection: Any) -> None:
    """Bring the store up to date with a connection of this class."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(database_path(url), isolation_level=None, factory=connection)) as conn:
            migrate_sqlite(conn, 1, url)
        return
    settings = parse_url(url)
    with closing(connection.connect(settings.conninfo, autocommit=True)) as conn:
        migrate_postgres(conn, settings, 1)


def mortal(base: Any, point: int) -> Any:
    """A connection whose process is killed before its nth statement of a migration."""

    class Mortal(base):
        left = point

        def execute(self, query: Any, *more: Any, **options: Any) -> Any:
            text = query.decode() if isinstance(query, bytes) else query
            if text in STATEMENTS or text.startswith("INSERT INTO migrations"):
                if Mortal.left == 0:
                    die()
                Mortal.left -= 1
            return super().execute(query, *more, **options)

    return Mortal


STATEMENTS = {s for m in migrations("sqlite") for s in split_statements(m.sql)} | {
    s for m in migrations("postgres") for s in statements_of(m.sql)
}


def killed_migrations(url: str, every: int) -> dict[str, Any]:
    base = sqlite3.Connection if url.startswith("sqlite") else psycopg.Connection
    point = 0
    while dies(lambda: migrate(url.format(point), mortal(base, point))):
        assert not dies(lambda: migrate(url.format(point), base))
        point += every
    return {"end": point}


# -- copying ---------------------------------------------------------------------------------------------------------------


def copy(source_url: str, target_url: str) -> None:
    with opened_source(source_url, alone=True) as source, opened_target(target_url, source.schema) as target:
        copying.copy_rows(source, target, lambda table, rows: None)


def mortal_copy(source: str, target: str, point: int) -> None:
    """Copy, and be killed at the nth row that is written or compared."""
    add, count = copying.Digest.add, 0

    def counted(self: copying.Digest, row: copying.Values) -> None:
        nonlocal count
        count += 1
        if count == point:
            die()
        add(self, row)

    copying.Digest.add = counted
    copy(source, target)


def is_clean(url: str) -> bool:
    """Whether there is nothing."""
    if url.startswith("sqlite"):
        return not database_path(url).exists()
    settings = parse_url(url)
    with connect(settings, "test") as conn:
        return conn.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [settings.schema]).fetchone() is None


def killed_copies(source: str, target: str, points: list[int]) -> dict[str, Any]:
    clean = []
    for point in points:
        assert dies(lambda: mortal_copy(source, target, point))
        clean.append(is_clean(target))
    assert not dies(lambda: copy(source, target))
    return {"clean": clean}


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    found = (
        killed_migrations(arguments[0], int(arguments[1]))
        if what == "migrations"
        else killed_copies(arguments[0], arguments[1], json.loads(arguments[2]))
    )
    print(json.dumps(found))
