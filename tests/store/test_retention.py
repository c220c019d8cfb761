"""Retention: what is past its time goes, what a live run or a dead letter needs stays, and no slice looks at everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import reader_rows

from holdfast.base.clock import SystemClock
from holdfast.base.ids import IdFactory
from holdfast.core.restart import Write
from holdfast.core.rows import (
    CronFireRow,
    DeadLetterRow,
    DedupeRow,
    EventRow,
    ItemRow,
    ItemState,
    LogRow,
    Row,
    RunRow,
    RunStatus,
    SkipRow,
    StepRow,
)
from holdfast.store.postgres import PostgresStore
from holdfast.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio

DAY = 86_400_000
NOW = SystemClock().now()


def new_id(ms: int) -> bytes:
    """An id of that moment, whatever was made before."""
    return IdFactory().new(ms)


class Fixed(SystemClock):
    def now(self) -> int:
        return NOW


class Kept:
    """Rows of one run with everything that belongs to it."""

    def __init__(self, age_days: float, status: RunStatus, *, ended_days: float | None = None, dead_days: float | None = None) -> None:
        born = NOW - round(age_days * DAY)
        ended = None if ended_days is None else NOW - round(ended_days * DAY)
        self.event = EventRow(new_id(born), "a/b", born, born, b"{}")
        self.run = RunRow(new_id(born + 1), 1, self.event.id, status, born, born, ended)
        run_id = self.run.id
        self.rows: list[Row] = [
            self.event,
            self.run,
            StepRow(run_id, "s", 1, 0, 0, born, born),
            LogRow(run_id, 1, born, 20, "line"),
            SkipRow(self.event.id, 2, "duplicate event id", None, born),
        ]
        if ended is None:
            self.rows.append(ItemRow(run_id, run_id, ItemState.TIMED, "1", 0, NOW + DAY))
        if dead_days is not None:
            at = NOW - round(dead_days * DAY)
            self.rows.append(DeadLetterRow(run_id, 1, at, "f", "E: m"))


async def prune(path: Path, rows: list[Row]) -> tuple[Any, list[Any]]:
    url = reader_rows.POSTGRES_URL
    store: Any = SqliteStore(f"sqlite:///{path}", Fixed(), ("a",)) if url is None else PostgresStore(url, Fixed(), ("a",))
    store.start(lambda: 0, frozenset())
    await store.submit(Write(rows))
    slices = []
    while await store.prune(7 * DAY, 90 * DAY):
        slices.append(True)
    return store, slices


async def left(store: Any, rows: list[Row]) -> list[bool]:
    from holdfast.core.rows import KEYS

    tx = await store.read([(type(row), KEYS[type(row)](row)) for row in rows])
    return [tx.get(type(row), KEYS[type(row)](row)) is not None for row in rows]


@pytest.mark.parametrize(
    ("kept", "stays"),
    [
        (Kept(30, RunStatus.COMPLETED, ended_days=8), False),
        (Kept(30, RunStatus.COMPLETED, ended_days=6), True),  # counted from the end
        (Kept(400, RunStatus.RUNNING), True),  # it sleeps, however old
        (Kept(30, RunStatus.FAILED, ended_days=29, dead_days=29), True),  # a dead letter
        (Kept(120, RunStatus.FAILED, ended_days=91, dead_days=91), False),
        (Kept(30, RunStatus.CANCELLED, ended_days=10), False),
    ],
    ids=["old", "recent end", "asleep", "dead letter", "old dead letter", "cancelled"],
)
async def test_what_goes_and_what_stays(tmp_path, kept, stays):
    store, _ = await prune(tmp_path / "r.db", kept.rows)
    assert await left(store, kept.rows) == [stays] * len(kept.rows)
    await store.close()


async def test_events_without_runs_ids_and_fires_go_by_their_own_time(tmp_path):
    old, new = NOW - 8 * DAY, NOW - 6 * DAY
    rows: list[Row] = [
        EventRow(new_id(old), "a/b", old, old, b"{}"),
        DedupeRow(1, "old", b"r" * 16, NOW - 1),
        CronFireRow(1, "* * * * *", 1, None, old),
        EventRow(new_id(new), "a/b", new, new, b"{}"),
        DedupeRow(1, "new", b"r" * 16, NOW + 1),
        CronFireRow(1, "* * * * *", 2, None, new),
    ]
    store, _ = await prune(tmp_path / "r.db", rows)
    assert await left(store, rows) == [False] * 3 + [True] * 3
    await store.close()


async def test_many_go_slice_by_slice_past_those_that_stay(tmp_path):
    many = [Kept(30, RunStatus.RUNNING) if n % 3 == 0 else Kept(30, RunStatus.COMPLETED, ended_days=20) for n in range(2000)]
    rows = [row for kept in many for row in kept.rows]
    store, slices = await prune(tmp_path / "r.db", rows)
    assert len(slices) >= 4  # bounded slices
    expected = [kept.run.ended_at is None for kept in many for _ in kept.rows]
    assert await left(store, rows) == expected
    # the next pass begins anew, and finds nothing
    while await store.prune(7 * DAY, 90 * DAY):
        pass
    assert await left(store, rows) == expected
    await store.close()
