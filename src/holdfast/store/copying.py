"""Copying everything that one store holds into another one, whatever the two databases are.

What is copied follows from the schemas themselves: every table there is, unless it stands in `LEFT_OUT`. So a table that
comes with a later migration is copied without anybody thinking of it here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Protocol

import msgspec

from holdfast.base.errors import StoreError

Values = tuple[object, ...]
"""A row: its columns in the order in which they were asked for."""
Change = Callable[[Values], Values | None]
"""What becomes of a row on the way; None leaves it out."""
Told = Callable[[str, int], None]
"""Called with a table and how many more of its rows have been copied or compared."""

LEFT_OUT: Mapping[str, str] = {
    "migrations": "says how the schema was made, not what is in it",
    "nodes": "processes that execute; those of the copy enrol themselves",
    "node_leases": "as above",
    "duties": "as above",
    "wait_paths": "follows from the waits",
    "lease_counts": "follows from what queue items hold",
}
"""Tables that are not copied, and why."""

MAY_BE_FILLED = frozenset({*LEFT_OUT, "meta"})
"""Tables that have rows when nothing has happened yet."""
OF_ONE_SCHEMA = frozenset({"compatible_from"})
"""Keys in `meta` that are about the schema they stand in."""

_TELL_EVERY = 500
_MODULUS = 1 << 128


class Source(Protocol):
    """A store that is read, as it was at one moment."""

    shown: str
    """What it is called where people read it."""
    schema: int
    """Number of its newest migration."""

    def tables(self) -> dict[str, tuple[str, ...]]:
        """Its tables, with the names of their columns."""
        ...

    def count(self, table: str) -> int:
        """How many rows a table has."""
        ...

    def rows(self, table: str, columns: tuple[str, ...]) -> Iterator[Values]:
        """All rows of a table, one at a time."""
        ...


class Target(Source, Protocol):
    """An empty store that is filled, in one transaction of its own: it holds all in the end, or nothing."""

    def write(self, table: str, columns: tuple[str, ...], rows: Iterable[Values]) -> None:
        """Add rows."""
        ...

    def derive(self) -> None:
        """Make what follows from the rows: tables that are not copied, and where counters go on."""
        ...


class Copied(msgspec.Struct, frozen=True):
    """A table that was copied, and read back."""

    table: str
    rows: int


class Digest:
    """The number of rows, and a sum over their hashes: the same for the same rows in any order."""

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def add(self, row: Values) -> None:
        """Take one more row."""
        self.rows += 1
        packed = msgspec.msgpack.encode(row)
        self._sum = (self._sum + int.from_bytes(blake2b(packed, digest_size=16).digest(), "big")) % _MODULUS

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Digest) and (self.rows, self._sum) == (other.rows, other._sum)

    __hash__ = None  # type: ignore[assignment]


def tables_to_copy(source: Source, target: Source) -> dict[str, tuple[str, ...]]:
    """The tables that both have and that are copied, with their columns.

    Raises:
        StoreError: one of them has a table or a column that the other hasn't.
    """
    from_tables = {name: columns for name, columns in source.tables().items() if name not in LEFT_OUT}
    to_tables = {name: columns for name, columns in target.tables().items() if name not in LEFT_OUT}
    differing = [
        name
        for name in sorted({*from_tables, *to_tables})
        if set(from_tables.get(name, ())) != set(to_tables.get(name, ()))
    ]
    if differing:
        raise StoreError(
            f"{source.shown} and {target.shown} differ in {', '.join(differing)}: were tables changed by hand, or has a tool "
            "put its own there?"
        )
    return from_tables


def copy_rows(source: Source, target: Target, told: Told) -> list[Copied]:
    """Copy all tables, then read the copy back and compare it row by row, by a digest.

    Args:
        source: Where from. Its schema has the same number as the target's.
        target: Where to; it is empty.
        told: Hears of the progress; each row counts twice, once written and once compared.

    Raises:
        StoreError: the schemas differ, or what was read back isn't what was written.
    """
    tables = tables_to_copy(source, target)
    digests: dict[str, Digest] = {}
    for name, columns in tables.items():
        digest = digests[name] = Digest()
        changed = _changed(source.rows(name, columns), change_of(name, columns), digest)
        target.write(name, columns, _telling(changed, name, told))
    target.derive()
    for name, columns in tables.items():
        _compare(target, name, columns, digests[name], told)
    return [Copied(name, digest.rows) for name, digest in digests.items()]


def change_of(table: str, columns: tuple[str, ...]) -> Change:
    """What becomes of the rows of a table on the way."""
    match table:
        case "queue":
            # whoever held the lease is no process of the copy: it is recovered there as after a crash
            return _setting(columns, owner=0)
        case "lanes":
            return _opened(columns)
        case "meta":
            key = columns.index("key")
            return lambda row: None if row[key] in OF_ONE_SCHEMA else row
        case _:
            return lambda row: row


def _setting(columns: tuple[str, ...], **values: object) -> Change:
    # an older schema may lack a column
    positions = {columns.index(name): value for name, value in values.items() if name in columns}
    return lambda row: tuple(positions.get(n, value) for n, value in enumerate(row))


def _opened(columns: tuple[str, ...]) -> Change:
    """A lane that waits for a place looks at its gate again: nobody may be there who would wake it."""
    blocked = columns.index("blocked")
    opened = _setting(columns, blocked=0, gate="")
    return lambda row: opened(row) if row[blocked] == 1 else row


def _changed(rows: Iterable[Values], change: Change, digest: Digest) -> Iterator[Values]:
    for row in rows:
        changed = change(row)
        if changed is not None:
            digest.add(changed)
            yield changed


def _telling(rows: Iterable[Values], table: str, told: Told) -> Iterator[Values]:
    count = 0
    for count, row in enumerate(rows, 1):
        if count % _TELL_EVERY == 0:
            told(table, _TELL_EVERY)
        yield row
    told(table, count % _TELL_EVERY)


def _compare(target: Target, table: str, columns: tuple[str, ...], written: Digest, told: Told) -> None:
    found = Digest()
    for row in _telling(target.rows(table, columns), table, told):
        # what a schema says about itself was there before
        if change_of(table, columns)(row) is not None:
            found.add(row)
    if found != written:
        raise StoreError(
            f"{table} in {target.shown} is not what was written: {found.rows} rows instead of {written.rows}, or others. "
            "Nothing was kept; is something else writing there?"
        )
