"""What `holdfast doctor` looks at when the store is on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from holdfast.base.errors import ConfigurationError, StoreError
from holdfast.base.findings import Finding, fine, wrong


def postgres_store(url: str) -> Iterator[Finding]:
    """The server, the schema, and who uses it."""
    if find_spec("psycopg") is None:
        yield wrong("store", "it is on PostgreSQL, and psycopg is not installed", "pip install 'holdfast[postgres]'")
        return
    from holdfast.store.postgres.inspection import inspect_schema

    try:
        report = inspect_schema(url)
    except (ConfigurationError, StoreError) as error:
        yield wrong("store", str(error), "Correct --store or HOLDFAST_STORE, or start the server.")
        return
    if report.schema is None:
        yield fine("store", f"{report.where} has no such schema yet; the first start makes it (server {report.server})")
        return
    if report.compatible_from > report.known_schema:
        yield wrong(
            "store",
            f"{report.where} is from a newer holdfast (schema {report.schema}; this one knows {report.known_schema})",
            "Upgrade holdfast, or restore the backup made before the upgrade.",
        )
        return
    older = "; the next start brings it up to date" if report.schema < report.known_schema else ""
    if report.schema > report.known_schema:
        older = f", which newer nodes have added to; this one knows {report.known_schema} and works with it"
    yield fine("store", f"{report.where}, server {report.server}, schema {report.schema}{older}")
    yield fine("nodes", f"{report.nodes} alive; it belongs to app {', '.join(report.apps) or 'none yet'}")
