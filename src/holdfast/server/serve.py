"""Listening: uvicorn inside a loop that is already running, stopped by its owner and not by signals."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import uvicorn
from starlette.applications import Starlette

from holdfast.base.errors import ConfigurationError
from holdfast.engine.engine import Engine
from holdfast.server.app import build_app
from holdfast.server.connections import BoundedProtocol
from holdfast.server.settings import ServerSettings

_BACKLOG = 2048
_NEW_CONNECTION_SECONDS, _NEW_CONNECTION_STEP = 0.25, 0.02
"""How long a stopping server waits for the first request of connections that were made just before."""
_KEEP_ALIVE_SECONDS = 65
"""Longer than the usual proxy's: the proxy closes idle connections, and never loses a request to one we close."""


class _Server(uvicorn.Server):
    """Takes no signals and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        # who connected just now has not been read from yet: to close on them would lose a request
        await asyncio.sleep(_NEW_CONNECTION_STEP)
        for _ in range(round(_NEW_CONNECTION_SECONDS / _NEW_CONNECTION_STEP)):
            if all(getattr(connection, "cycle", None) for connection in self.server_state.connections):
                break
            await asyncio.sleep(_NEW_CONNECTION_STEP)
        await super().shutdown(sockets)


@dataclass(frozen=True, slots=True)
class Serving:
    """A server that listens."""

    host: str
    port: int
    """The real one, when the settings asked for any."""
    app: Starlette

    @property
    def url(self) -> str:
        """Its address, for people on this machine."""
        host = {"0.0.0.0": "localhost", "::": "localhost", "127.0.0.1": "localhost"}.get(self.host, self.host)  # noqa: S104 - compared, not bound
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}{self.app.state.prefix}"


@asynccontextmanager
async def serving(
    engine: Engine, settings: ServerSettings, *, sockets: Sequence[socket.socket] = ()
) -> AsyncIterator[Serving]:
    """Serve for as long as the block lasts. Leaving it answers the requests in flight and ends streams.

    Args:
        engine: A running engine; stop it after this.
        settings: Where to listen, keys and limits.
        sockets: Listening already, instead of host and port of the settings. They are closed at the end.

    Raises:
        ConfigurationError: the address is in use or not to be had.
    """
    bound = list(sockets) or [bind(settings.host, settings.port)]
    host, port = bound[0].getsockname()[:2]
    app = build_app(engine, replace(settings, port=port))
    server = _Server(_config(app, settings))
    task = asyncio.create_task(server.serve(bound), name="holdfast-http")
    ready = asyncio.create_task(server.ready.wait())
    try:
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        yield Serving(host, port, app)
    finally:
        ready.cancel()
        app.state.closing.begin()
        server.should_exit = True
        await task
        for sock in bound:
            sock.close()


async def serve(
    engine: Engine,
    settings: ServerSettings,
    *,
    sockets: Sequence[socket.socket] = (),
    stop: asyncio.Event | None = None,
) -> None:
    """Serve until `stop` is set, or until cancelled.

    Args:
        engine: A running engine; stop it after this.
        settings: Where to listen, keys and limits.
        sockets: Listening already, instead of host and port of the settings.
        stop: Ends the serving; the owner sets it when a signal comes.

    Raises:
        ConfigurationError: the address is in use or not to be had.
    """
    async with serving(engine, settings, sockets=sockets):
        await (stop or asyncio.Event()).wait()


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ConfigurationError: with what to do about it.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise ConfigurationError(
            f"can't listen on {host!r}: {error.strerror}; use 127.0.0.1 for this machine only, 0.0.0.0 for all"
        ) from error
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise ConfigurationError(_refusal(host, port, error)) from error
    return sock


def _refusal(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} on {host} is in use, maybe by another holdfast: stop that, or choose another port "
            f'with --port (or serve="{host}:{port + 1}")'
        )
    if error.errno == errno.EACCES:
        return f"port {port} needs privileges this user doesn't have: choose one above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine: use 127.0.0.1 for this machine only, 0.0.0.0 for all"
    return f"can't listen on {host}:{port}: {error.strerror or error}"


def _config(app: Starlette, settings: ServerSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        # its access log would have event keys in it, and logging belongs to the program that embeds us
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_timeout)),
    )
