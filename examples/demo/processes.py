"""An example application as a process of its own, which can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx

from .waiting import until

ROOT = Path(__file__).parents[2]
START_SECONDS = 120.0
STOP_SECONDS = 40.0
_PORTS = (10_000, 20_000)


class StartError(Exception):
    """The application did not come up; the message has the end of its log."""


class PortTakenError(Exception):
    """Another program listens where the demo wants to."""


def check_port(port: int, what: str, option: str) -> None:
    """Make sure that nothing listens on a port.

    Raises:
        PortTakenError: something does.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise PortTakenError(
                f"port {port} is taken, and {what} needs it: stop what listens there, or pass {option} with another"
            ) from error


def free_port() -> int:
    """A port that nobody has, below those that systems give out by themselves: no connection takes it before its program."""
    while True:
        port = random.randrange(*_PORTS)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue


class AppProcess:
    """An application's process.

    Args:
        port: Where the shop listens.
        dashboard_port: Where the event API and the dashboard listen.
        environ: Its settings, over the environment of this process.
        log: The file its output is appended to.
        module: What is run; the storefront itself unless given.
    """

    def __init__(
        self,
        *,
        port: int,
        dashboard_port: int,
        environ: Mapping[str, str],
        log: Path,
        module: tuple[str, ...] = ("examples.storefront",),
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.dashboard_url = f"http://127.0.0.1:{dashboard_port}"
        self._name = module[0]
        self._command = [sys.executable, "-m", *module, "--port", str(port)]
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
        address = {"APP_ENV": "development", "DASHBOARD_ADDRESS": f"127.0.0.1:{dashboard_port}", "PYTHONPATH": path}
        self._environ = {**os.environ, **address, **environ}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process's id."""
        if self._process is None:
            raise RuntimeError("the application has not been started")
        return self._process.pid

    async def start(self) -> None:
        """Start it, and wait until it and the dashboard answer.

        Raises:
            StartError: they don't.
        """
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220, S603 - it takes a moment, and the command is ours
                self._command, cwd=ROOT, env=self._environ, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        await until(self._answers_or_ended, START_SECONDS)
        if not await self._answers():
            await self.stop()
            tail = self._log.read_text(errors="replace")[-2000:]
            raise StartError(f"{self._name} did not come up; the end of {self._log}:\n{tail}")

    async def _answers_or_ended(self) -> bool:
        return await self._answers() or self._process is None or self._process.poll() is not None

    async def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            return False
        async with httpx.AsyncClient(timeout=2) as client:
            try:
                answers = [await client.get(f"{url}/health") for url in (self.url, self.dashboard_url)]
            except httpx.TransportError:
                return False
        return all(answer.status_code == 200 for answer in answers)

    async def kill(self) -> None:
        """End it at once, as a crash would: kill -9."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """Let it finish what it is doing, then end it."""
        await self._end(signal.SIGTERM)

    async def _end(self, number: signal.Signals) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(number)
        try:
            await asyncio.to_thread(process.wait, STOP_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await asyncio.to_thread(process.wait)
