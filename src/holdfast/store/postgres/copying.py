"""A schema as the source or the target of a copy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import psycopg

from holdfast.base.errors import StoreError, StoreInUseError, StoreNotEmptyError
from holdfast.core.waiting import CHILD_LOOKUP
from holdfast.store.copying import LEFT_OUT, MAY_BE_FILLED, Values
from holdfast.store.migrate import functions_made, migrations, tables_made, too_new
from holdfast.store.postgres.connection import Connection, Settings, connect, discard, translate
from holdfast.store.postgres.migrating import alive, lock_key, migrate_postgres
from holdfast.store.postgres.values import from_text, to_text
from holdfast.store.sqlite.files import checked

# differs from SQLite by necessity: here the schemas of many share a database, and names have no table of their own
_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY tablename"
_COLUMNS = """
SELECT a.attname, a.atttypid FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_COUNTED = """
SELECT c.relname, a.attname FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND a.attidentity <> '' AND c.relkind = 'r'
"""
_GO_ON = """
SELECT setval(pg_get_serial_sequence('{s}.{table}', '{column}'), greatest(max({column}), 1), max({column}) IS NOT NULL)
FROM {s}.{table}
"""
_PATHS = """
INSERT INTO {s}.wait_paths (name, path)
SELECT DISTINCT split_part(lookup, E'\\x1a0', 1), split_part(lookup, E'\\x1a0', 2) FROM {s}.waits WHERE NOT starts_with(lookup, %s)
"""
_LEASE_COUNTS = """
INSERT INTO {s}.lease_counts (gate, used)
SELECT gate, count(*) FROM {s}.queue CROSS JOIN unnest(string_to_array(held, E'\\n')) AS held_gates (gate)
WHERE starts_with(gate, 'l') GROUP BY gate
"""
_MIGRATIONS = "SELECT number, checksum FROM {s}.migrations"
_PATIENT = """
SELECT set_config('idle_in_transaction_session_timeout', '0', true), set_config('statement_timeout', '0', true),
  set_config('client_min_messages', 'warning', true)
"""
_LOCK_WAIT = "SELECT set_config('lock_timeout', '5s', true)"


