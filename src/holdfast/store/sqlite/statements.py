"""The statements of the write path, made once per table and row count from the row structs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from holdfast.core.rows import (
    AlarmRow,
    AlertRow,
    AttemptRow,
    AuditRow,
    BatchEventRow,
    BulkRow,
    CronFireRow,
    CronRow,
    DeadLetterRow,
    DedupeRow,
    EventRow,
    GatherRow,
    ItemRow,
    LaneRow,
    LeaseCountRow,
    LogRow,
    MatchedWaitRow,
    NoteRow,
    ProgressRow,
    Row,
    RunCountRow,
    RunRow,
    SingletonRow,
    SkipRow,
    StepRow,
    ThrottleRow,
    WaitRow,
    WindowRow,
)

PRIMARY_KEYS: dict[type[Row], tuple[str, ...]] = {
    EventRow: ("id",),
    RunRow: ("id",),
    ItemRow: ("id",),
    StepRow: ("run_id", "key"),
    AttemptRow: ("run_id", "key", "attempt"),
    WaitRow: ("run_id", "key"),
    DedupeRow: ("function_id", "key"),
    SkipRow: ("event_id", "function_id"),
    MatchedWaitRow: ("event_id", "run_id", "key"),
    LaneRow: ("lane",),
    DeadLetterRow: ("run_id",),
    CronRow: ("function_id", "schedule"),
    CronFireRow: ("function_id", "schedule", "occurrence"),
    LogRow: ("run_id", "seq"),
    NoteRow: ("run_id", "seq"),
    ProgressRow: ("run_id",),
    AuditRow: ("id",),
    BulkRow: ("id",),
    RunCountRow: ("gate",),
    ThrottleRow: ("gate",),
    WindowRow: ("gate",),
    SingletonRow: ("function_id", "key"),
    GatherRow: ("function_id", "kind", "key"),
    BatchEventRow: ("run_id", "position"),
    AlarmRow: ("run_id", "kind"),
    AlertRow: ("function_id", "kind"),
}

IN_MEMORY: frozenset[type[Row]] = frozenset({LeaseCountRow})
"""Rows that are not written: no lease outlives its process here, so that counts of leases begin anew with it."""

FIXED: dict[type[Row], tuple[str, ...]] = {
    RunRow: (
        "function_id",
        "event_id",
        "queued_at",
        "lane",
        "priority",
        "version",
        "parent_id",
        "parent_step",
        "origin",
        "batch",
    ),
    ItemRow: ("run_id",),
}
"""Columns that never change once a row is there, of tables whose rows are put after they were inserted, as a rule: they
are updated without naming these, which would rewrite their index entries."""


def columns(cls: type[Row]) -> tuple[str, ...]:
    """Column names in the order of the struct's fields."""
    return cls.__struct_fields__


@cache
def insert(cls: type[Row], count: int) -> str:
    """Insert `count` rows; a taken key is passed over, which the row count tells."""
    return f"INSERT INTO {cls.TABLE} ({', '.join(columns(cls))}) VALUES {_values(cls, count)} ON CONFLICT DO NOTHING"


@cache
def update(cls: type[Row], count: int) -> str:
    """Update the columns that may change of `count` rows that are there: half the cost of inserting over them."""
    names = changing(cls)
    updates = ", ".join(f"{name} = v.column{position}" for position, name in enumerate(names[1:], 2))
    one = "(" + ", ".join("?" * len(names)) + ")"
    values = ", ".join([one] * count)
    return f"UPDATE {cls.TABLE} SET {updates} FROM (VALUES {values}) AS v WHERE {cls.TABLE}.{names[0]} = v.column1"


def changing(cls: type[Row]) -> tuple[str, ...]:
    """The key and the columns that `update` writes."""
    return tuple(name for name in columns(cls) if name not in FIXED[cls])


@cache
def put(cls: type[Row], count: int) -> str:
    """Insert or replace `count` rows."""
    keys = PRIMARY_KEYS[cls]
    updates = ", ".join(f"{name} = excluded.{name}" for name in columns(cls) if name not in keys)
    return (
        f"INSERT INTO {cls.TABLE} ({', '.join(columns(cls))}) VALUES {_values(cls, count)} "
        f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {updates}"
    )


