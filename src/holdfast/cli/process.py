"""One server process: loads the apps, runs the engine and the HTTP server, and drains when it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from holdfast.base.errors import ConfigurationError, HoldfastError
from holdfast.cli.banner import greeting, problem_text, reloaded
from holdfast.cli.console import err, out, say
from holdfast.cli.engines import engine_options, loop_factory
from holdfast.cli.loading import Loaded, explain, find_target, load, source_directories
from holdfast.cli.log_output import configure_logging
from holdfast.cli.settings import ProcessSettings
from holdfast.cli.worker_calls import Inline
from holdfast.cli.workers import WorkerPool
from holdfast.compose import build_engine, received
from holdfast.dashboard.humanize import plural
from holdfast.engine.engine import Engine
from holdfast.server.serve import serving
from holdfast.server.settings import ServerSettings
from holdfast.server.syncing import Syncing
from holdfast.store.urls import is_postgres

Tell = Callable[[Sequence[str], str | None], None]
"""Told the directories of the sources once they are loaded, and again, with the server's address, once it answers."""


class BrokenAppError(ConfigurationError):
    """The apps were loaded, but the engine can't start with them. Their sources may change."""

    code = "app_broken"


class ServerProcess:
    """A server from its first line of output to its drain.

    Args:
        settings: What it was told at start.
        server: Keys and names for the HTTP server.
        sock: Where it listens.
        greeted: Whether the user has seen the addresses; then one line replaces the banner.
        changed: The files whose change led to this start.
        problem: Why it is to start without the apps, to be shown in their place.
        tell: Hears how far it is.
    """

    def __init__(
        self,
        settings: ProcessSettings,
        server: ServerSettings,
        sock: socket.socket,
        *,
        greeted: bool = False,
        changed: Sequence[str] = (),
        problem: str | None = None,
        tell: Tell | None = None,
    ) -> None:
        self._settings = settings
        self._server = server
        self._sock = sock
        self._greeted = greeted
        self._changed = changed
        self._problem = problem
        self._tell = tell or _nobody
        self._stop = asyncio.Event()

    def load(self) -> Loaded:
        """Import the apps.

        Raises:
            ConfigurationError: one can't be imported, and nobody waits for its source to change.
        """
        configure_logging(self._settings.log_level, self._settings.log_format)
        if self._problem is not None:
            return Loaded([], {}, [self._problem], [])
        loaded = load(self._targets())
        self._tell(source_directories(loaded), None)
        for problem in loaded.problems:
            err().print(problem_text(problem), soft_wrap=True)
        if loaded.problems and not self._settings.reload:
            raise ConfigurationError("the app can't be loaded; nothing was started")
        return loaded

    async def run(self, loaded: Loaded) -> None:
        """Serve until told to stop, then let running steps finish.

        Raises:
            BrokenAppError: it can't run with these apps, and might with other sources.
            HoldfastError: it can't run; the message says why.
        """
        _keep_out_of_version_control(self._settings.store)
        async with AsyncExitStack() as stack:
            engine = await self._enter_engine(stack, loaded)
            served = await stack.enter_async_context(serving(engine, self._server, sockets=[self._sock]))
            syncing = self._syncing(engine)
            syncing.start()
            stack.push_async_callback(syncing.stop)
            self._greet(loaded, served.url)
            self._tell(source_directories(loaded), served.url)
            await self._stop.wait()
            self._say_draining(engine)

    def _syncing(self, engine: Engine) -> Syncing:
        """What asks applications to register."""
        settings = self._settings
        return Syncing(
            engine, self._server, settings.urls, every=settings.poll_interval, discover=settings.discovery
        )

    def stop(self) -> None:
        """Stop accepting, drain, and end. May be called from a signal handler of the loop."""
        self._stop.set()

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stop.is_set()

    def _targets(self) -> Sequence[str]:
        if self._settings.targets:
            return self._settings.targets
        found = find_target(Path.cwd())
        return [] if found is None else [found]

    async def _enter_engine(self, stack: AsyncExitStack, loaded: Loaded) -> Engine:
        options = engine_options(self._settings)
        spread = self._settings.workers > 0 and bool(loaded.apps)
        if spread and is_postgres(self._settings.store):
            options.capacity = 0  # its workers are nodes of their own; this one accepts, and answers for runs
        try:
            engine = build_engine(
                loaded.apps, self._settings.store, options=options, app_errors=loaded.problems, shared=True
            )
            self._server.sign_calls(engine.driver)
            pool = await self._employ(stack, engine, loaded) if spread else None
            if pool is None:
                engine.driver.workers = inline = Inline(loaded.apps, engine)
                stack.push_async_callback(inline.close)
            await stack.enter_async_context(received(engine, server=True))
            if pool is not None:
                await pool.start(engine)
            return engine
        except HoldfastError as error:
            # before a first greeting, a store of somebody else's is a mistake of the command line, not of the source
            if loaded.apps and (self._greeted or isinstance(error, ConfigurationError)):
                raise BrokenAppError(str(error)) from error
            raise
        except Exception as error:
            raise BrokenAppError(str(explain("the app", error, "can't start"))) from error

    async def _employ(self, stack: AsyncExitStack, engine: Engine, loaded: Loaded) -> WorkerPool:
        keys = {
            name: value
            for name, value in {
                "INNGEST_SIGNING_KEY": self._server.signing_key,
                "INNGEST_EVENT_KEY": next(iter(self._server.event_keys), None),
                "HOLDFAST_ALLOW_PRIVATE_NETWORKS": self._server.allow_private_networks or None,
            }.items()
            if value is not None
        }
        pool = await stack.enter_async_context(WorkerPool(self._settings.workers, self._settings, keys))
        if not is_postgres(self._settings.store):
            engine.driver.workers = pool
        return pool

    def _greet(self, loaded: Loaded, url: str) -> None:
        if not self._greeted:
            out().print(greeting(self._settings, url, loaded), soft_wrap=True)
        elif not loaded.problems:
            out().print(reloaded(loaded, self._changed), soft_wrap=True)
        if loaded.problems:
            say("The server goes on without the app until its source changes.", "red")

    def _say_draining(self, engine: Engine) -> None:
        status = engine.status()
        running = int(status["in_flight"]) - int(status["waiting_in_memory"])
        if running and self._settings.reload:
            say(f"Waiting for {plural(running, 'run')} to finish the current step.")
        elif running:
            say(f"Stopping: waiting for {plural(running, 'run')} to finish the current step. Again to stop at once.")


