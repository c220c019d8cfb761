"""The two tables that holdfast keeps in an application's own database, and every statement about them.

Values are named (`:id`); `callers` and `opened` put that into each driver's words. Ids are ULIDs as text and bodies are
JSON as text, so that a person can read them with any client.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from holdfast.base.errors import ConfigurationError

Dialect: TypeAlias = Literal["sqlite", "postgresql"]

OUTBOX: Final = "holdfast_outbox"
STEPS: Final = "holdfast_steps"

_SQLITE_OUTBOX = (
    "CREATE TABLE IF NOT EXISTS holdfast_outbox (id TEXT PRIMARY KEY, event TEXT NOT NULL) STRICT, WITHOUT ROWID"
)
_SQLITE_STEPS = (
    "CREATE TABLE IF NOT EXISTS holdfast_steps (run_id TEXT NOT NULL, step TEXT NOT NULL, at INTEGER NOT NULL, "
    "result TEXT, type TEXT, PRIMARY KEY (run_id, step)) STRICT, WITHOUT ROWID"
)
_POSTGRES_OUTBOX = (
    'CREATE TABLE IF NOT EXISTS holdfast_outbox (id text COLLATE "C" PRIMARY KEY, event text NOT NULL)'
)
_POSTGRES_STEPS = (
    'CREATE TABLE IF NOT EXISTS holdfast_steps (run_id text COLLATE "C" NOT NULL, step text COLLATE "C" NOT NULL, '
    "at bigint NOT NULL, result text, type text, PRIMARY KEY (run_id, step))"
)
_DDL: dict[str, tuple[str, ...]] = {
    "sqlite": (_SQLITE_OUTBOX, _SQLITE_STEPS),
    "postgresql": (_POSTGRES_OUTBOX, _POSTGRES_STEPS),
}


def ddl(dialect: str) -> tuple[str, ...]:
    """The statements that make both tables where they are not there yet.

    Raises:
        ConfigurationError: the dialect is neither `sqlite` nor `postgresql`.
    """
    try:
        return _DDL[dialect]
    except KeyError:
        raise ConfigurationError(f"dialect {dialect!r} is not known; it is 'sqlite' or 'postgresql'") from None


# -- in the caller's transaction -----------------------------------------------------------------------------------------

TABLES_OF_POSTGRES = (
    "SELECT to_regclass(CAST(:store AS text)) IS NOT NULL, to_regclass('holdfast_outbox') IS NOT NULL, "
    "(SELECT oid FROM pg_database WHERE datname = current_database()), "
    "CAST(to_regclass(CAST(:store AS text)) AS oid)"
)
"""Whether holdfast's own outbox is in this database, and the application's; then numbers that tell databases apart."""
APPS_OF_STORE = "SELECT value FROM {schema}.meta WHERE key = 'apps'"
PUT_EVENT = "INSERT INTO holdfast_outbox (id, event) VALUES (:id, :event)"
PUT_EVENTS_IN_SQLITE = (
    "INSERT INTO holdfast_outbox (id, event) "
    "SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(:events)"
)
"""Any number of them at once: over aiosqlite each statement is some trips to another thread and back."""
PUT_EVENT_IN_STORE = (
    "WITH put AS (INSERT INTO {schema}.outbox (id, event) VALUES (:id, :event)) "
    "SELECT pg_notify(CAST(:channel AS text), CAST(:said AS text))"
)
"""The server tells the nodes when, and only when, the caller's transaction commits; the same words once."""

CLAIM_STEP = (
    "INSERT INTO holdfast_steps (run_id, step, at) VALUES (:run_id, :step, :at) "
    "ON CONFLICT (run_id, step) DO NOTHING RETURNING at"
)
"""Nothing is returned where the step has been done before. One that is being done in another transaction is waited for."""
KEPT_STEP = "SELECT result, type FROM holdfast_steps WHERE run_id = :run_id AND step = :step"
KEEP_STEP = "UPDATE holdfast_steps SET result = :result, type = :type WHERE run_id = :run_id AND step = :step"

# -- by the relay --------------------------------------------------------------------------------------------------------

PENDING = "SELECT id, event FROM holdfast_outbox WHERE id > :after ORDER BY id LIMIT :limit"
DELETE_EVENT = "DELETE FROM holdfast_outbox WHERE id = :id"
OLD_STEPS = (
    "SELECT run_id, step FROM holdfast_steps WHERE run_id < :floor AND at < :before ORDER BY run_id, step LIMIT :limit"
)
"""A run is older than its steps, and its id begins with its time: only the old end of the index is looked at."""
DELETE_STEP = "DELETE FROM holdfast_steps WHERE run_id = :run_id AND step = :step"