@cache
def delete(cls: type[Row], count: int) -> str:
    """Delete `count` rows by primary key. Of a compound key the first column is given alone first (see `delete_values`):
    SQLite does not search an index by row values, and would look at every row of the table.
    """
    keys = PRIMARY_KEYS[cls]
    first = f"DELETE FROM {cls.TABLE} WHERE {keys[0]} IN ({', '.join('?' * count)})"
    if len(keys) == 1:
        return first
    return f"{first} AND ({', '.join(keys)}) IN (VALUES {_tuples(len(keys), count)})"


def delete_values(cls: type[Row], keys: Sequence[Any]) -> list[Any]:
    """The parameters of `delete`."""
    if len(PRIMARY_KEYS[cls]) == 1:
        return list(keys)
    return [key[0] for key in keys] + [value for key in keys for value in key]


@cache
def select(cls: type[Row], count: int) -> str:
    """Read `count` rows by primary key: a compound one by a join, as SQLite does not search an index by row values."""
    keys = PRIMARY_KEYS[cls]
    if len(keys) == 1:
        return f"SELECT {', '.join(columns(cls))} FROM {cls.TABLE} WHERE {keys[0]} IN ({', '.join('?' * count)})"
    names = ", ".join(f"t.{name}" for name in columns(cls))
    same = " AND ".join(f"t.{name} = v.column{position}" for position, name in enumerate(keys, 1))
    return f"SELECT {names} FROM (VALUES {_tuples(len(keys), count)}) AS v CROSS JOIN {cls.TABLE} AS t ON {same}"


def _tuples(width: int, count: int) -> str:
    return ", ".join(["(" + ", ".join("?" * width) + ")"] * count)


def _values(cls: type[Row], count: int) -> str:
    return _tuples(len(columns(cls)), count)


def select_where(cls: type[Row], condition: str) -> str:
    """Read rows by a condition."""
    return f"SELECT {', '.join(columns(cls))} FROM {cls.TABLE} WHERE {condition}"


WAITS_OF = select_where(WaitRow, "run_id = ?")
STEPS_OF = select_where(StepRow, "run_id IN ({marks})")
ITEMS_OF = select_where(ItemRow, "id >= ? AND id < ?")
EVENTS_SINCE = select_where(EventRow, "name = ? AND id >= ? AND received_at >= ? ORDER BY id LIMIT 10000")
DUE_TIMERS = select_where(ItemRow, "state = 1 AND due <= ? ORDER BY due LIMIT ?")
READY_IN_LANE = select_where(ItemRow, "state = 0 AND lane = ? ORDER BY rank, id LIMIT ?")
ALL_CRONS = select_where(CronRow, "TRUE")
RUNNING_BULKS = select_where(BulkRow, "state = 0 ORDER BY id")
ALL_ALERTS = select_where(AlertRow, "TRUE ORDER BY raised_at")
ALL_LANES = select_where(LaneRow, "TRUE")
LEASED_BY_OTHERS = select_where(ItemRow, "state = 2 AND owner <> ?")
CANCELLED_WITH_CHILDREN = (
    "SELECT DISTINCT p.id FROM runs p JOIN runs c ON c.parent_id = p.id "
    "WHERE p.status = 4 AND c.origin = 1 AND c.ended_at IS NULL"
)
NEXT_TIMER = "SELECT min(due) FROM queue WHERE state = 1"
EVENTS_OF_BATCH = select_where(BatchEventRow, "run_id = ? ORDER BY position")
DUE_ALARMS = select_where(AlarmRow, "at <= ? ORDER BY at, run_id LIMIT ?")
DUE_GATHERS = select_where(GatherRow, "due <= ? ORDER BY due LIMIT ?")
GATHERS_OF = select_where(GatherRow, "function_id = ?1 AND (?2 IS NULL OR key = ?2) ORDER BY due LIMIT ?3")
GATHER_OF_RUN = select_where(GatherRow, "run_id = ?")
NEXT_ALARM = "SELECT min(at) FROM (SELECT min(at) AS at FROM alarms UNION ALL SELECT min(due) FROM gathers)"
MAX_SEQ = "SELECT run_id, max(seq) FROM steps WHERE run_id IN ({marks}) GROUP BY run_id"
WAIT_LOOKUPS = "SELECT DISTINCT lookup FROM waits"
