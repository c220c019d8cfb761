"""The statements of the write path on PostgreSQL, made once per table from the row structs.

Differs from SQLite by necessity: tables are named with their schema, as a pooler keeps no search path; and each column is
one array, so that a statement's text doesn't depend on the number of rows and is prepared once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from operator import attrgetter
from typing import Any

import msgspec

from holdfast.core.rows import KEYS, LeaseCountRow, OutboxRow, Row
from holdfast.store.postgres.values import Blobs, Column, Floats, Ints, Texts, from_text
from holdfast.store.sqlite.statements import FIXED
from holdfast.store.sqlite.statements import PRIMARY_KEYS as SHARED_KEYS

astuple = msgspec.structs.astuple

PRIMARY_KEYS: dict[type[Row], tuple[str, ...]] = {**SHARED_KEYS, LeaseCountRow: ("gate",), OutboxRow: ("id",)}

_COLUMN_OF: dict[str, tuple[type[Column], str]] = {
    "int": (Ints, "int8[]"),
    "float": (Floats, "float8[]"),
    "str": (Texts, "text[]"),
    "bytes": (Blobs, "bytea[]"),
}


def _types(cls: type[Row]) -> dict[str, str]:
    """The name of each column's type, without None: from the annotations as text, as a field may be called `bytes`."""
    return {name: cls.__annotations__[name].partition(" | ")[0] for name in cls.__struct_fields__}


def _names(names: Sequence[str], table: str = "") -> str:
    prefix = f"{table}." if table else ""
    return ", ".join(f'{prefix}"{name}"' for name in names)


