"""Three nodes on a PostgreSQL of their own, a customer who takes no for an answer to ask again, and all that can go wrong."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from postgres_process import start_again, stop_at_once
from storm_api import Api
from storm_ledger import Ledger, now

from holdfast.store.postgres import places
from holdfast.store.postgres.statements import Statements

HERE = Path(__file__).parent
LEASE = 3.0
SCHEMA = "storm"
HARMS = ("kill", "stop", "restart", "terminate", "hold", "leave")


class Node:
    """One place for a node: a process, and the next one when that is dead."""

    def __init__(self, config: dict[str, Any], log: Path) -> None:
        self._config = config
        self._log = log
        self.port: int | None = None
        self.stopped = False
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self.starts = 0

    def start(self) -> None:
        """Keep a process running here from now on."""
        self._keeper = asyncio.create_task(self._keep())

    @property
    def pid(self) -> int | None:
        return None if self._process is None or self.port is None else self._process.pid

    def signal(self, number: int) -> None:
        """Send it a signal, if it lives."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _keep(self) -> None:
        path = os.pathsep.join([str(HERE), *sys.path])
        while True:
            self.starts += 1
            with self._log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable, str(HERE / "storm_node.py"), json.dumps(self._config),
                    stdout=subprocess.PIPE, stderr=log, env={**os.environ, "PYTHONPATH": path},
                )  # fmt: skip
            assert self._process.stdout is not None
            line = await self._process.stdout.readline()
            if line:
                self.port = json.loads(line)["port"]
            await self._process.wait()
            self.port = None
            await asyncio.sleep(0.1)

    async def close(self) -> None:
        """Let it end."""
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        if self._process is not None:
            try:
                async with asyncio.timeout(30):
                    await self._process.wait()
            except TimeoutError:
                self.signal(signal.SIGKILL)
                await self._process.wait()


