"""Lists of runs and events, newest first: which index each part of a filter is answered from, and the pages."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

import msgspec

from holdfast.base.ids import ulid_text
from holdfast.core.rows import RunStatus
from holdfast.store.reads import EventView, RunFilter, RunView
from holdfast.store.sqlite.reading import statements as sql
from holdfast.store.sqlite.reading.views import event_view, raw_id, run_view

MAX_LIMIT = 1000
MAX_PAGE_BYTES = 16 * 1024 * 1024
"""Event data that one page may hold; a page of large events is shorter than asked for."""
CLOCK_SKEW_MS = 5_000
"""How far the time in an id may be from that of its row: the id is made before the commit, and clocks are set."""
_RARE_EVENT = 2000
"""Up to so many events of a name, their runs are found through them; past that, by walking the newest runs."""
_LIVE = {
    "QUEUED": "r.started_at IS NULL",
    "RUNNING": f"r.started_at IS NOT NULL AND {sql.ACTIVE}",
    "WAITING": f"r.started_at IS NOT NULL AND NOT {sql.ACTIVE}",
}
# what the item alone tells of these, so that runs of another status are not looked up
_LIVE_ITEM = {"QUEUED": "q.epoch = 0", "RUNNING": "q.state = 2", "WAITING": "q.state <> 2"}
_ENDED = {status.name: status for status in RunStatus if status.ended}


class Condition(msgspec.Struct, frozen=True):
    """A piece of SQL with its parameters."""

    text: str
    values: tuple[object, ...] = ()

    def also(self, others: Iterable[Condition]) -> Condition:
        """This and the others."""
        parts = [self, *others]
        values = tuple(value for part in parts for value in part.values)
        return Condition(" AND ".join(part.text for part in parts), values)


class Source(msgspec.Struct, frozen=True):
    """Where some of the runs come from, in falling order of `id`. The sources of one filter have no run in common."""

    rows: Condition
    id: str = "r.id"
    order: str = "r.id"
    """What it is walked by."""
    unique: bool = True
    """Whether it gives each run once."""


# -- runs --------------------------------------------------------------------------------------------------------


def list_runs(
    conn: sqlite3.Connection, where: RunFilter, limit: int, cursor: str | None
) -> tuple[list[RunView], str | None]:
    """A page of runs and the cursor of the next."""
    limit = max(1, min(limit, MAX_LIMIT))
    before = None if cursor is None else raw_id(cursor)
    if cursor is not None and before is None:
        return [], None
    found: set[bytes] = set()
    horizon = b""
    for source in sources(conn, where, before):
        rows = _execute(conn, sql.IDS, source, limit + 1).fetchall()
        found.update(row[0] for row in rows)
        if len(rows) > limit:
            # a source that has more says nothing of ids below its last
            horizon = max(horizon, rows[-1][0])
    known = sorted((one for one in found if one >= horizon), reverse=True)
    page = known[:limit]
    more = len(known) > limit or bool(horizon)
    return runs_by_id(conn, page), ulid_text(page[-1]) if more and page else None


def count_runs(conn: sqlite3.Connection, where: RunFilter, cap: int) -> int:
    """How many runs match, counted up to `cap`."""
    total = 0
    for source in sources(conn, where, None):
        if total >= cap:
            break
        count = sql.COUNT_UNIQUE if source.unique else sql.COUNT
        total += _execute(conn, count, source, cap - total).fetchone()[0]
    return total


def _execute(conn: sqlite3.Connection, statement: str, source: Source, limit: int) -> sqlite3.Cursor:
    text = statement.format(id=source.id, order=source.order, source=source.rows.text)
    return conn.execute(text, (*source.rows.values, limit))


def runs_by_id(conn: sqlite3.Connection, ids: Sequence[bytes]) -> list[RunView]:
    """The runs of these ids that there are, in the same order."""
    if not ids:
        return []
    statement = sql.RUNS_BY_ID.format(marks=", ".join("?" * len(ids)))
    rows = {row[0]: row for row in conn.execute(statement, ids)}
    return [run_view(rows[one]) for one in ids if one in rows]


def sources(conn: sqlite3.Connection, where: RunFilter, before: bytes | None) -> list[Source]:
    """From which indexes the runs of a filter are read."""
    functions = _functions(conn, where)
    if functions is not None and not functions:
        return []
    common = [*_common(where), *_between(where, before, "r.id")]
    of_functions = [] if functions is None else [one_of("r.function_id", functions)]
    narrow = _narrow(conn, where, before)
    if narrow is not None:
        condition = [*common, *of_functions, *_status_condition(where.status)]
        return [msgspec.structs.replace(one, rows=one.rows.also(condition)) for one in narrow]
    if where.event is not None:
        common.append(Condition(sql.HAS_EVENT_NAME, (where.event,)))
    walk = Condition(sql.ALL_RUNS if functions is None else sql.RUNS_BY_FUNCTION).also([*of_functions, *common])
    if not where.status:
        return [Source(walk)]
    return [
        *_live_sources(where.status, [*_between(where, before, "q.id"), *common, *of_functions]),
        *([Source(walk.also([Condition("r.status = 2")]))] if "COMPLETED" in where.status else []),
        *(
            Source(Condition(sql.RUNS_OF_STATUS, (int(status),)).also([*common, *of_functions]))
            for name, status in _ENDED.items()
            if name in where.status and name != "COMPLETED"
        ),
    ]


def _functions(conn: sqlite3.Connection, where: RunFilter) -> list[int] | None:
    if where.function is None and where.app is None:
        return None
    return [row[0] for row in conn.execute(sql.FUNCTION_IDS, (where.function, where.app))]


def _common(where: RunFilter) -> list[Condition]:
    """What runs of every source have to keep: the time and the error."""
    out = []
    if where.since is not None:
        out.append(Condition("r.queued_at >= ?", (where.since,)))
    if where.until is not None:
        out.append(Condition("r.queued_at < ?", (where.until,)))
    if where.error is not None:
        out.append(Condition(sql.ERROR_CONTAINS, (where.error,)))
    return out


def _between(where: RunFilter, before: bytes | None, column: str) -> list[Condition]:
    """Where a walk by ids begins and ends: the time as ids tell it, and the cursor.

    It holds for items as for runs: an item's id begins with its run's.
    """
    out = []
    if where.since is not None:
        out.append(Condition(f"{column} >= ?", (first_id(where.since - CLOCK_SKEW_MS),)))
    if where.until is not None:
        out.append(Condition(f"{column} < ?", (first_id(where.until + CLOCK_SKEW_MS),)))
    if before is not None:
        out.append(Condition(f"{column} < ?", (before,)))
    return out


def _narrow(conn: sqlite3.Connection, where: RunFilter, before: bytes | None) -> list[Source] | None:
    """The sources when the filter names something that few runs have; None when it doesn't."""
    rest = _named(conn, where)
    if where.ids:
        known = [raw for raw in map(raw_id, where.ids) if raw is not None]
        rows = [Source(Condition(sql.ALL_RUNS).also([one_of("r.id", known)]))]
    elif "letter" in rest:
        rows = [_letters(where, before)]
        del rest["letter"]
    elif "parent" in rest:
        parent = raw_id(where.parent or "")
        rows = [] if parent is None else [Source(Condition(sql.RUNS_BY_PARENT, (parent,)))]
    elif where.event_id is not None:
        rows = [Source(Condition(sql.RUNS_BY_EVENT_ID, (one,))) for one in _event_ids(conn, where.event_id)]
        del rest["event_id"]
    elif where.event is not None and _is_rare(conn, where.event):
        rows = [Source(Condition(sql.RUNS_BY_EVENT_NAME, (where.event,)))]
        del rest["event"]
    else:
        return None
    return [msgspec.structs.replace(one, rows=one.rows.also(rest.values())) for one in rows]


