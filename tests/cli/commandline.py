"""The real command in a process of its own, and small real HTTP servers for it to meet."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src"
PATIENCE = 60.0


def environment(**extra: str) -> dict[str, str]:
    """The process's environment without anything that configures holdfast."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("INNGEST_", "HOLDFAST_"))}
    return {**env, "PYTHONPATH": str(SRC), "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", **extra}


@dataclass
class Result:
    """What a command that has ended printed."""

    code: int
    out: str
    err: str


@dataclass
class Running:
    """A command that is running, and the lines it has printed so far."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    _queue: queue.Queue[str | None] = field(default_factory=queue.Queue)
    _readers: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        for stream in (self.process.stdout, self.process.stderr):
            reader = threading.Thread(target=self._read, args=(stream,))
            reader.start()
            self._readers.append(reader)

    def _read(self, stream) -> None:  # noqa: ANN001
        with stream:
            for line in stream:
                self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def wait_for(self, pattern: str, patience: float = PATIENCE) -> re.Match[str]:
        """The next line, from where one last looked, that matches; fails with all output if it does not come."""
        deadline = time.monotonic() + patience
        open_streams = len(self._readers)
        while open_streams:
            try:
                line = self._queue.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                break
            if line is None:
                open_streams -= 1
                continue
            self.lines.append(line)
            if match := re.search(pattern, line):
                return match
        pytest.fail(f"no line matched {pattern!r}; the command printed:\n" + "\n".join(self.lines))

    def url(self) -> str:
        """The address in the banner, once it is there."""
        return self.wait_for(r"Dashboard\s+(http://\S+)").group(1)

    def end(self, number: int = signal.SIGTERM, patience: float = PATIENCE) -> int:
        """Send a signal and wait for the end; the exit status."""
        self.process.send_signal(number)
        return self.wait(patience)

    def wait(self, patience: float = PATIENCE) -> int:
        """Wait for the end; the exit status. All output is in `lines` then."""
        try:
            code = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail("the command did not end; it printed:\n" + "\n".join(self.lines))
        self._drain()
        return code

    def kill(self) -> None:
        """End it without warning, with everything it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._drain()

    def _drain(self) -> None:
        for reader in self._readers:
            reader.join(PATIENCE)
        while not self._queue.empty():
            line = self._queue.get()
            if line is not None:
                self.lines.append(line)


@dataclass
class Cli:
    """`holdfast` in a directory."""

    directory: Path
    started: list[Running] = field(default_factory=list)

    def run(self, *args: str, input: str | None = None, **env: str) -> Result:  # noqa: A002
        """Run a command to its end."""
        done = subprocess.run(
            [sys.executable, "-m", "holdfast", *args],
            cwd=self.directory, env=environment(**env), input=input, stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True, text=True, timeout=120,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def run_python(self, code: str) -> Result:
        """Run Python code to its end."""
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=self.directory, env=environment(), capture_output=True, text=True, timeout=120
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def start(self, *args: str, **env: str) -> Running:
        """Start a command that goes on."""
        process = subprocess.Popen(
            [sys.executable, "-m", "holdfast", *args],
            cwd=self.directory, env=environment(**env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        )
        running = Running(process)
        self.started.append(running)
        return running

    def write(self, name: str, text: str) -> Path:
        """A file in the directory."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path


def reply(handler: BaseHTTPRequestHandler, status: int, body: str | bytes, **headers: str) -> None:
    """Answer a request."""
    raw = body.encode() if isinstance(body, str) else body
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("content-length", str(len(raw)))
    handler.end_headers()
    handler.wfile.write(raw)
