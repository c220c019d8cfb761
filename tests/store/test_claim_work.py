"""What a claim costs when most of the queue is behind full keys: SQLite's virtual machine steps, counted one by one."""

from __future__ import annotations

import msgspec
import pytest

from holdfast.core.claiming import Claim
from holdfast.core.completion import complete
from holdfast.core.flow_config import FlowReader
from holdfast.core.rows import ItemRow, LaneRow, LeaseCountRow, RunRow
from holdfast.store.sqlite import SqliteStore
from holdfast.store.sqlite.registry import Registration

NOW = 1_900_000_000_000
PER_LANE = 10
FULL_OF_TEN = 9
LIMIT = 1000


class Clock:
    def now(self) -> int:
        return NOW


def insert(conn, row, count, **expressions):
    """Insert rows like this one; `expressions` over `i`, from 0 on, take the place of its values."""
    columns = row.__struct_fields__
    values = [f"({expressions[name]})" if name in expressions else "?" for name in columns]
    parameters = [getattr(row, name) for name in columns if name not in expressions]
    conn.execute(
        f"INSERT INTO {row.TABLE} ({', '.join(columns)}) WITH RECURSIVE n(i) AS "
        f"(SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {count}) SELECT {', '.join(values)} FROM n",
        parameters,
    )


def crowded(path, items: int) -> SqliteStore:
    """A store with so many items, ten to a key; of ten keys nine have no place left."""
    store = SqliteStore(f"sqlite:///{path}", Clock(), synchronous="OFF")
    config = {"concurrency": [{"limit": LIMIT, "key": "event.data.tenant"}]}
    known = store.register([Registration("t", "t-f", "f", msgspec.json.encode(config))])
    function_id = known["t-f"][0]
    flow = FlowReader(config, function_id).read()
    store.flows = {function_id: flow}
    store.functions = frozenset({function_id})
    store._room = lambda: 100_000

    class Subject:
        cel = {"data": {"tenant": "@"}}

    before, _, after = flow.lane(Subject()).partition("@")
    lane = f"'{before}' || (i / {PER_LANE}) || '{after}'"
    raw = "CAST(printf('%016d', i) AS BLOB)"
    conn = store._conn
    conn.execute("BEGIN")
    insert(conn, ItemRow(b"", b"", 0, "", NOW, 0), items, id=raw, run_id=raw, lane=lane)
    insert(conn, RunRow(b"", function_id, b"", 0, NOW), items, id=raw, event_id=raw, lane=lane)
    insert(conn, LaneRow("", NOW), items // PER_LANE, lane=lane.replace(f"(i / {PER_LANE})", "i"))
    conn.execute("COMMIT")
    for number in range(items // PER_LANE):
        name = f"{before}{number}{after}"
        if number % 10 < FULL_OF_TEN:
            (gate,) = flow.gates(name, started=True)
            store._leases[gate.id] = LeaseCountRow(gate.id, LIMIT)
            store.lanes.put(LaneRow(name, NOW, 1, 0, gate.id))
        else:
            store.lanes.put(LaneRow(name, NOW + 1))
    return store


def steps_of_a_claim(store: SqliteStore) -> tuple[int, int]:
    """Steps of the virtual machine, and how many runs were leased."""
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    plan = Claim(200, store.functions, suspect=True)
    store._conn.set_progress_handler(step, 1)
    try:
        tx = store.begin()
        store.load(tx, plan.reads())
        complete(tx, store.load)
        leased = plan.decide(tx)
        assert store.write(tx)
    finally:
        store._conn.set_progress_handler(None, 0)
    store._conn.execute("COMMIT")
    store.committed(tx)
    return steps, len(leased)


def check(tmp_path, small: int, large: int) -> None:
    counted = []
    for items in (small, large):
        store = crowded(tmp_path / f"{items}.db", items)
        for _ in range(3):
            steps, leased = steps_of_a_claim(store)
            assert leased >= 100
        counted.append(steps)
        store._committed.close()
        store._conn.close()
        store._ownership.release()
    assert counted[1] <= 1.5 * counted[0], f"a claim takes {counted[0]} steps with {small} items and {counted[1]} with {large}"


def test_a_claim_costs_the_same_with_ten_times_the_queue(tmp_path):
    check(tmp_path, 10_000, 100_000)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_claim_costs_the_same_with_a_million_in_the_queue(tmp_path):
    check(tmp_path, 10_000, 1_000_000)
