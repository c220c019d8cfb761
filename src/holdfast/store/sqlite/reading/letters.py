"""Lists of dead letters."""

from __future__ import annotations

import sqlite3

import msgspec

from holdfast.base.ids import ulid_text
from holdfast.store.reads import DeadLetterView, LetterGroup
from holdfast.store.sqlite.reading import statements as sql
from holdfast.store.sqlite.reading.listing import MAX_LIMIT, Condition, one_of
from holdfast.store.sqlite.reading.views import LETTER_STATES, letter_view, raw_id


class LetterFilter(msgspec.Struct, frozen=True):
    """Which dead letters to list."""

    state: str | None
    function: str | None
    fingerprint: str | None


def list_letters(
    conn: sqlite3.Connection, where: LetterFilter, limit: int, cursor: str | None
) -> tuple[list[DeadLetterView], str | None]:
    """A page of dead letters and the cursor of the next."""
    limit = max(1, min(limit, MAX_LIMIT))
    below = None if cursor is None else raw_id(cursor)
    if (cursor is not None and below is None) or (where.state is not None and where.state not in LETTER_STATES):
        return [], None
    conditions = []
    if where.state is not None:
        conditions.append(Condition("d.state = ?", (LETTER_STATES.index(where.state),)))
    if where.fingerprint is not None:
        conditions.append(Condition("d.fingerprint = ?", (where.fingerprint,)))
    if where.function is not None:
        conditions.append(Condition(sql.LETTER_OF_FUNCTION, (where.function, where.function)))
    if below is not None:
        conditions.append(Condition("d.run_id < ?", (below,)))
    condition = Condition("TRUE").also(conditions)
    rows = conn.execute(sql.LETTERS.format(where=condition.text), (*condition.values, limit + 1)).fetchall()
    return [letter_view(row) for row in rows[:limit]], ulid_text(rows[limit - 1][0]) if len(rows) > limit else None


def letter(conn: sqlite3.Connection, run_id: bytes) -> DeadLetterView | None:
    """The dead letter of a run; None when the run isn't one."""
    row = conn.execute(sql.LETTERS.format(where="d.run_id = ?"), (run_id, 1)).fetchone()
    return None if row is None else letter_view(row)


def letter_groups(conn: sqlite3.Connection, where: LetterFilter, limit: int) -> list[LetterGroup]:
    """Dead letters by their error, largest group first."""
    limit = max(1, min(limit, MAX_LIMIT))
    if where.state not in LETTER_STATES:
        return []
    conditions = []
    if where.function is not None:
        conditions.append(Condition(sql.LETTER_OF_FUNCTION, (where.function, where.function)))
    condition = Condition("d.state = ?", (LETTER_STATES.index(where.state),)).also(conditions)
    groups = conn.execute(sql.LETTER_GROUPS.format(where=condition.text), (*condition.values, limit)).fetchall()
    if not groups:
        return []
    shown = condition.also([one_of("d.fingerprint", [row[0] for row in groups])])
    functions: dict[str, list[tuple[str, str, int]]] = {}
    for fingerprint, *function in conn.execute(sql.FUNCTIONS_OF_GROUPS.format(where=shown.text), shown.values):
        functions.setdefault(fingerprint, []).append((function[0], function[1], function[2]))
    return [
        LetterGroup(fingerprint, error, ulid_text(sample), count, first_at, last_at, tuple(functions[fingerprint]))
        for fingerprint, error, sample, count, first_at, last_at in groups
    ]
