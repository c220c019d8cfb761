"""Writing what a group decided: at most one statement per table and kind of change, all sent in one go."""

from __future__ import annotations

from typing import Any

from holdfast.core.plan import Change, Tx
from holdfast.core.rows import ItemRow, LaneRow, Row
from holdfast.store.postgres import statements as sql
from holdfast.store.postgres.connection import Connection, Cursor
from holdfast.store.postgres.loading import Loader, Round
from holdfast.store.postgres.statements import Statements
from holdfast.store.postgres.values import Texts


class ConflictError(Exception):
    """Another node did something in between that changes what has to be decided: the group is to be decided again."""


class Writing:
    """One group's changes on their way.

    Args:
        statements: Those of the schema.
        tx: What was decided.
        loaded: What it was decided on.
    """

    def __init__(self, statements: Statements, tx: Tx, loaded: Loader) -> None:
        self._sql = statements
        self._tx = tx
        self._loaded = loaded
        self._follow = Round()
        self.unique = True
        """False once a row that must be new was there already."""

    def go(self, conn: Connection, step: Round) -> None:
        """Send the changes, and what `step` holds already before them.

        Raises:
            ConflictError: a row that wasn't there when it was looked for has appeared.
        """
        self._count_wakes()
        changes, appended = self._tx.changes(), self._tx.appended()
        # lanes last: they are what many nodes write
        classes = sorted({*changes, *appended}, key=lambda cls: (cls is LaneRow, cls is not ItemRow, cls.TABLE))
        for cls in classes:
            if cls in appended:
                self._insert(step, cls, appended[cls])
            if changes.get(cls):
                self._changes(step, cls, changes[cls])
        step.go(conn)
        self._follow.go(conn)

    def _count_wakes(self) -> None:
        """Write wake-ups that rose in place, so that whoever holds the lease learns of them."""
        changed = self._tx.changes().get(ItemRow, {})
        for key, before in self._loaded.woken.items():
            item = self._tx.row(ItemRow, key)
            if item is not None and key not in changed and item.woken != before:
                self._tx.put(item)

    def _changes(self, step: Round, cls: type[Row], changes: dict[Any, Change]) -> None:
        inserts: list[Row] = []
        firsts: list[Row] = []
        puts: list[Row] = []
        deletes: list[Any] = []
        row_of, absent = self._tx.row, self._loaded.absent
        for key in sorted(changes):
            change = changes[key]
            if change is Change.DELETE:
                deletes.append(key)
            elif change is Change.INSERT:
                inserts.append(row_of(cls, key))
            elif (cls, key) in absent:
                firsts.append(row_of(cls, key))
            else:
                puts.append(row_of(cls, key))
        if inserts:
            self._insert(step, cls, inserts)
        if firsts:
            self._insert_first(step, cls, firsts)
        if puts:
            self._put(step, cls, puts)
        if deletes and cls is LaneRow:
            # items that another node has let wait meanwhile are seen by a statement that begins once the lane is locked
            step.add(self._sql.sql(sql.LOCK_LANES), [Texts(deletes)])
            step.add(self._sql.sql(sql.DELETE_EMPTY_LANES), [Texts(deletes)])
        elif deletes:
            table = self._sql[cls]
            step.add(table.delete, table.keys(deletes))

    def _insert(self, step: Round, cls: type[Row], rows: list[Row]) -> None:
        table = self._sql[cls]

        def take(cursor: Cursor) -> None:
            if cursor.rowcount != len(rows):
                self.unique = False

        step.add(table.insert, table.values(rows), take)

    def _insert_first(self, step: Round, cls: type[Row], rows: list[Row]) -> None:
        table = self._sql[cls]

        def take(cursor: Cursor) -> None:
            if cursor.rowcount != len(rows):
                raise ConflictError(f"a row of {table.name} has appeared")

        step.add(table.insert, table.values(rows), take)

    def _put(self, step: Round, cls: type[Row], rows: list[Row]) -> None:
        table = self._sql[cls]
        if table.update is None:
            step.add(table.put, table.values(rows))
            return

        def take(cursor: Cursor) -> None:
            if cursor.rowcount != len(rows):
                # some of them are new
                self._follow.add(table.insert, table.values(rows))

        step.add(table.update, table.changed(rows), take)
