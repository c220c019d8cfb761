"""The demo: its scenario holds, and its table notices sabotage."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from ports import free_port

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


class Demo:
    """The demo's command, with ports and data of its own."""

    def __init__(self, data: Path, *options: str) -> None:
        self.dashboard, self.shop, self.inbox, self.landing = (free_port() for _ in range(4))
        ports = ["--landing-port", self.landing, "--dashboard-port", self.dashboard]
        ports += ["--shop-port", self.shop, "--inbox-port", self.inbox]
        ports += ["--apps-port", 0, "--app-dashboards-port", 0]
        self.command = [sys.executable, "-m", "examples.demo", *map(str, ports), "--data", str(data), *options]
        self.environ = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}

    def run(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command, cwd=ROOT, env=self.environ, capture_output=True, text=True, timeout=200, check=False)

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(self.command, cwd=ROOT, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def table(output: str) -> list[list[str]]:
    """The table's cells; a line that only goes on with the one above has no verdict, and is left out."""
    lines = [[cell.strip() for cell in line[1:-1].split("│")] for line in output.splitlines() if line.startswith("│")]
    return [cells for cells in lines if len(cells) == 6 and cells[5]]


def rows(output: str) -> dict[str, str]:
    """The table's expectations and verdicts."""
    return {f"{cells[1]} ({cells[2]}: {cells[3]})": cells[5] for cells in table(output)}


def requirements(output: str) -> set[str]:
    """The requirements that the table has a row for."""
    return {shown for cells in table(output) for shown in cells[0].split()}


@pytest.mark.timeout(240)
def test_once_everything_holds(tmp_path):
    started = time.monotonic()
    done = Demo(tmp_path / "data", "--once").run()
    assert done.returncode == 0, done.stdout + done.stderr
    verdicts = rows(done.stdout)
    assert len(verdicts) >= 50
    for app in ("catalogue", "studio", "inbox"):
        assert any(expectation.startswith(f"{app}: ") for expectation in verdicts)
    assert set(verdicts.values()) == {"ok"}
    wanted = {f"{letter}{number}" for letter, last in {"A": 8, "B": 8, "C": 3, "D": 7}.items() for number in range(1, last + 1)}
    assert requirements(done.stdout) >= wanted
    assert "expectations hold" in done.stdout
    assert time.monotonic() - started < 180


@pytest.mark.parametrize(
    ("sabotage", "noticed"),
    [
        ("mail-step", ["5 purchases", "2 refunds", "3 people", "the mail server refuses", "an address always fails"]),
        ("idempotency", ["a webhook is delivered 3 times", "a webhook is delivered 10 times", "one payment is reported", "in all, nobody"]),
        ("server-killed", ["kill -9 with 4 mails", "their orders are marked", "nothing else went wrong", "the scenario itself"]),
    ],
)
def test_sabotage_is_noticed(tmp_path, sabotage, noticed):
    done = Demo(tmp_path / "data", "--once", "--only-storefront", "--sabotage", sabotage).run()
    assert done.returncode == 1, done.stdout + done.stderr
    off = [expectation for expectation, verdict in rows(done.stdout).items() if verdict == "OFF"]
    for start in noticed:
        assert any(expectation.startswith(start) for expectation in off), (start, done.stdout)


def test_a_taken_port_is_said(tmp_path):
    demo = Demo(tmp_path / "data", "--once")
    with socket.create_server(("127.0.0.1", demo.inbox)):
        done = demo.run()
    assert done.returncode == 2
    assert f"port {demo.inbox} is taken, and the inbox needs it" in done.stdout
    assert "--inbox-port" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_it_goes_on_until_it_is_interrupted(tmp_path):
    demo = Demo(tmp_path / "data", "--only-storefront")
    process = demo.start()
    try:
        output = ""
        assert process.stdout is not None
        for line in process.stdout:
            output += line
            if "a trickle of traffic goes on" in line:
                break
        assert {"ok"} == set(rows(output).values()), output
        landing = httpx.get(f"http://127.0.0.1:{demo.landing}/").text
        assert f'<a href="http://127.0.0.1:{demo.dashboard}/dead-letters">' in landing
        assert "kill -9 with 4 mails on their way" in landing
        page = httpx.get(f"http://127.0.0.1:{demo.inbox}/").text
        known = int(re.search(r"Inbox: (\d+) e-mails", page)[1])
        deadline = time.monotonic() + 60
        while httpx.get(f"http://127.0.0.1:{demo.inbox}/api/count").json()["count"] <= known:
            assert time.monotonic() < deadline, "no further mail came"
            time.sleep(0.1)
        assert httpx.get(f"http://127.0.0.1:{demo.inbox}/mails/1").status_code == 200
        assert httpx.get(f"http://127.0.0.1:{demo.inbox}/mails/0").status_code == 404
    finally:
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    assert "stopped" in rest
    assert "Traceback" not in rest
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{demo.shop}/health")
