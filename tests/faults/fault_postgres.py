"""A store on PostgreSQL, read from outside: a copy of its schema in an SQLite file, for a checker that knows only SQL."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import psycopg
from psycopg import sql

OWN_PARAMETERS = ("schema", "lease_seconds", "pooler")


def parts(url: str) -> tuple[str, str]:
    """What libpq understands of a store's URL, and the schema."""
    split = urlsplit(url)
    query = dict(parse_qsl(split.query))
    schema = query.get("schema", "holdfast")
    rest = {name: value for name, value in query.items() if name not in OWN_PARAMETERS}
    return split._replace(query=urlencode(rest)).geturl(), schema


def rows_of(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Read the store with plain SQL."""
    conninfo, schema = parts(url)
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute("SELECT set_config('search_path', %s, false)", [schema])
        return [tuple(map(_plain, row)) for row in conn.execute(statement.encode()).fetchall()]


def copy(url: str, file: Path) -> bool:
    """Copy all tables into a new SQLite file, as they are at one moment; whether there were any."""
    conninfo, schema = parts(url)
    with psycopg.connect(conninfo) as conn, closing(sqlite3.connect(file)) as target, target:
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        tables = conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", [schema]).fetchall()
        for (table,) in tables:
            cursor = conn.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(schema, table)))
            names = [column.name for column in cursor.description or ()]
            target.execute(f'CREATE TABLE "{table}" ({", ".join(names)})')
            marks = ", ".join("?" * len(names))
            target.executemany(f'INSERT INTO "{table}" VALUES ({marks})', [tuple(map(_plain, row)) for row in cursor])
    return bool(tables)


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == int(value) else float(value)
    return value if isinstance(value, int | float | str | bytes | None) else str(value)