class PostgresRows:
    """The rows of a schema."""

    def __init__(self, conn: Connection, settings: Settings, schema: int) -> None:
        self._conn = conn
        self._settings = settings
        self._name = settings.schema
        self._prefix = f'"{settings.schema}"'
        self.shown = _where(settings)
        self.schema = schema
        """Number of its newest migration."""

    def tables(self) -> dict[str, tuple[str, ...]]:
        """Its tables, with the names of their columns."""
        with self._errors():
            return {name: tuple(self._types(name)) for name in _tables(self._conn, self._name)}

    def count(self, table: str) -> int:
        """How many rows a table has."""
        with self._errors():
            row = self._conn.execute(f'SELECT count(*) FROM {self._prefix}."{table}"'.encode()).fetchone()
        assert row is not None
        return int(row[0])

    def rows(self, table: str, columns: tuple[str, ...]) -> Iterator[Values]:
        """All rows of a table, one at a time."""
        names = ", ".join(f'"{column}"' for column in columns)
        statement = f'COPY (SELECT {names} FROM {self._prefix}."{table}") TO STDOUT (FORMAT BINARY)'
        with self._errors():
            types = self._types(table)
            with self._conn.cursor().copy(statement.encode()) as copy:
                copy.set_types([types[column] for column in columns])
                for row in copy.rows():
                    yield tuple(from_text(value) if type(value) is str else value for value in row)

    def _types(self, table: str) -> dict[str, int]:
        return dict(self._conn.execute(_COLUMNS, [self._name, table]).fetchall())

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Errors of this database under its name: there are two in a copy."""
        try:
            yield
        except psycopg.Error as error:
            raise translate(error, self._settings, self._conn) from error


class PostgresTarget(PostgresRows):
    """A schema that is being made."""

    def write(self, table: str, columns: tuple[str, ...], rows: Iterable[Values]) -> None:
        """Add rows."""
        names = ", ".join(f'"{column}"' for column in columns)
        with self._errors():
            with self._conn.cursor().copy(f'COPY {self._prefix}."{table}" ({names}) FROM STDIN'.encode()) as copy:
                for row in rows:
                    copy.write_row([to_text(value) if type(value) is str else value for value in row])
            self._conn.execute(f'ANALYZE {self._prefix}."{table}"'.encode())

    def derive(self) -> None:
        """Make what follows from the rows: tables that are not copied, and where counters go on."""
        made = _tables(self._conn, self._name)
        self._conn.execute(self._sql(_PATHS), [to_text(CHILD_LOOKUP)])
        if "lease_counts" in made:
            self._conn.execute(self._sql(_LEASE_COUNTS))
        for table, column in self._conn.execute(_COUNTED, [self._name]).fetchall():
            if table not in LEFT_OUT:
                self._conn.execute(self._sql(_GO_ON.replace("{table}", table).replace("{column}", column)))

    def _sql(self, statement: str) -> bytes:
        return statement.replace("{s}", self._prefix).encode()


@contextmanager
def source(settings: Settings, *, alone: bool) -> Iterator[PostgresRows]:
    """Read a schema as of one moment. Nothing of it is changed.

    Args:
        settings: Which.
        alone: Refuse while nodes are at work on it, and keep others out.

    Raises:
        StoreInUseError: nodes are at work on it.
        StoreError: it can't be read, or isn't one of holdfast's.
    """
    with _connected(settings, "copying from") as conn:
        conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        try:
            if alone:
                _keep_out(conn, settings, why="as what they did meanwhile would be missing in the copy")
            conn.execute("SET TRANSACTION READ ONLY")
            conn.execute(_PATIENT)
            yield PostgresRows(conn, settings, _schema_of(conn, settings))
        finally:
            if not conn.closed:
                conn.execute("ROLLBACK")


@contextmanager
def target(settings: Settings, schema: int, now: int, *, overwrite: bool = False) -> Iterator[PostgresTarget]:
    """Make a schema, or one that is empty anew, and commit it once all is in it.

    Args:
        settings: Which.
        schema: The number of the last migration to apply.
        now: The time.
        overwrite: Whether a schema with something in it is replaced.

    Raises:
        StoreInUseError: nodes are at work on it.
        StoreNotEmptyError: there is something in it.
        StoreError: it can't be written.
    """
    with _connected(settings, "copying to") as conn, conn.transaction():
        conn.execute(_PATIENT)
        # nodes that start now wait until this is over
        conn.execute("SELECT pg_advisory_xact_lock(%s)", [lock_key(settings.schema)])
        _make_room(conn, settings, overwrite=overwrite)
        migrate_postgres(conn, settings, now, up_to=schema)
        yield PostgresTarget(conn, settings, schema)


@contextmanager
def _connected(settings: Settings, purpose: str) -> Iterator[Connection]:
    conn = connect(settings, purpose)
    try:
        yield conn
    except psycopg.Error as error:
        raise translate(error, settings, conn) from error
    finally:
        discard(conn)


def _where(settings: Settings) -> str:
    return f"schema {settings.schema} of {settings.shown}"


def _tables(conn: Connection, schema: str) -> list[str]:
    return [str(row[0]) for row in conn.execute(_TABLES, [schema])]


def _schema_of(conn: Connection, settings: Settings) -> int:
    if "migrations" not in _tables(conn, settings.schema):
        raise StoreError(f"{_where(settings)} holds no holdfast: is that the right database, and ?schema=?")
    applied: dict[int, str] = dict(conn.execute(_in(settings, _MIGRATIONS)).fetchall())
    return checked(applied, migrations("postgres"), _where(settings))


def _keep_out(conn: Connection, settings: Settings, why: str) -> None:
    """Let no node enrol until the transaction ends.

    A node writes its row before it does anything else, so locking that table is enough. It takes no snapshot: that is taken
    after it, and shows everything that those did who were there before.
    """
    try:
        conn.execute(f'LOCK TABLE "{settings.schema}".nodes IN SHARE MODE'.encode())
    except psycopg.errors.UndefinedTable as error:
        raise StoreError(f"{_where(settings)} holds no holdfast: is that the right database, and ?schema=?") from error
    except psycopg.errors.InvalidSchemaName as error:
        raise StoreError(f"{_where(settings)} is not there: is that the right database, and ?schema=?") from error
    _refuse_if_used(conn, settings, why)


def _refuse_if_used(conn: Connection, settings: Settings, why: str) -> None:
    nodes = alive(conn, settings.schema)
    if nodes:
        raise StoreInUseError(
            f"{_where(settings)} is being used by {', '.join(nodes)}: stop them first, {why}. A node that was killed counts as "
            f"gone after {settings.lease_seconds:g} seconds"
        )


def _make_room(conn: Connection, settings: Settings, *, overwrite: bool) -> None:
    """Drop what holdfast has made, and only that: with nothing in it, or if it is to be replaced."""
    there = _tables(conn, settings.schema)
    ours = [table for table in there if table in {*tables_made(migrations("postgres")), "migrations"}]
    if not ours:
        return
    conn.execute(_LOCK_WAIT)
    if "nodes" in ours:
        conn.execute(f'LOCK TABLE "{settings.schema}".nodes IN ACCESS EXCLUSIVE MODE'.encode())
        _refuse_if_used(conn, settings, "as they would go on with what is gone")
    _refuse_if_newer(conn, settings, there)
    for table in ours if not overwrite else ():
        if (
            table not in MAY_BE_FILLED
            and conn.execute(_in(settings, f'SELECT 1 FROM {{s}}."{table}" LIMIT 1')).fetchone()
        ):
            raise StoreNotEmptyError(
                f"{_where(settings)} is not empty: there is something in {table}. Name another with ?schema=name in the URL, or "
                f'drop this one: DROP SCHEMA "{settings.schema}" CASCADE'
            )
    conn.execute(f"DROP TABLE {', '.join(_named(settings, table) for table in ours)}".encode())
    for function in sorted(functions_made(migrations("postgres"))):
        conn.execute(f"DROP FUNCTION IF EXISTS {_named(settings, function)}".encode())


def _refuse_if_newer(conn: Connection, settings: Settings, there: list[str]) -> None:
    # of a newer one not all tables are known
    if "migrations" not in there:
        return
    numbers = [row[0] for row in conn.execute(_in(settings, _MIGRATIONS))]
    known = migrations("postgres")[-1].number
    if max(numbers, default=0) > known:
        raise too_new(_where(settings), max(numbers), known)


def _named(settings: Settings, name: str) -> str:
    return f'"{settings.schema}"."{name}"'


def _in(settings: Settings, statement: str) -> bytes:
    return statement.replace("{s}", f'"{settings.schema}"').encode()