class Storm:
    """What is up, and what has happened to it.

    Args:
        server: The PostgreSQL.
        folder: For the ledger and the logs.
        seed: Of everything random.
    """

    def __init__(self, server: Any, folder: Path, seed: int, *, nodes: int = 3, unfenced: bool = False) -> None:
        self.random = random.Random(seed)
        self.server = server
        self.ledger = Ledger(folder / "ledger")
        self.log = folder / "log"
        self.uri = server.get_uri()
        self._sql = Statements(SCHEMA)
        config = {
            "url": f"{self.uri}&schema={SCHEMA}&lease_seconds={LEASE:g}", "ledger": str(folder / "ledger"),
            "origin": now() // 1000, "linger_ms": seed % 2 * 5000, "unfenced": unfenced,
        }  # fmt: skip
        self.nodes = [Node({**config, "clock_off_by": 10.0 * (n - 1)}, self.log) for n in range(nodes)]
        self.api = Api(lambda: [node.port for node in self.nodes if node.port and not node.stopped], self.random)
        self.hit: Counter[str] = Counter()
        self.leaks: list[Any] = []
        self.sent = 0
        self._calm = asyncio.Event()
        self._continuing: set[asyncio.Task[None]] = set()

    # -- the customer ----------------------------------------------------------------------------------------------------

    async def order(self, every: float) -> None:
        """Send one event after the other, some of them twice, until it is calm."""
        while not self._calm.is_set():
            self.sent += 1
            n = self.sent
            await self.order_one(n)
            if self.random.random() < 0.15:
                await self.order_one(n)
            with suppress(TimeoutError):
                async with asyncio.timeout(self.random.uniform(0, 2 * every)):
                    await self._calm.wait()

    async def order_one(self, n: int) -> None:
        tries = await self.api.send("storm/job", f"job-{n}", {"n": n, "tenant": "abcd"[n * 7 % 11 % 4]})
        self.ledger.write("acknowledged", n=n, tries=tries)

    # -- harm ------------------------------------------------------------------------------------------------------------

    async def harm(self, kind: str) -> None:
        """One event of harm."""
        self.hit[kind] += 1
        self.ledger.write("harm", kind=kind)
        await getattr(self, f"_{kind}")()

    def _some_node(self) -> Node | None:
        up = [node for node in self.nodes if node.pid is not None and not node.stopped]
        return self.random.choice(up) if up else None

    async def _kill(self) -> None:
        """One that is up; where none is, the next that comes."""
        async with asyncio.timeout(90):
            while (node := self._some_node()) is None:
                await asyncio.sleep(0.05)
        pid = node.pid
        node.signal(signal.SIGKILL)
        self.ledger.write("killed", victim=pid)

    async def _leave(self) -> None:
        node = self._some_node()
        if node is not None:
            node.signal(signal.SIGTERM)

    async def _stop(self) -> None:
        """Past its lease, while the others go on; it wakes by itself later."""
        node = self._some_node()
        if node is not None and sum(one.stopped for one in self.nodes) < 1:
            node.stopped = True
            node.signal(signal.SIGSTOP)
            task = asyncio.create_task(self._continue(node, LEASE * self.random.uniform(1.3, 2)))
            self._continuing.add(task)
            task.add_done_callback(self._continuing.discard)

    async def _stop_busy(self) -> None:
        """A node that is inside a body, until another has begun that body as well; then both go on."""
        async with asyncio.timeout(90):
            while True:
                node, body = await self._busy()
                node.signal(signal.SIGSTOP)
                await asyncio.sleep(0.05)
                if body in self._inside():
                    break
                node.signal(signal.SIGCONT)
            node.stopped = True
            while not any(pid != node.pid for pid in self._begun(body)):
                await asyncio.sleep(0.02)
        node.signal(signal.SIGCONT)
        node.stopped = False

    async def _busy(self) -> tuple[Node, tuple[str, str]]:
        while True:
            for body, pid in self._inside().items():
                for node in self.nodes:
                    if node.pid == pid:
                        return node, body
            await asyncio.sleep(0.01)

    def _inside(self) -> dict[tuple[str, str], int]:
        """Bodies of limited runs that are being executed, and the process that does."""
        inside: dict[tuple[str, str], int] = {}
        for line in self.ledger.lines():
            if line["what"] in {"enter", "leave"} and line["function"] == "capped":
                inside.pop((line["run"], line["step"]), None)
                if line["what"] == "enter":
                    inside[line["run"], line["step"]] = line["pid"]
        return inside

    def _begun(self, body: tuple[str, str]) -> list[int]:
        """The processes that have begun a body."""
        return [line["pid"] for line in self.ledger.lines() if line["what"] == "enter" and (line["run"], line["step"]) == body]

    async def _continue(self, node: Node, seconds: float) -> None:
        await asyncio.sleep(seconds)
        node.signal(signal.SIGCONT)
        node.stopped = False

    async def _restart(self) -> None:
        await asyncio.to_thread(stop_at_once, self.server)
        await asyncio.sleep(self.random.choice([0, 0, 0.5, LEASE]))
        await asyncio.to_thread(start_again, self.server)

    async def _terminate(self) -> None:
        await self._ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'holdfast%' "
            f"ORDER BY random() LIMIT {self.random.choice([1, 2, 5, 30])}"
        )

    async def _hold(self) -> None:
        """A transaction that holds rows and does nothing."""
        with suppress(psycopg.Error):
            async with await psycopg.AsyncConnection.connect(self.uri) as conn:
                for table, rows in (("lease_counts", 5), ("queue", 3), ("nodes", 1), ("lanes", 2)):
                    if self.random.random() < 0.5:
                        await conn.execute(f"SELECT 1 FROM {SCHEMA}.{table} LIMIT {rows} FOR UPDATE")
                await asyncio.sleep(self.random.uniform(0.5, 2.5))
                await conn.rollback()

    async def _ask(self, statement: str) -> list[tuple[Any, ...]]:
        with suppress(psycopg.Error):
            async with await psycopg.AsyncConnection.connect(self.uri, autocommit=True) as conn:
                return await (await conn.execute(statement)).fetchall()
        return []

    # -- looking ---------------------------------------------------------------------------------------------------------

    async def count_places(self) -> None:
        """What limits count is what leases hold, at every moment."""

        def look() -> list[tuple[str, int, int]]:
            with psycopg.connect(self.uri) as conn:
                return places.differences(conn, self._sql)

        with suppress(psycopg.Error):
            self.leaks += await asyncio.to_thread(look)

    async def left(self) -> dict[str, int]:
        """What is left in tables that are empty once everything has ended."""
        counts = {}
        for table in ("queue", "lanes", "gathers", "alarms", "waits", "lease_counts", "run_counts"):
            rows = await self._ask(f"SELECT count(*) FROM {SCHEMA}.{table}")
            counts[table] = rows[0][0] if rows else -1
        return {table: count for table, count in counts.items() if count}

    async def calm(self, seconds: float, orders: list[asyncio.Task[None]]) -> dict[str, int]:
        """No more harm and no more orders; wait until everything has ended, and return what has not."""
        self._calm.set()
        while self._continuing:
            await asyncio.wait(self._continuing)
        await asyncio.to_thread(start_again, self.server)
        await asyncio.gather(*orders)
        left = await self.left()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while left := await self.left():
                    await asyncio.sleep(0.2)
        return left

    def words(self) -> str:
        """The end of what the nodes wrote."""
        return self.log.read_text(errors="replace")[-6000:]


@asynccontextmanager
async def raging(storm: Storm) -> AsyncIterator[Storm]:
    """The nodes are up for as long as the block lasts."""
    try:
        for node in storm.nodes:
            node.start()
        async with asyncio.timeout(90):
            while any(node.port is None for node in storm.nodes):
                await asyncio.sleep(0.05)
        yield storm
    finally:
        for node in storm.nodes:
            node.signal(signal.SIGCONT)
        await asyncio.gather(*(node.close() for node in storm.nodes))
        await storm.api.close()
