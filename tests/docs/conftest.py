"""A fresh environment with holdfast installed, and a reader who types what a page says."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ports import free_port

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def fresh_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new virtual environment in which nothing is installed yet."""
    place = tmp_path_factory.mktemp("environment") / ".venv"
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    return place


class Reader:
    """Types the commands of a page into a shell, in a directory and an environment of its own."""

    def __init__(self, directory: Path, environment: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("INNGEST_", "HOLDFAST_", "PYTHON"))}
        self.env = clean | {
            "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
            "VIRTUAL_ENV": str(environment),
            "INNGEST_BASE_URL": self.url,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        self.server: subprocess.Popen[bytes] | None = None

    def types(self, command: str, cwd: Path | None = None) -> str:
        """Run a command to its end; what it printed."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command], cwd=cwd or self.directory, env=self.env, capture_output=True, text=True,
            timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def starts(self, command: str) -> None:
        """Run `holdfast dev ...` in its own terminal, on a port that is free here."""
        with (self.directory / "server.log").open("ab") as log:
            self.server = subprocess.Popen(
                ["bash", "-c", f"exec {command} --port {self.port}"], cwd=self.directory, env=self.env,
                start_new_session=True, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.waits_for(self.answers, f"{command!r} to answer", 30)

    def answers(self) -> bool:
        assert self.server is not None
        assert self.server.poll() is None, (self.directory / "server.log").read_text()
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as response:
                return response.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def stops(self, sign: signal.Signals) -> None:
        """SIGKILL to all of the server's processes, or Ctrl-C to the terminal's."""
        if self.server is not None and self.server.poll() is None:
            if sign is signal.SIGKILL:
                os.killpg(self.server.pid, sign)
            else:
                self.server.send_signal(sign)
            self.server.wait(timeout=60)
        self.server = None

    def sees(self, path: str) -> Any:
        """What the HTTP API answers."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=10) as response:
            return json.load(response)["data"]

    def waits_for(self, fact: Callable[[], Any], what: str, seconds: float) -> Any:
        """Look until something is true; only its own deadline can make it fail."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = fact()
            if found:
                return found
            time.sleep(0.1)
        log = self.directory / "server.log"
        raise AssertionError(f"waited {seconds} s for {what}\n{log.read_text() if log.exists() else ''}")

    def output_of(self, function: str, index: int = 0) -> Any:
        """The output of the nth run of a function, oldest first, once it has completed."""
        runs = [run for run in reversed(self.sees("/v1/runs?limit=100")) if run["function"] == function]
        if len(runs) <= index or runs[index]["status"] != "Completed":
            return None
        return self.sees(f"/v1/runs/{runs[index]['run_id']}")["output"]


@pytest.fixture
def reader(tmp_path: Path, fresh_environment: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path, fresh_environment)
    yield reader
    reader.stops(signal.SIGKILL)


@pytest.fixture
def commands_of() -> Callable[[Path], list[str]]:
    """The lines of a page's shell blocks, in order."""

    def read(page: Path) -> list[str]:
        blocks = re.findall(r"^```sh\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
        return [line for block in blocks for line in block.splitlines() if line.strip()]

    return read
