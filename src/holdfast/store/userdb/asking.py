"""What is asked of a caller's database in its own transaction: to take an event, and to do a step once."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from holdfast.base.errors import ConfigurationError
from holdfast.base.ids import ulid_text
from holdfast.store.userdb import tables
from holdfast.store.userdb.callers import Asking
from holdfast.store.userdb.tables import Dialect

Pending = tuple[bytes, bytes]
"""An event's id, and what is to be kept of it."""

_OUTBOX_CHANGED = '{"node":0,"signal":{"outbox":true}}'
"""What nodes are told (`store.postgres.nodes.Said`); no node has the number 0."""
_known_stores: set[tuple[int, int, str]] = set()
"""Stores that are known to be an app's, by the numbers of database and table."""


def put_events(events: Sequence[Pending], dialect: Dialect, app_id: str, schema: str | None) -> Asking[bool]:
    """Write events, to be accepted once the transaction has committed.

    Args:
        events: The events.
        dialect: The database's.
        app_id: The app that sends them.
        schema: Where holdfast's own tables are, if they are in this database; None where they can't be.

    Returns:
        Whether they are in holdfast's own outbox, and not in the application's.

    Raises:
        ConfigurationError: there is no outbox.
    """
    if dialect == "sqlite":
        yield from _put_in_sqlite(events)
        return False
    in_store, in_application, database, table = (
        yield tables.TABLES_OF_POSTGRES, {"store": f'"{schema}".outbox' if schema else "holdfast_outbox"}
    )[0]  # fmt: skip
    if schema and in_store and (yield from _belongs(schema, app_id, (database, table, app_id))):
        yield from _put_in_store(events, schema)
        return True
    if not in_application:
        raise ConfigurationError(_no_outbox(dialect))
    for event_id, event in events:
        yield tables.PUT_EVENT, {"id": ulid_text(event_id), "event": event.decode()}
    return False


def _put_in_sqlite(events: Sequence[Pending]) -> Asking[None]:
    """An error of a statement leaves SQLite's transaction as it is, so that nothing has to be asked before."""
    rows = [(ulid_text(event_id), event.decode()) for event_id, event in events]
    try:
        yield tables.PUT_EVENTS_IN_SQLITE, {"events": msgspec.json.encode(rows).decode()}
    except Exception as error:
        if _is_missing(error, tables.OUTBOX):
            raise ConfigurationError(_no_outbox("sqlite")) from error
        raise


def _belongs(schema: str, app_id: str, known: tuple[int, int, str]) -> Asking[bool]:
    if known not in _known_stores:
        rows = yield tables.APPS_OF_STORE.format(schema=f'"{schema}"'), {}
        if not rows or app_id not in json.loads(rows[0][0]):
            return False
        _known_stores.add(known)
    return True


def _put_in_store(events: Sequence[Pending], schema: str) -> Asking[None]:
    statement = tables.PUT_EVENT_IN_STORE.format(schema=f'"{schema}"')
    said = {"channel": f"holdfast_{schema}", "said": _OUTBOX_CHANGED}
    for event_id, event in events:
        yield statement, {"id": event_id, "event": event, **said}


def _no_outbox(dialect: Dialect) -> str:
    return (
        f"the database behind connection= has no table {tables.OUTBOX}, and events sent in its transactions are kept there: "
        f"register the database, as in App(..., databases=[...]), which makes the table at the next start, or put "
        f"holdfast.database_schema({dialect!r}) into a migration of yours"
    )


class Kept(msgspec.Struct, frozen=True):
    """The result of a step that was done before."""

    data: bytes
    """JSON."""
    type: str | None


def claim_step(run_id: str, step: str, now: int) -> Asking[Kept | None]:
    """Begin a step: None where it is to be done now, its result where it was."""
    claim = {"run_id": run_id, "step": step}
    if (yield tables.CLAIM_STEP, {**claim, "at": now}):
        return None
    result, kind = (yield tables.KEPT_STEP, claim)[0]
    return Kept(b"null" if result is None else result.encode(), kind)


def keep_step(run_id: str, step: str, data: bytes, kind: str | None) -> Asking[None]:
    """Keep a step's result, so that it commits with its effect."""
    yield tables.KEEP_STEP, {"run_id": run_id, "step": step, "result": data.decode(), "type": kind}


def missing_steps(error: BaseException, dialect: Dialect) -> ConfigurationError | None:
    """What a database's error means if it is that the table of steps is missing."""
    if _is_missing(error, tables.STEPS):
        return ConfigurationError(
            f"the step's database has no table {tables.STEPS}, where steps in it are marked as done: register the database, "
            f"as in App(..., databases=[...]), which makes the table at the next start, or put "
            f"holdfast.database_schema({dialect!r}) into a migration of yours"
        )
    return None


def _is_missing(error: BaseException, table: str) -> bool:
    """Whether an error says, in the words of any driver, that there is no such table."""
    said = str(error)
    return table in said and ("no such table" in said or "does not exist" in said)