class Table:
    """The statements of one table in one schema, and the way of its rows there and back."""

    def __init__(self, cls: type[Row], schema: str) -> None:
        self.cls = cls
        self.name = f'"{schema}".{cls.TABLE}'
        self.key_of = KEYS[cls]
        types = _types(cls)
        self._all = tuple(types)
        self._keys = PRIMARY_KEYS[cls]
        self._columns = [_COLUMN_OF[types[name]] for name in self._all]
        self._key_columns = [_COLUMN_OF[types[name]] for name in self._keys]
        fixed = FIXED.get(cls)
        self._changing = tuple(name for name in self._all if fixed is None or name not in fixed)
        self._changing_columns = [_COLUMN_OF[types[name]] for name in self._changing]
        self._changing_of = attrgetter(*self._changing)
        self._text_positions = tuple(n for n, name in enumerate(self._all) if types[name] == "str")
        self.columns = _names(self._all)
        self.update = None if fixed is None else self._update()
        self.insert = self._insert()
        self.put = self._put()
        self.delete = self._delete()

    # -- parameters and rows ---------------------------------------------------------------------------------------------

    def values(self, rows: Sequence[Row]) -> list[Column]:
        """The parameters of `insert` and `put`."""
        parts = zip(*map(astuple, rows), strict=True)
        return [column(part) for (column, _), part in zip(self._columns, parts, strict=True)]

    def changed(self, rows: Sequence[Row]) -> list[Column]:
        """The parameters of `update`."""
        parts = zip(*map(self._changing_of, rows), strict=True)
        return [column(part) for (column, _), part in zip(self._changing_columns, parts, strict=True)]

    def keys(self, keys: Sequence[Any]) -> list[Column]:
        """The parameters of `select` and `delete`."""
        if len(self._keys) == 1:
            return [self._key_columns[0][0](keys)]
        return [column(part) for (column, _), part in zip(self._key_columns, zip(*keys, strict=True), strict=True)]

    def row(self, values: Sequence[Any]) -> Any:
        """The row of a result."""
        for position in self._text_positions:
            value = values[position]
            if value is not None and "\x1a" in value:
                values = list(values)
                values[position] = from_text(value)
        return self.cls(*values)

    def rows(self, found: Sequence[Sequence[Any]]) -> list[Any]:
        """The rows of a result."""
        return [self.row(values) for values in found]

    # -- statements --------------------------------------------------------------------------------------------------------

    def _arrays(self, columns: Sequence[tuple[type[Column], str]]) -> str:
        return ", ".join(f"%s::{kind}" for _, kind in columns)

    def _insert(self) -> bytes:
        """A taken key is passed over, which the row count tells."""
        arrays = self._arrays(self._columns)
        return (
            f"INSERT INTO {self.name} ({self.columns}) SELECT * FROM unnest({arrays}) ON CONFLICT DO NOTHING".encode()
        )

    def _put(self) -> bytes:
        updates = ", ".join(f'"{name}" = excluded."{name}"' for name in self._all if name not in self._keys)
        return (
            f"INSERT INTO {self.name} ({self.columns}) SELECT * FROM unnest({self._arrays(self._columns)}) "
            f"ON CONFLICT ({_names(self._keys)}) DO UPDATE SET {updates}"
        ).encode()

    def _update(self) -> bytes:
        updates = ", ".join(f'"{name}" = v."{name}"' for name in self._changing if name not in self._keys)
        (key,) = self._keys
        return (
            f"UPDATE {self.name} AS t SET {updates} FROM unnest({self._arrays(self._changing_columns)}) "
            f'AS v ({_names(self._changing)}) WHERE t."{key}" = v."{key}"'
        ).encode()

    def _delete(self) -> bytes:
        if len(self._keys) == 1:
            return f'DELETE FROM {self.name} WHERE "{self._keys[0]}" = ANY(%s::{self._key_columns[0][1]})'.encode()
        return f"DELETE FROM {self.name} AS t USING {self._wanted()} WHERE {self._same()}".encode()

    def _wanted(self) -> str:
        return f"unnest({self._arrays(self._key_columns)}) AS v ({_names(self._keys)})"

    def _same(self) -> str:
        return " AND ".join(f't."{name}" = v."{name}"' for name in self._keys)

    @cache  # noqa: B019 - tables live as long as the process
    def select(self, lock: str = "") -> bytes:
        """Read rows by primary key. Locked ones in the order of the key, so that no two nodes wait for each other."""
        tail = f" ORDER BY {_names(self._keys, 't')} FOR {lock} OF t" if lock else ""
        if len(self._keys) == 1:
            return (
                f"SELECT {self.columns} FROM {self.name} AS t "
                f'WHERE t."{self._keys[0]}" = ANY(%s::{self._key_columns[0][1]}){tail}'
            ).encode()
        names = _names(self._all, "t")
        return f"SELECT {names} FROM {self._wanted()} JOIN {self.name} AS t ON {self._same()}{tail}".encode()

    @cache  # noqa: B019 - as above
    def where(self, condition: str) -> bytes:
        """Read rows by a condition."""
        return f"SELECT {self.columns} FROM {self.name} WHERE {condition}".encode()


class Statements:
    """All statements of one schema."""

    def __init__(self, schema: str) -> None:
        self.schema = schema
        self.tables: dict[type[Row], Table] = {cls: Table(cls, schema) for cls in KEYS}

    def __getitem__(self, cls: type[Row]) -> Table:
        return self.tables[cls]

    def sql(self, text: str) -> bytes:
        """A statement of this schema: `{s}` in it stands before the name of each table."""
        return _in_schema(text, self.schema)


@cache
def _in_schema(text: str, schema: str) -> bytes:
    return text.replace("{s}", f'"{schema}".').encode()


