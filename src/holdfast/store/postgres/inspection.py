"""Looking at a schema from outside, without becoming a node and without writing to it."""

from __future__ import annotations

import json

import msgspec
import psycopg

from holdfast.store.migrate import migrations
from holdfast.store.postgres.connection import Connection, connect, parse_url, translate
from holdfast.store.postgres.migrating import compatible_from

_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = %s"
_SCHEMA = "SELECT max(number) FROM {s}migrations"
_APPS = "SELECT value FROM {s}meta WHERE key = 'apps'"
_NODES = "SELECT count(*) FROM {s}nodes WHERE NOT dead"


class SchemaReport(msgspec.Struct, frozen=True):
    """What a schema says about itself."""

    where: str
    """The URL without its secrets."""
    server: str
    """The server's version."""
    schema: int | None
    """Number of the newest migration applied; None when the schema isn't there."""
    known_schema: int
    """Number of the newest migration this holdfast has."""
    compatible_from: int
    """Number of the newest migration that a holdfast has to have to work with it."""
    apps: tuple[str, ...]
    """The applications it belongs to."""
    nodes: int
    """Nodes alive, as far as is known."""


def inspect_schema(url: str) -> SchemaReport:
    """Read a schema's condition.

    Raises:
        StoreError: the server can't be reached, or refuses.
        ConfigurationError: the URL is not understood.
    """
    settings = parse_url(url)
    conn = connect(settings, "doctor")
    try:
        return _report(conn, settings.shown, settings.schema)
    except psycopg.Error as error:
        raise translate(error, settings, conn) from error
    finally:
        conn.close()


def _report(conn: Connection, where: str, schema: str) -> SchemaReport:
    def one(statement: str) -> object:
        row = conn.execute(statement.replace("{s}", f'"{schema}".').encode()).fetchone()
        return None if row is None else row[0]

    tables = {row[0] for row in conn.execute(_TABLES.encode(), [schema])}
    number = one(_SCHEMA) if "migrations" in tables else None
    apps = one(_APPS) if "meta" in tables else None
    return SchemaReport(
        where=where,
        server=conn.info.parameter_status("server_version") or "unknown",
        schema=number if isinstance(number, int) else None,
        known_schema=migrations("postgres")[-1].number,
        compatible_from=compatible_from(conn, schema),
        apps=tuple(json.loads(apps)) if isinstance(apps, str) else (),
        nodes=int(str(one(_NODES))) if "nodes" in tables else 0,
    )
