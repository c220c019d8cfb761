"""`python -m holdfast.cli.worker SETTINGS`: a process that executes functions for a server process, told `WorkerSettings` as JSON.

On SQLite it executes calls of the server, which alone has the store. On PostgreSQL it is a node of its own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from holdfast.base.errors import HoldfastError
from holdfast.cli.commands import Problem
from holdfast.cli.engines import engine_options, loop_factory
from holdfast.cli.loading import find_target, load
from holdfast.cli.log_output import configure_logging
from holdfast.cli.server_settings import server_settings
from holdfast.cli.settings import ProcessSettings
from holdfast.cli.worker_calls import SERVER_METHODS, WORKER_METHODS, Executor
from holdfast.compose import build_engine
from holdfast.engine.engine import Engine
from holdfast.engine.interpreter import Interpreter
from holdfast.neighbours.connection import Connection, Gone, Lost
from holdfast.neighbours.follower import Follower
from holdfast.neighbours.reception import Reception
from holdfast.sdk.app import App
from holdfast.sdk.sender import Control
from holdfast.store.sqlite.connection import StoreHeldError
from holdfast.store.urls import is_postgres

_CLAIM_BATCH = 10
"""Few runs at once, so that those that come together are spread over the workers."""


class WorkerSettings(msgspec.Struct, frozen=True):
    """What a worker is told at start."""

    process: ProcessSettings
    server: str
    """The server's socket."""
    socket: str
    """Its own, on which it says that it is ready, and is called."""
    lifeline_fd: int
    """A pipe whose end means that the server is gone."""


async def work(settings: WorkerSettings, apps: Sequence[App]) -> None:
    """Work until told to stop, or until the server is gone."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    node = is_postgres(settings.process.store)
    # what an executor does without its server can't be recorded, and whoever has the store next does it again
    loop.add_reader(settings.lifeline_fd, stop.set if node else _end)
    interpreter = Interpreter()
    interpreter.relax_collector()
    interpreter.switch_sooner()  # bodies that compute are what it is for, and its loop must get a word in
    async with AsyncExitStack() as stack:
        executor: Engine | Executor
        if node:
            executor = await stack.enter_async_context(_node(settings.process, apps))
        else:
            executor = await stack.enter_async_context(_executor(Path(settings.server), apps))
        reception = Reception(
            executor, Path(settings.socket), [app.id for app in apps], lambda: True, methods=WORKER_METHODS
        )
        await reception.open()
        try:
            await stop.wait()
        finally:
            loop.remove_reader(settings.lifeline_fd)
            reception.shut()
            await reception.disconnect()


@asynccontextmanager
async def _executor(server: Path, apps: Sequence[App]) -> AsyncIterator[Executor]:
    """Executes calls; what the functions ask of their app, it asks the server."""
    connection = await Connection.open(server, (), SERVER_METHODS)

    async def ask(name: str, args: Sequence[Any]) -> Any:
        try:
            return await connection.ask(name, args)
        except (Gone, Lost) as error:
            raise HoldfastError("the server process is gone") from error

    async with Follower(apps, server, _never):
        executor = Executor(apps, ask)
        try:
            yield executor
        finally:
            await executor.close()
            await connection.close()


@asynccontextmanager
async def _node(settings: ProcessSettings, apps: Sequence[App]) -> AsyncIterator[Engine]:
    """A node that claims its work from the database itself."""
    server = server_settings(settings)
    options = engine_options(settings)
    options.claim_batch = _CLAIM_BATCH
    engine = build_engine(apps, settings.store, options=options)
    server.sign_calls(engine.driver)
    async with engine:
        yield engine


@asynccontextmanager
async def _never() -> AsyncIterator[Control]:
    """A worker never becomes the owner: it ends with its server."""
    raise StoreHeldError("the server has the store", shared=True)
    yield  # pragma: no cover


def _end(status: int = 0) -> None:
    """End at once: threads of bodies that go on would keep the interpreter waiting for them."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main(argument: str) -> int:
    """Run until SIGTERM or the end of the server; the exit status."""
    settings = msgspec.json.decode(argument, type=WorkerSettings)
    process = settings.process
    configure_logging(process.log_level, process.log_format)
    found = find_target(Path.cwd())
    loaded = load(process.targets or ([found] if found else []))
    if loaded.problems:
        Problem("\n".join(loaded.problems)).show()
        return 1
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(work(settings, loaded.apps))
    except HoldfastError as error:
        Problem(str(error)).show()
        return 1
    except ConnectionError:
        return 1 if os.path.exists(settings.server) else 0  # noqa: PTH110 - the server went while this one began
    return 0


if __name__ == "__main__":
    _end(main(sys.argv[1]))