def run_process(server: ServerProcess, lifeline: int | None = None) -> None:
    """Run a server in this process until it is told to stop.

    SIGINT or SIGTERM drains; a second one ends the process at once, with status 130.

    Args:
        server: The server.
        lifeline: When a supervisor started this process: a pipe whose end means that the supervisor is gone. The
            supervisor sends SIGTERM and decides about force; SIGINT from the terminal is its business alone.
    """
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_main(server, lifeline))


async def _main(server: ServerProcess, lifeline: int | None) -> None:
    # before the handlers are there, so that Ctrl-C also ends an import that hangs
    loaded = server.load()
    loop = asyncio.get_running_loop()
    if lifeline is None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, _stop_or_end, server)
    else:
        loop.add_signal_handler(signal.SIGTERM, server.stop)
        loop.add_reader(lifeline, _supervisor_gone, loop, lifeline, server)
    await server.run(loaded)


def _stop_or_end(server: ServerProcess) -> None:
    if server.stopping:
        say("Stopped at once. What was running goes on at the next start.", "yellow")
        os._exit(130)
    server.stop()


def _supervisor_gone(loop: asyncio.AbstractEventLoop, lifeline: int, server: ServerProcess) -> None:
    loop.remove_reader(lifeline)
    server.stop()


def _nobody(directories: Sequence[str], url: str | None) -> None:
    """Nobody waits to hear."""


def _keep_out_of_version_control(store: str) -> None:
    """A new `.holdfast` directory gets a .gitignore, as other tools' data directories have."""
    directory = Path(".holdfast")
    if store.startswith("sqlite:///.holdfast/") and not directory.exists():
        directory.mkdir()
        (directory / ".gitignore").write_text("*\n", encoding="ascii")
