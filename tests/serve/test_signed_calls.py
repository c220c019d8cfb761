"""Calls of a production server are signed, whichever way the server is run."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from ports import free_port

from holdfast import App

pytestmark = pytest.mark.anyio
EVENT_KEY, SIGNING_KEY = "event-key-of-a-test", "signkey-test-" + "c0ffee11" * 8


@pytest.fixture
def signatures() -> Iterator[tuple[str, list[str | None]]]:
    """An application's address, and the signatures that it is called with."""
    seen: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            seen.append(self.headers.get("x-inngest-signature"))
            self.send_response(200)
            for name, value in (("x-inngest-sdk", "py:v0.5.19"), ("content-type", "application/json"), ("content-length", "4")):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"null")

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/api/inngest", seen
    server.shutdown()
    thread.join()
    server.server_close()


async def test_an_embedded_production_server_signs(tmp_path, monkeypatch, signatures):
    url, seen = signatures
    monkeypatch.setenv("INNGEST_EVENT_KEY", EVENT_KEY)
    monkeypatch.setenv("INNGEST_SIGNING_KEY", SIGNING_KEY)
    monkeypatch.setenv("HOLDFAST_ALLOW_PRIVATE_NETWORKS", "127.0.0.1")
    address, app = f"127.0.0.1:{free_port()}", App("hub")
    step = {"id": "step", "name": "step", "runtime": {"type": "http", "url": f"{url}?fnId=remote-fn&stepId=step"}}
    function = {"id": "remote-fn", "name": "fn", "triggers": [{"event": "remote/go"}], "steps": {"step": step}}
    body = {"url": url, "deployType": "ping", "sdk": "py:v0.5.19", "framework": "x", "appName": "remote", "functions": [function]}
    async with app.running(store=f"sqlite:///{tmp_path}/hub.db", serve=address, mode="start"):
        async with httpx.AsyncClient(base_url=f"http://{address}", headers={"authorization": f"Bearer {SIGNING_KEY}"}) as client:
            registered = await client.post("/fn/register", content=json.dumps(body))
            assert registered.status_code == 200, registered.text
            sent = await app.send({"name": "remote/go", "data": {}})
            async with asyncio.timeout(30):
                while not seen:
                    await asyncio.sleep(0.01)
            assert sent.id
    assert seen[0] is not None and seen[0].startswith("t=")
