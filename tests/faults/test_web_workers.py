"""`uvicorn --workers 4` on one SQLite file: every process is killed in turn while customers post, and nothing is lost or doubled."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fault_checker import Checker
from fault_http import Client
from ports import free_port
from fault_ledger import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "src"
COMPLETED = 2


class Web:
    """uvicorn and its worker processes."""

    def __init__(self, directory: Path, workers: int) -> None:
        self.database = directory / "web.db"
        self.ledger = Ledger(directory / "ledger")
        self.log = directory / "log"
        self.port = free_port()
        self.client = Client(self.port, timeout=40)
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(SOURCE), str(HERE)]),
            "FAULT_STORE": f"sqlite:///{self.database}",
            "FAULT_LEDGER": str(self.ledger.path),
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "uvicorn", "fault_web:web", "--port", str(self.port), "--workers", str(workers),
                    "--timeout-worker-healthcheck", "10", "--log-level", "warning",
                ],
                env=self.environment, stdout=log, stderr=log, cwd=HERE,
            )  # fmt: skip

    def ups(self) -> list[int]:
        """The processes that have come up, in their order."""
        return [line["pid"] for line in self.ledger.lines() if line["what"] == "up"]

    def until_up(self, count: int) -> None:
        self.until(lambda: len(self.ups()) >= count, f"{count} workers to come up")

    def until(self, fact: Any, what: str, seconds: float = 90) -> None:
        try:
            self.client.until(what, fact, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log.read_text(errors='replace')[-6000:]}") from None

    def owner(self) -> int | None:
        """The process that holds the lock, as it wrote it down."""
        lock = self.database.with_name(self.database.name + "-lock")
        return json.loads(lock.read_bytes())["pid"] if lock.exists() and lock.read_bytes() else None

    def alive(self) -> list[int]:
        """Workers that run now."""
        return [pid for pid in dict.fromkeys(self.ups()) if Path(f"/proc/{pid}").exists() and _parent(pid) == self.process.pid]

    def settle(self) -> None:
        """Wait until all that was sent has been done."""

        def done() -> bool:
            status, answer = self.client.request("GET", "/open")
            return status == 200 and answer["left"] == 0

        self.until(done, "all runs to end", 90)

    def close(self) -> int:
        self.process.terminate()
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()
            for pid in self.alive():
                os.kill(pid, signal.SIGKILL)


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@pytest.fixture
def web(tmp_path):
    started = []

    def start(workers: int) -> Web:
        started.append(Web(tmp_path, workers))
        started[-1].until_up(workers)
        return started[-1]

    yield start
    for one in started:
        one.close()


class Customer(threading.Thread):
    """Posts one event after the other, each once; notes what was answered."""

    def __init__(self, web: Web, numbers: Any) -> None:
        super().__init__(daemon=True)
        self.web = web
        self.client = Client(web.port, timeout=60)
        self.numbers = numbers
        self.stopping = threading.Event()
        self.refused: list[Any] = []
        self.accepted: dict[int, str] = {}

    def run(self) -> None:
        for n in self.numbers:
            if self.stopping.is_set():
                return
            kind = ("order", "report")[n % 2]
            status, answer = self.client.request("POST", f"/send/{kind}/{n}")
            if status == 200:
                self.accepted[n] = answer["id"]
            elif status:
                self.refused.append(answer)
            time.sleep(random.uniform(0.01, 0.08))


def customers(web: Web, count: int) -> list[Customer]:
    crowd = [Customer(web, range(start, 1_000_000, count)) for start in range(count)]
    for one in crowd:
        one.start()
    return crowd


def stop(crowd: list[Customer]) -> dict[int, str]:
    """What they had accepted."""
    for one in crowd:
        one.stopping.set()
    for one in crowd:
        one.join(90)
        assert not one.is_alive()
    assert not [refusal for one in crowd for refusal in one.refused], "a send that can wait for the next owner does"
    return {n: event_id for one in crowd for n, event_id in one.accepted.items()}


def broken(web: Web, accepted: dict[int, str]) -> list[str]:
    """What of the promises was not kept. Events have no ids of their own here: their numbers say which they are."""
    wrong = Checker(web.database, web.ledger, {}).check()
    conn = sqlite3.connect(web.database)
    wanted = {"shop/order": {"faults-order": 1, "faults-wait-for-shipping": 1}, "shop/report": {"faults-report": 1}}
    events = conn.execute(
        "SELECT json_extract(CAST(data AS TEXT), '$.n'), name, id FROM events WHERE name IN ('shop/order', 'shop/report')"
    ).fetchall()
    counts = Counter(n for n, _, _ in events)
    wrong += [f"event {n} was accepted {count} times" for n, count in counts.items() if count != 1]
    wrong += [f"event {n} was acknowledged and is not there" for n in accepted if n not in counts]
    for n, name, raw in events:
        runs = conn.execute(
            "SELECT f.slug, r.status FROM runs r JOIN functions f ON f.id = r.function_id WHERE r.event_id = ?", (raw,)
        ).fetchall()
        if Counter(slug for slug, _ in runs) != wanted[name] or {status for _, status in runs} != {COMPLETED}:
            wrong.append(f"event {n} has the runs {runs}")
    conn.close()
    return wrong


@pytest.mark.parametrize("kills", [3, pytest.param(12, marks=pytest.mark.long)])
def test_each_worker_is_killed_in_turn_under_load(web, kills):
    site = web(4)
    crowd = customers(site, 4)
    owners = [site.owner()]
    for victim in range(kills):
        before = len(site.ups())
        seen = sum(len(one.accepted) for one in crowd)
        site.until(lambda: sum(len(one.accepted) for one in crowd) > seen + 15, "customers to be served")
        pid = owners[-1] if victim % 2 == 0 else next(pid for pid in site.alive() if pid != owners[-1])
        os.kill(pid, signal.SIGKILL)
        if pid == owners[-1]:
            site.until(lambda: site.owner() not in (owners[-1], None), "another process to take the store over")
            owners.append(site.owner())
        site.until_up(before + 1)
    accepted = stop(crowd)
    site.settle()
    assert len(owners) >= 3
    assert len(accepted) > 45
    assert site.close() == 0
    assert broken(site, accepted) == []
    executed = {line["pid"] for line in site.ledger.lines() if line["what"] == "up"}
    assert set(owners) <= executed


SCRIPT = """
import asyncio, os, sys
from fault_web import app
from fault_app import Report
async def main():
    async with app.running(store=os.environ["FAULT_STORE"]):
        handle = await app.start(app.functions["report"], Report(n=-1))
        print(await handle.result(timeout=60))
asyncio.run(main())
"""
SYNC = """
from fault_web import app
from fault_app import Report
print(app.send_sync(Report(n=-3)).id)
"""


def test_a_shell_a_script_and_a_graceful_restart(web):
    site = web(2)
    crowd = customers(site, 2)
    first = site.owner()

    def run(script: str, **more: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", script], env={**site.environment, **more}, capture_output=True, text=True, timeout=90
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert len(run(SCRIPT)) == 32
    assert len(run(SYNC, HOLDFAST_STORE=site.environment["FAULT_STORE"])) == 26
    assert site.owner() == first, "they work through the owner"
    site.until(lambda: sum(len(one.accepted) for one in crowd) > 10, "customers to be served")
    os.kill(site.process.pid, signal.SIGHUP)  # uvicorn replaces its workers one after the other
    site.until(lambda: site.owner() not in (first, None), "another process to take the store over")
    site.until_up(3)
    accepted = stop(crowd)
    site.settle()
    assert site.close() == 0
    assert broken(site, accepted) == []
