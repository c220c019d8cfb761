"""`holdfast dev` and `holdfast start` with `--workers`: functions execute in several processes, which may die."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from workers_app import Poison, Slow, Work, app, poison, slow, work

from holdfast import RunFailedError
from holdfast.engine.engine import EngineOptions

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

HERE = Path(__file__).parent
SRC = HERE.parents[1] / "src"
KEYS = {"INNGEST_EVENT_KEY": "k" * 32, "INNGEST_SIGNING_KEY": "signkey-prod-" + "ab" * 32}


class Server:
    """A server process with workers, and what its functions have written down."""

    def __init__(self, directory: Path, store: str, ledger: Path, arguments: tuple[str, ...]) -> None:
        self.store = store
        self.ledger = ledger
        self.log = directory / "log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("INNGEST_", "HOLDFAST_"))}
        environment |= {
            **KEYS, "PYTHONPATH": os.pathsep.join([str(SRC), str(HERE)]), "WORKERS_LEDGER": str(ledger), "NO_COLOR": "1",
        }  # fmt: skip
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "holdfast", *arguments, "--port", "0", "--host", "127.0.0.1", "--store", store],
                env=environment, cwd=directory, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def lines(self, word: str) -> list[tuple[int, int]]:
        """Number and process of each line that begins with a word."""
        text = self.ledger.read_text() if self.ledger.exists() else ""
        parsed = [line.split() for line in text.splitlines()]
        return [(int(n), int(pid)) for said, n, pid in parsed if said == word]

    async def until(self, fact: Callable[[], object], what: str, seconds: float = 60) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not fact():
                    assert self.process.poll() is None, self.words()
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"waited {seconds} s for {what}\n{self.words()}") from None

    def words(self) -> str:
        return self.log.read_text(errors="replace")[-6000:]

    def go(self) -> None:
        """Let slow bodies end."""
        Path(f"{self.ledger}.go").touch()

    def workers(self) -> set[int]:
        """The worker processes of this server that run now."""
        found = set()
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"holdfast.cli.worker\0" in words and self.store.encode() in words:
                found.add(int(entry.name))
        return found

    async def end(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        code = await asyncio.to_thread(self.process.wait, 60)
        async with asyncio.timeout(60):
            while self.workers():
                await asyncio.sleep(0.02)
        return code


@pytest.fixture(params=["sqlite", "postgres"])
def serve(request: pytest.FixtureRequest, tmp_path: Path):
    only = request.config.getoption("--store")
    if only not in (None, request.param):
        pytest.skip(f"on {only} only")
    if request.param == "sqlite":
        store, options = f"sqlite:///{tmp_path / 'workers.db'}", None
    else:
        store, options = request.getfixturevalue("postgres_url") + "&lease_seconds=4", EngineOptions(capacity=0)

    @asynccontextmanager
    async def running(*arguments: str) -> AsyncIterator[Server]:
        server = Server(tmp_path, store, tmp_path / "ledger", arguments)
        try:
            await server.until(lambda: "Dashboard" in server.words(), "the banner")
            # through the process that owns the file, or as a node that executes nothing
            async with app.running(store=store, options=options):
                yield server
        finally:
            server.process.kill()
            await asyncio.to_thread(server.process.wait, 30)
            for pid in server.workers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    return running


async def executed_by(at_once: int, wanted: set[int]) -> set[int]:
    """The processes that execute runs, once all that are wanted have."""
    executed: set[int] = set()
    async with asyncio.timeout(60):
        while not wanted <= executed:
            handles = [await app.start(work, Work(n=n)) for n in range(at_once)]
            executed |= {await handle.result() for handle in handles}
    return executed


@pytest.fixture(autouse=True)
def ledger_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKERS_LEDGER", str(tmp_path / "here"))


async def test_several_processes_execute_and_a_killed_one_is_replaced(serve, request):
    command = ("start",) if "postgres" in request.node.name else ("dev", "--no-discovery")  # with a supervisor above it all
    async with serve(*command, "workers_app", "--workers", "3") as server:
        pids = server.workers()
        assert len(pids) == 3
        assert await executed_by(30, pids) == pids

        handle = await app.start(slow, Slow(n=1))
        await server.until(lambda: server.lines("begin"), "the body to begin")
        victim = server.lines("begin")[0][1]
        os.kill(victim, signal.SIGKILL)
        await server.until(lambda: len(server.lines("begin")) == 2, "another worker to go on")
        second = server.lines("begin")[1][1]
        server.go()
        assert await handle.result(timeout=60) == [server.lines("before")[0][1], second]
        assert second != victim
        assert len(server.lines("before")) == 1, "what was recorded is not done again"
        assert (await handle.info()).attempt == 0, "the death of a worker is no failed attempt"
        await server.until(lambda: len(server.workers()) == 3, "another worker to take its place")
        fresh = server.workers() - pids
        assert len(fresh) == 1
        await server.until(lambda: [n for n, _ in server.lines("told")] == [1], "the event that a body sent to start its run")
        assert await server.end() == 0, server.words()


@pytest.mark.long
@pytest.mark.parametrize("serve", ["sqlite"], indirect=True)
async def test_a_run_that_kills_its_workers_fails_and_its_neighbours_go_on(serve):
    async with serve("start", "workers_app", "--workers", "2") as server:
        innocent = await app.start(slow, Slow(n=1))
        await server.until(lambda: server.lines("begin"), "the innocent run to begin")
        poisonous = await app.start(poison, Poison(n=2))
        with pytest.raises(RunFailedError, match="6 worker processes died one after the other"):
            await poisonous.result(timeout=120)
        assert len(server.lines("dying")) == 6
        server.go()
        await innocent.result(timeout=60)
        assert (await innocent.info()).status == "COMPLETED"
        assert len(server.lines("before")) == 1
        assert await server.end() == 0


@pytest.mark.long
@pytest.mark.parametrize("serve", ["sqlite"], indirect=True)
async def test_runs_go_on_when_the_number_of_workers_changes(serve, tmp_path):
    async with serve("start", "workers_app", "--workers", "1") as server:
        begun = await app.start(slow, Slow(n=1))
        await server.until(lambda: server.lines("begin"), "the run to begin in a worker")
        server.process.kill()
        async with asyncio.timeout(10):
            while server.workers():  # they don't outlive their server, whatever their bodies do
                await asyncio.sleep(0.02)
    async with serve("start", "workers_app") as server:
        assert server.workers() == set()
        inside = await app.start(slow, Slow(n=2))
        await server.until(lambda: (2, server.process.pid) in server.lines("begin"), "a run to begin in the server")
        await server.until(lambda: (1, server.process.pid) in server.lines("begin"), "the worker's run to go on in the server")
        server.process.kill()
    async with serve("start", "workers_app", "--workers", "1") as server:
        server.go()
        assert (await begun.result(timeout=60))[1] in server.workers()
        assert (await inside.result(timeout=60))[1] == server.process.pid
        assert Counter(n for n, _ in server.lines("before")) == {1: 1, 2: 1}
        assert await server.end() == 0


async def test_an_app_that_can_not_start_in_a_worker_is_refused(tmp_path):
    (tmp_path / "odd.py").write_text(
        "import sys\nfrom holdfast import App\nassert 'holdfast.cli.worker' not in sys.orig_argv, 'not here'\napp = App('odd')\n"
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "holdfast", "dev", "odd.py", "--no-reload", "--port", "0", "--workers", "2", "--no-discovery"],
        env={**os.environ, "PYTHONPATH": str(SRC), "NO_COLOR": "1"}, cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "AssertionError: not here" in done.stderr
    assert re.search(r"a worker process ended with status 1 before it was ready", done.stderr)