def _named(conn: sqlite3.Connection, where: RunFilter) -> dict[str, Condition]:
    """What the filter names, each as a condition on a run, whichever source it comes from."""
    out = {}
    if where.dead or where.fingerprint is not None:
        same = Condition(sql.IS_LETTER) if where.fingerprint is None else Condition(sql.IN_GROUP, (where.fingerprint,))
        out["letter"] = same
    if where.parent is not None:
        out["parent"] = Condition("r.parent_id = ?", (raw_id(where.parent) or b"",))
    if where.event_id is not None:
        out["event_id"] = one_of("r.event_id", _event_ids(conn, where.event_id))
    if where.event is not None:
        out["event"] = Condition(sql.HAS_EVENT_NAME, (where.event,))
    return out


def _letters(where: RunFilter, before: bytes | None) -> Source:
    """Runs that are dead letters, walked by the letters' own order."""
    if where.fingerprint is None:
        rows = Condition(sql.RUNS_OF_LETTERS)
    else:
        rows = Condition(sql.RUNS_OF_GROUP, (where.fingerprint,))
    return Source(rows.also(_between(where, before, "d.run_id")), id="d.run_id", order="d.run_id")


def _event_ids(conn: sqlite3.Connection, given: str) -> list[bytes]:
    ids = {row[0] for row in conn.execute(sql.EVENTS_WITH_KEY, (given,))}
    internal = raw_id(given)
    return sorted(ids if internal is None else ids | {internal})