BEGIN = b"BEGIN ISOLATION LEVEL READ COMMITTED"
CHECK_NODE = "SELECT NOT dead FROM {s}nodes WHERE id = %s FOR SHARE"
"""Groups of a node and its being declared dead exclude each other: once it is dead, nothing of it commits."""
DATABASE_TIME = b"SELECT (extract(epoch FROM clock_timestamp()) * 1000)::int8"
LOCK_NAMES = b"""
SELECT CASE WHEN alone = 1 THEN pg_advisory_xact_lock(bucket) ELSE pg_advisory_xact_lock_shared(bucket) END
FROM unnest(%s::int8[], %s::int8[]) AS v (bucket, alone)
"""
PATHS_OF = "SELECT name, path FROM {s}wait_paths WHERE name = ANY(%s::text[])"
ALL_PATHS = "SELECT name, path FROM {s}wait_paths"
ADD_PATHS = "INSERT INTO {s}wait_paths (name, path) SELECT * FROM unnest(%s::text[], %s::text[]) ON CONFLICT DO NOTHING"
MAX_SEQ = "SELECT run_id, max(seq) FROM {s}steps WHERE run_id = ANY(%s::bytea[]) GROUP BY run_id"
READY = """
WITH turn AS MATERIALIZED (
  SELECT {lanes} FROM {s}lanes
  WHERE (blocked = 0 OR blocked = 2 AND until <= %s) AND (lane = %s OR split_part(lane, '/', 1) = ANY(%s::text[]))
  ORDER BY turn LIMIT %s FOR NO KEY UPDATE SKIP LOCKED
), share AS (SELECT greatest(1, %s / greatest(1, count(*)))::int8 + 1 AS size FROM turn)
SELECT {turn}, share.size, {queue}
FROM turn CROSS JOIN share LEFT JOIN LATERAL (
  SELECT * FROM {s}queue WHERE state = 0 AND lane = turn.lane ORDER BY rank, id LIMIT share.size FOR UPDATE SKIP LOCKED
) AS q ON true
ORDER BY turn.turn, turn.lane, q.rank, q.id
"""
CANCELLED_WITH_CHILDREN = """
SELECT DISTINCT p.id FROM {s}runs p JOIN {s}runs c ON c.parent_id = p.id
WHERE p.status = 4 AND c.origin = 1 AND c.ended_at IS NULL
"""
MAX_LANES = 500
ALL_LANES = "SELECT {lanes} FROM {s}lanes ORDER BY turn LIMIT 10000"
LANES_AT = """
blocked = 1 AND gate = %s ORDER BY turn, lane LIMIT (
  SELECT CASE WHEN count(*) >= %s THEN max(place) END FROM (
    SELECT place FROM (
      SELECT lane, row_number() OVER (ORDER BY turn, lane) AS place FROM {s}lanes WHERE blocked = 1 AND gate = %s
    ) AS waiting
    WHERE lane = %s OR split_part(lane, '/', 1) = ANY(%s::text[]) ORDER BY place LIMIT %s
  ) AS served
)"""
"""So many lanes of these functions, and the others on the way; all of them when there are fewer."""
LOCK_LANES = "SELECT lane FROM {s}lanes WHERE lane = ANY(%s::text[]) ORDER BY lane FOR UPDATE"
"""Before lanes are deleted: whoever lets an item wait in one holds it until that is committed."""
DELETE_EMPTY_LANES = """
DELETE FROM {s}lanes l WHERE lane = ANY(%s::text[])
  AND NOT EXISTS (SELECT 1 FROM {s}queue q WHERE q.state = 0 AND q.lane = l.lane)
"""
NEXT_TIMER = "SELECT min(due) FROM {s}queue WHERE state = 1"
DUE_ALARMS = "at <= %s ORDER BY at, run_id LIMIT %s"
DUE_GATHERS = "due <= %s ORDER BY due LIMIT %s"
GATHERS_OF = "function_id = %s AND (%s::text IS NULL OR key = %s) ORDER BY due LIMIT %s"
EVENTS_SINCE = "name = %s AND id >= %s AND received_at >= %s ORDER BY id LIMIT 10000"
NEXT_ALARM = "SELECT least((SELECT min(at) FROM {s}alarms), (SELECT min(due) FROM {s}gathers))"
TRANSACTION_ID = b"SELECT pg_current_xact_id()::text"
OUTCOME = b"SELECT pg_xact_status(%s::xid8)"
OUTBOX = "id > %s ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED"
"""What another node is about to take is passed over."""
LEASED_BY_DEAD = "state = 2 AND id > %s AND NOT EXISTS (SELECT FROM {s}nodes n WHERE n.id = owner AND NOT n.dead) ORDER BY id LIMIT %s"
