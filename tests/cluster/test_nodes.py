"""P10: several nodes on one PostgreSQL, each a process of its own: sharing work, dying, being stopped, and hearing of each other."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from node_app import Came, Go, Narrow, Told, Wanted, make_app

from holdfast import Event, RunCancelledError, RunHandle
from holdfast.compose import build_engine
from holdfast.engine.engine import Engine, EngineOptions

pytestmark = pytest.mark.anyio


class Nodes:
    """Nodes that execute, and one in this process that only sends and awaits."""

    def __init__(self, url: str, ledger: Path) -> None:
        self.url = url
        self.ledger = ledger
        self.app = make_app()
        self.engine: Engine
        self.processes: list[asyncio.subprocess.Process] = []

    async def add(self, count: int = 1) -> None:
        for _ in range(count):
            process = await asyncio.create_subprocess_exec(
                sys.executable, str(Path(__file__).parent / "node_app.py"), self.url, str(self.ledger),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            )
            self.processes.append(process)
        for process in self.processes[len(self.processes) - count :]:
            line = await process.stdout.readline()
            assert line.startswith(b"ready"), line

    async def start(self, function: str, event: Event) -> RunHandle:
        return await self.app.start(self.app.functions[function], event)

    def lines(self, *words: str) -> list[tuple[str, int, int]]:
        text = self.ledger.read_text() if self.ledger.exists() else ""
        parsed = [line.split() for line in text.splitlines()]
        return [(word, int(n), int(pid)) for word, n, pid in parsed if not words or word in words]

    async def until(self, fact: Callable[[], object], seconds: float = 60) -> None:
        async with asyncio.timeout(seconds):
            while not fact():
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        for process in self.processes:
            if process.returncode is None:
                process.send_signal(signal.SIGCONT)
                process.stdin.close()
        for process in self.processes:
            await asyncio.wait_for(process.wait(), 60)


@pytest.fixture
def cluster(postgres_url: str, tmp_path: Path):
    @asynccontextmanager
    async def make(count: int, options: str = "&lease_seconds=4", *, first: int = 0) -> AsyncIterator[Nodes]:
        nodes = Nodes(postgres_url + options, tmp_path / "ledger")
        await nodes.add(first)  # the first of all leads
        nodes.engine = build_engine([nodes.app], nodes.url, options=EngineOptions(capacity=0))
        async with nodes.engine:
            try:
                await nodes.add(count)
                yield nodes
            finally:
                await nodes.close()

    return make


async def test_three_nodes_share_the_work_and_results_are_awaited_elsewhere(cluster):
    async with cluster(3) as nodes:
        handles = [await nodes.start("work", Go(n=n, seconds=0.1)) for n in range(60)]
        pids = await asyncio.gather(*(handle.result(timeout=60) for handle in handles))
        assert len(set(pids)) == 3
        assert os.getpid() not in pids
        assert Counter(n for _, n, _ in nodes.lines("begin")) == Counter(range(60))


async def test_a_run_that_another_node_executes_is_watched_with_its_progress(cluster):
    async with cluster(1) as nodes:
        handle = await nodes.start("tell", Told(n=7))
        seen = []
        async with asyncio.timeout(60):
            async for run in handle.watch():
                seen.append(run)
                if run.progress is not None and not run.ended:
                    assert (run.progress.fraction, run.progress.text) == (0.5, "half of 7")
                    await nodes.app.send(Came(n=7))
        assert (seen[-1].status, seen[-1].progress.fraction) == ("COMPLETED", 1.0)
        assert await handle.result(timeout=30) != os.getpid()


async def test_a_killed_node_loses_nothing(cluster):
    async with cluster(3) as nodes:
        handles = [await nodes.start("work", Go(n=n, seconds=0.5)) for n in range(30)]
        victim = nodes.processes[0]
        await nodes.until(lambda: any(pid == victim.pid for _, _, pid in nodes.lines("begin")))
        victim.kill()
        pids = await asyncio.gather(*(handle.result(timeout=60) for handle in handles))
        cut_off = {n for _, n, pid in nodes.lines("begin") if pid == victim.pid} - {n for _, n, pid in nodes.lines("end") if pid == victim.pid}
        assert cut_off
        assert all(pids[n] != victim.pid for n in cut_off)
        begun = Counter(n for _, n, _ in nodes.lines("begin"))
        assert all(count == (2 if n in cut_off else 1) for n, count in begun.items())


async def test_the_late_result_of_a_node_that_was_stopped_past_its_lease_is_refused(cluster):
    async with cluster(1) as nodes:
        handle = await nodes.start("work", Go(n=1, seconds=1.5))
        await nodes.until(lambda: nodes.lines("begin"))
        stopped = nodes.processes[0]
        stopped.send_signal(signal.SIGSTOP)
        await nodes.add()
        other = nodes.processes[1]
        # the other takes it over once the lease has run out, and it alone is recorded
        assert await handle.result(timeout=60) == other.pid
        stopped.send_signal(signal.SIGCONT)
        await nodes.until(lambda: any(pid == stopped.pid for _, _, pid in nodes.lines("end", "cancelled")))
        run = await nodes.engine.reader.run(handle.id)
        assert [step.data for step in run.steps if step.key == "body"] == [b"%d" % other.pid]
        assert run.run.status == "COMPLETED"
        # it goes on as a new node
        other.kill()
        assert await (await nodes.start("work", Go(n=2))).result(timeout=60) == stopped.pid


async def test_a_node_that_leads_dies_and_another_recovers_what_it_left(cluster):
    async with cluster(1, first=1) as nodes:
        assert not nodes.engine.store.leads
        handles = [await nodes.start("work", Go(n=n, seconds=0.5)) for n in range(8)]
        await nodes.until(lambda: len({pid for _, _, pid in nodes.lines("begin")}) == 2)
        nodes.processes[0].kill()
        pids = await asyncio.gather(*(handle.result(timeout=60) for handle in handles))
        assert nodes.processes[1].pid in pids


@pytest.mark.parametrize("options", ["&lease_seconds=5", "&lease_seconds=5&pooler=transaction"], ids=["listening", "pooled"])
async def test_a_wait_is_resolved_on_the_node_that_holds_its_run(cluster, options):
    async with cluster(2, options) as nodes:
        handles = [await nodes.start("wait", Wanted(n=n)) for n in range(10)]
        await nodes.until(lambda: len(nodes.lines("waiting")) == 10)
        for n in range(10):
            await nodes.app.send(Came(n=n))
        results = await asyncio.gather(*(handle.result(timeout=60) for handle in handles))
        assert results == list(range(10))
        assert Counter(n for _, n, _ in nodes.lines("came")) == Counter(range(10))


async def test_cancelling_elsewhere_reaches_the_code(cluster):
    async with cluster(1) as nodes:
        handle = await nodes.start("work", Go(n=1, seconds=60))
        await nodes.until(lambda: nodes.lines("begin"))
        assert await handle.cancel()
        with pytest.raises(RunCancelledError):
            await handle.result(timeout=60)
        await nodes.until(lambda: nodes.lines("cancelled"))


async def test_a_pause_on_one_node_holds_on_all(cluster):
    async with cluster(2) as nodes:
        await nodes.engine.flow_control.pause("cluster-work", "hold")
        # by then every node has looked, whether it has heard or not
        await asyncio.sleep(4.0)
        handle = await nodes.start("work", Go(n=1))
        with pytest.raises(TimeoutError):
            await handle.result(timeout=1.5)
        assert not nodes.lines("begin")
        await nodes.engine.flow_control.resume("cluster-work")
        await handle.result(timeout=60)


async def test_a_concurrency_limit_holds_across_nodes_and_a_kill_leaks_no_place(cluster):
    async with cluster(3) as nodes:
        handles = [await nodes.start("narrow", Narrow(n=n)) for n in range(40)]
        await nodes.until(lambda: len(nodes.lines("out")) > 5)
        nodes.processes[0].kill()
        await asyncio.gather(*(handle.result(timeout=60) for handle in handles))
        inside: set[tuple[int, int]] = set()
        for word, n, pid in nodes.lines("in", "out"):
            inside = {one for one in inside if one[1] != nodes.processes[0].pid or word != "in" or len(inside) < 2}
            inside = inside | {(n, pid)} if word == "in" else inside - {(n, pid)}
            assert len(inside) <= 2
        assert not nodes.engine.store.lease_counts.get("l", 0)