def _is_rare(conn: sqlite3.Connection, name: str) -> bool:
    count: int = conn.execute(sql.COUNT_EVENTS_NAMED, (name, _RARE_EVENT + 1)).fetchone()[0]
    return count <= _RARE_EVENT


def _status_condition(names: Sequence[str]) -> list[Condition]:
    if not names:
        return []
    parts = [f"r.status < 2 AND {_LIVE[name]}" for name in names if name in _LIVE]
    parts += [f"r.status = {_ENDED[name].value}" for name in names if name in _ENDED]
    return [Condition("(" + " OR ".join(parts) + ")" if parts else "FALSE")]


def _live_sources(names: Sequence[str], conditions: list[Condition]) -> list[Source]:
    """Runs that haven't ended have an item in the queue, which is far smaller than the table of runs."""
    if set(names) >= set(_LIVE):
        return [Source(Condition(sql.LIVE_RUNS).also(conditions), id="q.run_id", order="q.id", unique=False)]
    walks = [Condition(f"{sql.LIVE_RUNS} AND {_LIVE_ITEM[name]} AND {_LIVE[name]}") for name in _LIVE if name in names]
    return [Source(walk.also(conditions), id="q.run_id", order="q.id", unique=False) for walk in walks]


def one_of(column: str, values: Sequence[object]) -> Condition:
    """That a column has one of these values."""
    return Condition(f"{column} IN ({', '.join('?' * len(values))})", tuple(values))


def first_id(ms: int) -> bytes:
    """The least id of a moment; of times out of range, the least or the last there can be."""
    return max(0, min(ms, (1 << 48) - 1)).to_bytes(6, "big") + bytes(10)


# -- events ------------------------------------------------------------------------------------------------------


class EventFilter(msgspec.Struct, frozen=True):
    """Which events to list."""

    name: str | None
    internal: bool
    after: int | None
    before: int | None


def list_events(
    conn: sqlite3.Connection, where: EventFilter, limit: int, cursor: str | None
) -> tuple[list[EventView], str | None]:
    """A page of events and the cursor of the next."""
    limit = max(1, min(limit, MAX_LIMIT))
    below = None if cursor is None else raw_id(cursor)
    if cursor is not None and below is None:
        return [], None
    rows = Condition(sql.ALL_EVENTS) if where.name is None else Condition(sql.EVENTS_NAMED, (where.name,))
    source = rows.also(_event_conditions(where, below))
    sizes = conn.execute(sql.EVENT_IDS.format(source=source.text), (*source.values, limit + 1)).fetchall()
    page: list[bytes] = []
    room = MAX_PAGE_BYTES
    for event_id, size in sizes[:limit]:
        if page and size > room:
            break
        room -= size
        page.append(event_id)
    if not page:
        return [], None
    views = [event_view(row) for row in conn.execute(sql.EVENTS_BY_ID.format(marks=", ".join("?" * len(page))), page)]
    return views, ulid_text(page[-1]) if len(sizes) > len(page) else None


def _event_conditions(where: EventFilter, below: bytes | None) -> list[Condition]:
    out = []
    if not where.internal:
        out.append(Condition(sql.NOT_INTERNAL))
    if where.after is not None:
        out.append(Condition("received_at > ? AND id >= ?", (where.after, first_id(where.after - CLOCK_SKEW_MS))))
    if where.before is not None:
        out.append(Condition("received_at < ? AND id < ?", (where.before, first_id(where.before + CLOCK_SKEW_MS))))
    if below is not None:
        out.append(Condition("id < ?", (below,)))
    return out
