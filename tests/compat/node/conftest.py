"""The applications of app.mjs, and the holdfast that calls them."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_server import Server
from ports import free_port
from node_apps import MAJORS, ROUTES

COMPAT = Path(__file__).parents[1]


class Remote:
    """A stand-in for what applications let the server call: it echoes, and answers as a model does."""

    def __init__(self) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["content-length"]))
                status, answer = 200, {"choices": [{"message": {"content": "?"}}]}
                if self.path == "/echo":
                    status, answer = 418, {"body": raw.decode(), "said": self.headers["x-said"], "method": self.command}
                else:
                    said = json.loads(raw)["messages"][0]["content"]
                    answer["choices"][0]["message"]["content"] = said.upper()
                    status = 500 if said == "fail" else 200
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@dataclass
class Node:
    """The processes of the applications, and their server."""

    server: Server
    http: dict[str, httpx.Client]

    def seen(self, run_id: str, major: str) -> dict[str, Any]:
        return self.http[major].get(f"/seen/{run_id}").json()


def start_node(major: str, holdfast_url: str, model_url: str) -> tuple[subprocess.Popen[str], str]:
    """The applications on one major version; the process and its address."""
    process = subprocess.Popen(
        ["node", "--max-old-space-size=512", "node/app.mjs", major, holdfast_url, model_url],
        cwd=COMPAT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("listening on"), line
    return process, f"http://127.0.0.1:{line.split()[-1]}"


@pytest.fixture(scope="session")
def node(start_holdfast) -> Iterator[Node]:
    assert shutil.which("node"), "the compatibility tests need Node.js 20 or newer"
    assert (COMPAT / "node_modules/inngest").is_dir(), "run `make test`, or `npm ci` in tests/compat"
    port = free_port()
    remote = Remote()
    started = {major: start_node(major, f"http://127.0.0.1:{port}", remote.url) for major in MAJORS}
    urls = [part for _, url in started.values() for path in ROUTES.values() for part in ("-u", url + path)]
    server = start_holdfast(*urls, "--retry-interval", "0.1", "--poll-interval", "2", port=port)
    for major in MAJORS:
        for app in ROUTES:
            server.wait_for_app(app + major)
    clients = {major: httpx.Client(base_url=url, trust_env=False) for major, (_, url) in started.items()}
    yield Node(server, clients)
    server.stop()
    for client in clients.values():
        client.close()
    for process, _ in started.values():
        process.kill()
        process.wait()
        process.stdout.close()
    remote.close()
