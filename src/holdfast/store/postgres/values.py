"""Values on their way to PostgreSQL and back: columns as binary arrays, and text that may hold NUL.

A statement takes one array per column, whatever the number of rows, so that its text never changes and is prepared once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from struct import Struct
from typing import Any

from psycopg import pq
from psycopg.abc import AdaptContext
from psycopg.adapt import Dumper

_pack_length = Struct("!i").pack
_pack_int8 = Struct("!iq").pack
_pack_float8 = Struct("!id").pack
_pack_header = Struct("!iiIii").pack
_pack_empty = Struct("!iiI").pack
_NULL = b"\xff\xff\xff\xff"


def to_text(value: str) -> str:
    """Text as a column holds it: PostgreSQL has no NUL in text, so U+001A stands for it, and is itself doubled."""
    if "\0" in value or "\x1a" in value:
        return value.replace("\x1a", "\x1a1").replace("\0", "\x1a0")
    return value


def from_text(value: str) -> str:
    """The text that `to_text` was given."""
    if "\x1a" in value:
        return value.replace("\x1a0", "\0").replace("\x1a1", "\x1a")
    return value


class Column:
    """One column of many rows."""

    __slots__ = ("values",)

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = values


class Ints(Column):
    """Integers, or None."""

    __slots__ = ()


class Floats(Column):
    """Numbers with a fraction, or None."""

    __slots__ = ()


class Texts(Column):
    """Text, or None."""

    __slots__ = ()


class Blobs(Column):
    """Bytes, or None."""

    __slots__ = ()


class _ColumnDumper(Dumper):
    format = pq.Format.BINARY
    element_oid: int

    def dump(self, obj: Column) -> bytes:
        values = obj.values
        if not values:
            return _pack_empty(0, 0, self.element_oid)
        nulls = None in values
        return _pack_header(1, int(nulls), self.element_oid, len(values), 1) + b"".join(self.parts(values, nulls))

    def parts(self, values: Sequence[Any], nulls: bool) -> Iterable[bytes]:
        raise NotImplementedError


class _IntsDumper(_ColumnDumper):
    oid = 1016
    element_oid = 20

    def parts(self, values: Sequence[Any], nulls: bool) -> Iterable[bytes]:
        if not nulls:
            return map(_pack_int8, repeat(8), values)
        return [_NULL if value is None else _pack_int8(8, value) for value in values]


class _FloatsDumper(_ColumnDumper):
    oid = 1022
    element_oid = 701

    def parts(self, values: Sequence[Any], nulls: bool) -> Iterable[bytes]:
        return [_NULL if value is None else _pack_float8(8, value) for value in values]


class _BlobsDumper(_ColumnDumper):
    oid = 1001
    element_oid = 17

    def parts(self, values: Sequence[Any], nulls: bool) -> Iterable[bytes]:
        out: list[bytes] = []
        for value in values:
            if value is None:
                out.append(_NULL)
            else:
                out.append(_pack_length(len(value)))
                out.append(value)
        return out


class _TextsDumper(_BlobsDumper):
    oid = 1009
    element_oid = 25

    def parts(self, values: Sequence[Any], nulls: bool) -> Iterable[bytes]:
        return super().parts([None if value is None else to_text(value).encode() for value in values], nulls)


def register(context: AdaptContext) -> None:
    """Let a connection take columns as parameters."""
    adapters = context.adapters
    assert adapters is not None
    adapters.register_dumper(Ints, _IntsDumper)
    adapters.register_dumper(Floats, _FloatsDumper)
    adapters.register_dumper(Texts, _TextsDumper)
    adapters.register_dumper(Blobs, _BlobsDumper)
