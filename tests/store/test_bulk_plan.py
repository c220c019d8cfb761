"""The slices of a bulk operation over a real store: crash anywhere, twice, and each run is acted on once."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.base.clock import SystemClock
from holdfast.core.bulk import BEHIND, Act, CancelBulk, Progress, Slice
from holdfast.core.plan import Plan, Read, Refused, Tx
from holdfast.core.restart import Write
from holdfast.core.rows import AuditRow, BulkRow, BulkState
from holdfast.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio


class Count(Plan["bool | Refused"]):
    """Stands for what is done with a run: it counts how often, in the same transaction as everything else."""

    def __init__(self, key: bytes, answer: str) -> None:
        self.then = None
        self.key = key
        self.outcome = answer

    def reads(self) -> list[Read]:
        return [(AuditRow, self.key)]

    def decide(self, tx: Tx) -> bool | Refused:
        if self.outcome == "failed":
            return Refused("it can't be done")
        if self.outcome == "skipped":
            return False
        known = tx.get(AuditRow, self.key)
        tx.put(AuditRow(self.key, 0, "", "", "", str(int(known.detail) + 1 if known is not None else 1)))
        return True


def runs_below(cursor: bytes, outcomes: list[str], limit: int) -> tuple[list[bytes], bool]:
    """What a reader answers: the next runs, newest first, and whether there are more."""
    left = [key for key in sorted((key_of(n) for n in range(len(outcomes))), reverse=True) if key < cursor]
    return left[:limit], len(left) > limit


def key_of(n: int) -> bytes:
    return n.to_bytes(16, "big")


async def work(store: SqliteStore, bulk_id: bytes, outcomes: list[str], limit: int, dies_after: int | None) -> bool:
    """Carry the operation on until its end, or until this life has committed so many slices."""
    commits = 0
    while True:
        bulk = store.fetch([(BulkRow, bulk_id)]).get(BulkRow, bulk_id)
        assert bulk is not None
        if bulk.state != BulkState.RUNNING:
            return True
        if commits == dies_after:
            return False
        keys, more = runs_below(bulk.cursor, outcomes, limit)
        acts = [Act(key, Count(key, outcomes[int.from_bytes(key, "big")])) for key in keys]
        stale = Slice(bulk, acts, last=not more)
        answer = await store.submit(Slice(bulk, acts, last=not more))
        assert isinstance(answer, Progress)
        # another life that hadn't heard of it does nothing
        assert await store.submit(stale) is BEHIND
        commits += 1


@settings(max_examples=40, deadline=None)
@given(
    outcomes=st.lists(st.sampled_from(["done", "done", "skipped", "failed"]), max_size=25),
    limits=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    deaths=st.lists(st.integers(0, 3), max_size=5),
)
def test_whatever_dies_between_slices_each_run_is_acted_on_once(outcomes, limits, deaths):
    import asyncio

    asyncio.run(lives(outcomes, limits, deaths))


async def lives(outcomes: list[str], limits: list[int], deaths: list[int]) -> None:
    bulk_id = b"\xff" * 16
    with TemporaryDirectory() as directory:
        url = f"sqlite:///{Path(directory) / 'a.db'}"
        for life, dies_after in enumerate([*deaths, None]):
            store = SqliteStore(url, SystemClock(), ("t",))
            store.start(lambda: 0, frozenset())
            if life == 0:
                row = BulkRow(bulk_id, "cancel", b"{}", "me", 0, total=len(outcomes), cursor=bulk_id)
                await store.submit(Write([row]))
            ended = await work(store, bulk_id, outcomes, limits[life % len(limits)], dies_after)
            bulk = store.fetch([(BulkRow, bulk_id)]).get(BulkRow, bulk_id)
            counted = store.fetch([(AuditRow, key_of(n)) for n in range(len(outcomes))])
            times = [counted.get(AuditRow, key_of(n)) for n in range(len(outcomes))]
            await store.close()
            if ended:
                break
    assert ended and bulk is not None and bulk.state == BulkState.DONE
    for outcome, row in zip(outcomes, times, strict=True):
        assert (row.detail if row is not None else "0") == ("1" if outcome == "done" else "0")
    assert (bulk.done, bulk.skipped, bulk.failed) == tuple(outcomes.count(name) for name in ("done", "skipped", "failed"))
    assert bulk.error == ("it can't be done" if "failed" in outcomes else None)


async def test_nothing_follows_once_it_was_cancelled(tmp_path):
    store = SqliteStore(f"sqlite:///{tmp_path / 'a.db'}", SystemClock(), ("t",))
    store.start(lambda: 0, frozenset())
    row = BulkRow(b"\xff" * 16, "cancel", b"{}", "me", 0, total=1, cursor=b"\xff" * 16)
    await store.submit(Write([row]))
    assert isinstance(await store.submit(CancelBulk(row.id)), BulkRow)
    assert isinstance(await store.submit(CancelBulk(row.id)), Refused)
    assert await store.submit(Slice(row, [Act(key_of(1), Count(key_of(1), "done"))], last=True)) is BEHIND
    assert store.fetch([(AuditRow, key_of(1))]).get(AuditRow, key_of(1)) is None
    await store.close()
