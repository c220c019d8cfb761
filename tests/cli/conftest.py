"""Fixtures of the command line's tests."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import ports
import pytest
from commandline import Cli


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """The command in an empty directory; whatever it started is gone afterwards."""
    cli = Cli(tmp_path)
    yield cli
    for running in cli.started:
        running.kill()


Respond = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def web() -> Iterator[Callable[[Respond], str]]:
    """Serves GET with a function; gives the server's address."""
    servers: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def serve(respond: Respond) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    respond(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on."""
    return ports.free_port()
