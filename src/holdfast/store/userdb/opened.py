"""An application's own database as the relay sees it: what waits in its outbox, and which of its steps are marked as done."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

from holdfast.base.errors import ConfigurationError, StoreBusyError, StoreError, StoreUnreachableError
from holdfast.base.ids import ulid_text
from holdfast.store.userdb import tables
from holdfast.store.userdb.address import Address
from holdfast.store.userdb.callers import Caller, Rows, Values, recognise

_BUSY_SECONDS = 10


class OpenedDatabase:
    """One connection, opened when it is needed and again after an error. All its methods block; one thread at a time calls.

    Args:
        address: Where the database is.
        create: Whether holdfast makes its tables where they are missing.
    """

    def __init__(self, address: Address, *, create: bool) -> None:
        self.address = address
        self._create = create
        self._conn: Any = None
        self._prepared = not create

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        conn, self._conn = self._conn, None
        if conn is not None:
            with contextlib.suppress(Exception):  # it may be broken, which is why it is closed
                conn.close()

    def prepare(self) -> None:
        """Make the tables, if that is wanted and has not been done.

        Raises:
            StoreError: the database can't be opened or written to. So do all others.
        """
        with self._using():
            pass

    def pending(self, after: str, limit: int) -> list[tuple[str, str]]:
        """Events that wait, by rising id: id and JSON of each.

        Args:
            after: The last id of those before.
            limit: How many at most.
        """
        with self._using() as caller:
            return [(row[0], row[1]) for row in self._ask(caller, tables.PENDING, {"after": after, "limit": limit})]

    def delete_events(self, ids: Sequence[str]) -> None:
        """Delete events that have been accepted."""
        self._delete(tables.DELETE_EVENT, [{"id": event_id} for event_id in ids])

    def old_steps(self, before: int, limit: int) -> list[tuple[str, str]]:
        """Steps that were done before a moment: run id and step of each."""
        floor = ulid_text(max(before, 0).to_bytes(6, "big") + bytes(10))
        asked = {"floor": floor, "before": before, "limit": limit}
        with self._using() as caller:
            return [(row[0], row[1]) for row in self._ask(caller, tables.OLD_STEPS, asked)]

    def delete_steps(self, steps: Sequence[tuple[str, str]]) -> None:
        """Forget that steps were done."""
        self._delete(tables.DELETE_STEP, [{"run_id": run_id, "step": step} for run_id, step in steps])

    def _delete(self, statement: str, all_values: Sequence[Values]) -> None:
        if not all_values:
            return
        with self._using() as caller:
            caller.execute("BEGIN" if self.address.dialect == "postgresql" else "BEGIN IMMEDIATE", {})
            for values in all_values:
                caller.execute(statement, values)
            caller.execute("COMMIT", {})

    @staticmethod
    def _ask(caller: Caller, statement: str, values: Values) -> Rows:
        rows: Rows = caller.execute(statement, values)
        return rows

    @contextlib.contextmanager
    def _using(self) -> Iterator[Caller]:
        try:
            if self._conn is None:
                self._conn = connect(self.address)
            caller = recognise(self._conn)
            if not self._prepared:
                for statement in tables.ddl(self.address.dialect):
                    caller.execute(statement, {})
                self._prepared = True
            yield caller
        except StoreError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise self._translated(error) from error

    def _translated(self, error: Exception) -> StoreError:
        said, where = str(error).strip().partition("\n")[0], self.address.shown
        if tables.OUTBOX in said or tables.STEPS in said:
            return StoreError(
                f"{where}: {said}; holdfast keeps two tables there: let it make them, or put "
                f"holdfast.database_schema({self.address.dialect!r}) into a migration of yours"
            )
        if isinstance(error, sqlite3.OperationalError) and "locked" in said:
            return StoreBusyError(f"{where} is locked by somebody who writes to it; holdfast looks again later")
        return StoreError(f"{where}: {said}")


def connect(address: Address) -> Any:
    """A connection each of whose statements is a transaction, unless one is begun.

    Raises:
        StoreError: the database can't be opened.
    """
    if address.path is not None:
        try:
            address.path.parent.mkdir(parents=True, exist_ok=True)
            return sqlite3.connect(address.path, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"can't open {address.shown}: {error}") from error
    import psycopg

    try:
        return psycopg.connect(address.conninfo, autocommit=True, connect_timeout=10, application_name="holdfast outbox")
    except psycopg.Error as error:
        said = str(error).strip().partition("\n")[0]
        raise StoreUnreachableError(f"{address.shown} can't be reached: {said}") from error


def require_driver(address: Address) -> None:
    """Refuse a database that nothing is installed for.

    Raises:
        ConfigurationError: it names what to install.
    """
    if address.dialect == "postgresql" and find_spec("psycopg") is None:
        raise ConfigurationError(
            f"{address.shown} is on PostgreSQL, and psycopg is not installed: pip install 'holdfast[postgres]'"
        )
