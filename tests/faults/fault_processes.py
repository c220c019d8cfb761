"""Starting, watching and killing the processes under test."""

from __future__ import annotations

import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import fault_disk

HERE = Path(__file__).parent
SOURCE = HERE.parent.parent / "src"
PACKAGE = Path(os.environ.get("HOLDFAST_PACKAGE") or SOURCE)
"""Where processes under test import holdfast from; the mutation check sets it."""


class Child:
    """A process under test."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid = pid
        self.log = log
        self.said: queue.Queue[dict[str, Any]] = queue.Queue()
        self._ended = threading.Event()
        self.status: int | None = None

    def hear(self, message: dict[str, Any]) -> None:
        """Something it said, or its end."""
        if "exit" in message:
            self.status = message["exit"]
            self._ended.set()
        self.said.put(message)

    def expect(self, field: str, timeout: float) -> Any:
        """The value of the next message with this field; None when it ends or the time runs out without."""
        try:
            while True:
                message = self.said.get(timeout=timeout)
                if field in message:
                    return message[field]
                if "exit" in message:
                    return None
        except queue.Empty:
            return None

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """Send it a signal, if it still lives."""
        if self.status is None:
            try:
                os.kill(self.pid, signum)
            except ProcessLookupError:
                pass

    def wait(self, timeout: float = 60) -> int:
        """Its exit status; negative for a signal."""
        if not self._ended.wait(timeout):
            self.kill(signal.SIGABRT)
            self._ended.wait(5)
            self.kill()
            raise AssertionError(f"process {self.pid} did not end in {timeout} s:\n{self.words()}")
        assert self.status is not None
        return self.status

    def words(self) -> str:
        """What it wrote to standard error."""
        return self.log.read_text(errors="replace")[-8000:] if self.log.exists() else ""


class Nursery:
    """The parent of the processes under test; see fault_worker.py."""

    def __init__(self, *, preload: bool = False, package: Path = PACKAGE) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(package), str(HERE)])}
        for name in ("INNGEST_DEV", "INNGEST_EVENT_KEY", "INNGEST_SIGNING_KEY", "HOLDFAST_STORE"):
            environment.pop(name, None)
        if preload:
            environment["LD_PRELOAD"] = str(fault_disk.library())
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "fault_worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=HERE,
        )
        self._tickets = itertools.count(1)
        self._births: dict[int, queue.Queue[Child]] = {}
        self._logs: dict[int, Path] = {}
        self._children: dict[int, Child] = {}
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def start(self, config: dict[str, Any]) -> Child:
        """A new process."""
        ticket = next(self._tickets)
        birth: queue.Queue[Child] = queue.Queue()
        with self._lock:
            self._births[ticket] = birth
            self._logs[ticket] = Path(config["log"])
            assert self._process.stdin is not None
            self._process.stdin.write((json.dumps({**config, "ticket": ticket}) + "\n").encode())
            self._process.stdin.flush()
        return birth.get(timeout=60)

    def run(self, config: dict[str, Any], timeout: float = 60) -> int:
        """A whole life; its exit status."""
        return self.start(config).wait(timeout)

    def close(self) -> None:
        """End the parent; children still alive end with it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._reader.join(20)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        early: dict[int, list[dict[str, Any]]] = {}
        for line in self._process.stdout:
            message = json.loads(line)
            pid = message["pid"]
            if "born" in message:
                ticket = message["born"]
                child = self._children[pid] = Child(pid, self._logs.pop(ticket))
                for word in early.pop(pid, ()):
                    child.hear(word)
                self._births.pop(ticket).put(child)
            elif pid in self._children:
                self._children[pid].hear(message)
                if "exit" in message:
                    del self._children[pid]
            else:
                early.setdefault(pid, []).append(message)
