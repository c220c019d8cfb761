"""The ceiling on PostgreSQL: one bare coroutine a run and a group commit of its rows, and nothing else.

The same rows as `ceiling.py` writes, over one connection in a thread: one statement a table and group, sent as a pipeline.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from queue import SimpleQueue
from typing import Any

import psycopg

from holdfast.core.rows import RunRow, StepRow
from holdfast.store.postgres.statements import Statements
from holdfast.store.postgres.values import register

Group = list[tuple[str, Any, asyncio.Future[None]]]


class Ceiling:
    """Rows in, one transaction a group, futures out."""

    def __init__(self, uri: str, schema: str) -> None:
        self.conn = psycopg.connect(uri, autocommit=True, prepare_threshold=1)
        register(self.conn)
        statements = Statements(schema)
        self.runs, self.steps = statements[RunRow], statements[StepRow]
        self.end = (
            f'UPDATE "{schema}".runs t SET status = 2, ended_at = v.at '
            "FROM unnest(%s::bytea[], %s::int8[]) AS v (id, at) WHERE t.id = v.id"
        ).encode()
        self.loop = asyncio.get_running_loop()
        self.waiting: deque[tuple[str, Any, asyncio.Future[None]]] = deque()
        self.busy = False
        self.jobs: SimpleQueue[Group | None] = SimpleQueue()
        self.thread = threading.Thread(target=self.commits, daemon=True)
        self.thread.start()

    def write(self, table: str, row: Any) -> asyncio.Future[None]:
        future = self.loop.create_future()
        self.waiting.append((table, row, future))
        if not self.busy:
            self.busy = True
            self.loop.call_soon(self.flush)
        return future

    def flush(self) -> None:
        group = list(self.waiting)
        self.waiting.clear()
        self.jobs.put(group)

    def commits(self) -> None:
        while (group := self.jobs.get()) is not None:
            rows: dict[str, list[Any]] = {"run": [], "step": [], "end": []}
            for table, row, _ in group:
                rows[table].append(row)
            with self.conn.transaction(), self.conn.pipeline():
                if rows["run"]:
                    self.conn.execute(self.runs.insert, self.runs.values(rows["run"]))
                if rows["step"]:
                    self.conn.execute(self.steps.insert, self.steps.values(rows["step"]))
                if rows["end"]:
                    self.conn.execute(self.end, [list(part) for part in zip(*rows["end"], strict=True)])
            self.loop.call_soon_threadsafe(self.done, group)

    def done(self, group: Group) -> None:
        for _, _, future in group:
            future.set_result(None)
        self.busy = bool(self.waiting)
        if self.busy:
            self.loop.call_soon(self.flush)

    def close(self) -> None:
        self.jobs.put(None)
        self.thread.join()
        self.conn.close()


async def throughput(uri: str, schema: str, runs: int, steps: int, in_flight: int) -> float:
    """Runs per second, in the tables of a schema that is there."""
    store = Ceiling(uri, schema)
    base = time.time_ns() // 1_000_000 << 80
    counter = iter(range(1 << 62))

    async def one(run_id: bytes) -> None:
        now = time.time_ns() // 1_000_000
        await store.write("run", RunRow(run_id, 1, run_id, 1, now, now))
        for n in range(steps):
            await store.write("step", StepRow(run_id, f"s{n}", n, 0, 0, now, now, data=b"1"))
        await store.write("end", (run_id, now))

    async def worker(count: int) -> None:
        for _ in range(count):
            await asyncio.ensure_future(one((base + next(counter)).to_bytes(16, "big")))

    began = time.perf_counter()
    await asyncio.gather(*(worker(runs // in_flight) for _ in range(in_flight)))
    took = time.perf_counter() - began
    store.close()
    return runs // in_flight * in_flight / took
