"""Asking serve routes to register: what went wrong is said in words that tell what to do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from holdfast import App
from holdfast.base.findings import Level
from holdfast.compose import build_engine
from holdfast.server.settings import ServerSettings
from holdfast.server.syncing import Asker

pytestmark = pytest.mark.anyio
SDK = {"x-inngest-sdk": "inngest-js:v4.24.0", "content-type": "application/json"}
Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture
def answering() -> Iterator[Callable[[dict[str, Answer]], str]]:
    """An application that answers PUT by path; gives its address."""
    running: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def start(answers: dict[str, Answer]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                status, headers, body = answers.get(self.path, (404, {}, b""))
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


async def asked(tmp_path, url: str) -> str | None:
    async with build_engine([App("hub")], f"sqlite:///{tmp_path}/x.db") as engine:
        finding = await Asker(engine, ServerSettings(port=0)).ask(url)
        return None if finding.level is Level.FINE else finding.sentence


@pytest.mark.protocol("register.ask")
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((404, {}, b""), ["has no route /api/inngest", "Mount the SDK's serve route"]),
        ((401, {}, b""), ["asks for a login", "Exempt /api/inngest"]),
        ((302, {"location": "/login"}, b""), ["sends visitors to a login", "Exempt"]),
        ((200, {"content-type": "text/html"}, b"<!doctype html>"), ["a web page", "before it"]),
        ((200, {"content-type": "application/json"}, b'{"ok":true}'), ["JSON of something else"]),
        ((500, SDK, b'{"message":"no server answers at http://x"}'), ["no server answers at http://x"]),
    ],
)
async def test_a_sync_that_fails_says_which_failure_it_was(tmp_path, answering, answer, said):
    problem = await asked(tmp_path, answering({"/api/inngest": answer}) + "/api/inngest")
    assert problem is not None
    assert all(part in problem for part in said), problem


@pytest.mark.protocol("register.ask")
async def test_a_sync_that_goes_well_also_by_a_redirect_that_keeps_the_method(tmp_path, answering):
    good: Answer = (200, SDK, b'{"ok":true}')
    base = answering({"/api/inngest": (308, {"location": "/api/inngest/"}, b""), "/api/inngest/": good})
    assert await asked(tmp_path, base + "/api/inngest") is None
    endless = answering({"/api/inngest": (308, {"location": "/api/inngest"}, b"")})
    assert "redirects" in str(await asked(tmp_path, endless + "/api/inngest"))


@pytest.mark.protocol("register.ask")
async def test_nobody_there(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert f"nothing listens on 127.0.0.1:{port}" in str(await asked(tmp_path, f"http://127.0.0.1:{port}/api/inngest"))
