"""The ceiling: one bare coroutine a run and a group commit of its rows, and nothing else.

The rows are those of holdfast's own tables, column for column: the run, its steps, and the run's end as an update. No
events, routing, validation, queue, indexes, recovery or outputs: what is left is what SQLite with `synchronous=FULL` and
one fsync a group cost in Python. It is measured in the same run as holdfast, so that the figure is a ratio.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections import deque
from pathlib import Path
from queue import SimpleQueue

from msgspec.structs import astuple

from holdfast.core.rows import RunRow, StepRow


class Ceiling:
    """Rows in, one transaction a group, futures out."""

    def __init__(self, path: Path) -> None:
        self.conn = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=4096)
        for statement in (
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = FULL",
            f"CREATE TABLE runs ({', '.join(RunRow.__struct_fields__)}, PRIMARY KEY (id)) WITHOUT ROWID",
            f"CREATE TABLE steps ({', '.join(StepRow.__struct_fields__)}, PRIMARY KEY (run_id, key)) WITHOUT ROWID",
        ):
            self.conn.execute(statement)
        self.loop = asyncio.get_running_loop()
        self.waiting: deque[tuple[str, tuple[object, ...], asyncio.Future[None]]] = deque()
        self.committing = False
        self.scheduled = False
        self.jobs: SimpleQueue[list[asyncio.Future[None]] | None] = SimpleQueue()
        self.thread = threading.Thread(target=self.commits, daemon=True)
        self.thread.start()

    def write(self, table: str, row: tuple[object, ...]) -> asyncio.Future[None]:
        future = self.loop.create_future()
        self.waiting.append((table, row, future))
        if not self.scheduled and not self.committing:
            self.scheduled = True
            self.loop.call_soon(self.flush)
        return future

    def flush(self) -> None:
        self.scheduled = False
        if self.committing or not self.waiting:
            return
        self.committing = True
        group = list(self.waiting)
        self.waiting.clear()
        rows: dict[str, list[object]] = {"run": [], "step": [], "end": []}
        for table, row, _ in group:
            rows[table].extend(row)
        self.conn.execute("BEGIN IMMEDIATE")
        if rows["run"]:
            self.insert("runs", len(RunRow.__struct_fields__), rows["run"])
        if rows["step"]:
            self.insert("steps", len(StepRow.__struct_fields__), rows["step"])
        if rows["end"]:
            values = ", ".join(["(?, ?)"] * (len(rows["end"]) // 2))
            self.conn.execute(
                f"UPDATE runs SET status = 2, ended_at = v.column2 FROM (VALUES {values}) AS v WHERE runs.id = v.column1",
                rows["end"],
            )
        self.jobs.put([future for _, _, future in group])

    def insert(self, table: str, width: int, values: list[object]) -> None:
        one = "(" + ", ".join("?" * width) + ")"
        self.conn.execute(f"INSERT INTO {table} VALUES " + ", ".join([one] * (len(values) // width)), values)

    def commits(self) -> None:
        while (futures := self.jobs.get()) is not None:
            self.conn.execute("COMMIT")
            self.loop.call_soon_threadsafe(self.done, futures)

    def done(self, futures: list[asyncio.Future[None]]) -> None:
        self.committing = False
        for future in futures:
            future.set_result(None)
        if self.waiting and not self.scheduled:
            self.scheduled = True
            self.loop.call_soon(self.flush)

    def close(self) -> None:
        self.jobs.put(None)
        self.thread.join()
        self.conn.close()


async def throughput(path: Path, runs: int, steps: int, in_flight: int) -> float:
    """Runs per second."""
    store = Ceiling(path)

    async def one(run_id: bytes) -> None:
        now = time.time_ns() // 1_000_000
        await store.write("run", astuple(RunRow(run_id, 1, run_id, 1, now, now)))
        for n in range(steps):
            await store.write("step", astuple(StepRow(run_id, f"s{n}", n, 0, 0, now, now, data=b"1")))
        await store.write("end", (run_id, now))

    async def worker(count: int) -> None:
        for _ in range(count):
            await asyncio.ensure_future(one(next_id()))

    counter = iter(range(1 << 62))
    base = time.time_ns() // 1_000_000 << 80

    def next_id() -> bytes:
        return (base + next(counter)).to_bytes(16, "big")

    began = time.perf_counter()
    await asyncio.gather(*(worker(runs // in_flight) for _ in range(in_flight)))
    took = time.perf_counter() - began
    store.close()
    return runs // in_flight * in_flight / took
