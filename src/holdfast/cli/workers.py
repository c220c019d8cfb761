"""The worker processes of a server: starting them, handing calls to them, and starting them again when they die."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import msgspec

from holdfast.base.clock import monotonic
from holdfast.base.errors import ConfigurationError, HoldfastError
from holdfast.cli.settings import ProcessSettings
from holdfast.cli.supervisor import how_ended
from holdfast.cli.worker import WorkerSettings
from holdfast.cli.worker_calls import SERVER_METHODS, WORKER_METHODS
from holdfast.engine.engine import Engine
from holdfast.engine.workers import WorkerDied
from holdfast.neighbours.connection import Connection, Gone, Lost
from holdfast.neighbours.reception import Reception

_log = logging.getLogger("holdfast")
_START_SECONDS = 60.0
_POLL_SECONDS = 0.02
_HEALTHY_AFTER = 10.0
_LONGEST_PAUSE = 10.0
_STOP_MARGIN = 5.0


class WorkerPool:
    """So many processes, spread over which runs are executed.

    Args:
        count: How many.
        settings: Those of the server process.
        keys: Variables of the environment that workers need beside the server's own.
    """

    take_new = True

    def __init__(self, count: int, settings: ProcessSettings, keys: Mapping[str, str]) -> None:
        self._count = count
        self._settings = settings
        self._keys = keys
        self._directory: tempfile.TemporaryDirectory[str]
        self._reception: Reception | None = None
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = False
        self._up: dict[int, Connection] = {}
        """Workers that take calls, by process id."""
        self._busy: dict[int, int] = {}
        self._watched: set[int] = set()
        """Workers that have a run which may be what kills workers."""
        self._changed = asyncio.Event()
        self._started: list[asyncio.Future[None]] = []
        self._processes: set[asyncio.subprocess.Process] = set()

    async def __aenter__(self) -> Self:
        self._directory = tempfile.TemporaryDirectory(prefix="holdfast-workers-")  # of mode 0700: nobody else can come in
        return self

    async def __aexit__(self, *exc: object) -> None:
        """End the workers: those of a server that has drained have nothing left to do; nodes drain now."""
        self._stopping = True
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        if self._keepers:
            await asyncio.wait(self._keepers, timeout=self._settings.drain_seconds + _STOP_MARGIN)
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        if self._reception is not None:
            self._reception.shut()
            await self._reception.disconnect()
        self._directory.cleanup()

    async def start(self, engine: Engine) -> None:
        """Start the workers of a running engine, and wait until all are ready.

        Raises:
            ConfigurationError: one ended instead.
        """

        def ready() -> bool:
            return engine.running and not engine.draining

        self._reception = Reception(engine, self._path("server"), list(engine.apps), ready, methods=SERVER_METHODS)
        await self._reception.open()
        loop = asyncio.get_running_loop()
        self._started = [loop.create_future() for _ in range(self._count)]
        self._keepers = [asyncio.create_task(self._keep(number)) for number in range(self._count)]
        await asyncio.gather(*self._started)

    @property
    def pids(self) -> list[int]:
        """The workers that are ready."""
        return list(self._up)

    # -- calls -----------------------------------------------------------------------------------------------------------

    async def execute(
        self, app: str, slug: str, target: str, headers: Mapping[str, str], body: bytes, *, suspect: bool = False
    ) -> tuple[int, Mapping[str, str], bytes]:
        """See `Workers.execute`. The worker with the fewest calls has it; without any, it waits for one."""
        while True:
            pid = await self._choose(suspect=suspect)
            connection = self._up[pid]
            self._busy[pid] += 1
            if suspect:
                self._watched.add(pid)
            try:
                answer: tuple[int, Mapping[str, str], bytes] = await connection.ask(
                    "execute", (app, slug, target, dict(headers), body)
                )
                return answer
            except Gone:
                self._up.pop(pid, None)  # it was not begun
            except Lost as error:
                raise WorkerDied(pid) from error
            finally:
                self._busy[pid] -= 1
                if suspect:
                    self._watched.discard(pid)
                    self._changed.set()

    async def _choose(self, *, suspect: bool) -> int:
        """Suspects have different workers, so that the death of one says which of them it was; others keep away from them."""
        while True:
            free = [pid for pid in self._up if not (suspect and pid in self._watched)]
            if free:
                return min(free, key=lambda pid: (pid in self._watched, self._busy[pid]))
            self._changed.clear()
            await self._changed.wait()

    # -- processes ---------------------------------------------------------------------------------------------------------

    async def _keep(self, number: int) -> None:
        """One worker after the other, for as long as the server runs."""
        crashes = 0
        while not self._stopping:
            born = monotonic()
            code = await self._live(number)
            if self._stopping:
                return
            started = self._started[number]
            if not started.done():
                started.set_exception(
                    ConfigurationError(f"a worker process {how_ended(code)} before it was ready; its own words say why")
                )
                return
            crashes = 0 if monotonic() - born > _HEALTHY_AFTER else crashes + 1
            pause = 0.0 if crashes <= 1 else min(_LONGEST_PAUSE, 0.5 * 2 ** (crashes - 2))
            _log.error("a worker process %s; another one takes its place in %g s", how_ended(code), pause)
            await asyncio.sleep(pause)

    async def _live(self, number: int) -> int:
        """One worker from its start to its end; its exit status."""
        path = self._path(f"worker-{number}")
        path.unlink(missing_ok=True)
        lifeline, alive = os.pipe()
        settings = WorkerSettings(self._settings, str(self._path("server")), str(path), lifeline)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "holdfast.cli.worker", msgspec.json.encode(settings).decode(),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(lifeline,),
                env={**os.environ, **self._keys},
                # the terminal sends Ctrl-C to every process of its group; the server tells its workers when to stop
                start_new_session=True,
            )  # fmt: skip
            os.close(lifeline)
            self._processes.add(process)
            ended = asyncio.create_task(process.wait())
            try:
                await self._attend(number, process.pid, path, ended)
                return await ended
            finally:
                self._processes.discard(process)
        finally:
            os.close(alive)

    async def _attend(self, number: int, pid: int, path: Path, ended: asyncio.Task[int]) -> None:
        """Once the worker is ready, give it calls until it ends."""
        connection = await self._connect(path, ended)
        if connection is None:
            return
        self._up[pid] = connection
        self._busy[pid] = 0
        self._changed.set()
        if not self._started[number].done():
            self._started[number].set_result(None)
        try:
            await connection.closed.wait()
        finally:
            self._up.pop(pid, None)
            await connection.close()

    async def _connect(self, path: Path, ended: asyncio.Task[int]) -> Connection | None:
        until = monotonic() + _START_SECONDS
        while not ended.done():
            try:
                return await Connection.open(path, (), WORKER_METHODS)
            except (OSError, HoldfastError) as error:
                if monotonic() > until:
                    _log.error("a worker process has not become ready in %g s: %s", _START_SECONDS, error)
                    until = monotonic() + _START_SECONDS
            await asyncio.wait({ended}, timeout=_POLL_SECONDS)
        return None

    def _path(self, name: str) -> Path:
        return Path(self._directory.name) / name
