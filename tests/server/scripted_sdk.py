"""A small application that speaks the SDK's side of the protocol over HTTP as its test has it speak."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

Script = Callable[[dict[str, Any], str], Any]
"""Called with a call's body and the step it is for (`step` for discovery); answers opcodes (a list), a result, or an error."""
HEADERS = {"x-inngest-sdk": "inngest-test:v1.0.0", "x-inngest-req-version": "2", "content-type": "application/json"}


class Failed(Exception):
    """The function fails with this body."""

    def __init__(self, body: Any, *, no_retry: bool = True, retry_after: str | None = None) -> None:
        super().__init__(body)
        self.body = body
        self.no_retry = no_retry
        self.retry_after = retry_after


def step_hash(step_id: str) -> str:
    return hashlib.sha1(step_id.encode()).hexdigest()


def op(kind: str, step_id: str, **fields: Any) -> dict[str, Any]:
    """An opcode of a step."""
    return {"op": kind, "id": step_hash(step_id), "name": step_id, "displayName": step_id, **fields}


class ScriptedSdk:
    """An application with one function per script."""

    def __init__(self, port: int, scripts: dict[str, Script], app: str) -> None:
        self.url = f"http://127.0.0.1:{port}/api/inngest"
        self.scripts = scripts
        self.app = app
        self.server_url = ""
        """Where it registers when it is asked to."""

    def document(self, **configs: dict[str, Any]) -> dict[str, Any]:
        """What it registers; `configs` are additions to functions by name."""
        functions = [
            {
                "id": f"{self.app}-{name}",
                "name": name,
                "triggers": [{"event": f"{self.app}/{name}"}],
                "steps": {
                    "step": {
                        "id": "step",
                        "name": "step",
                        "runtime": {"type": "http", "url": f"{self.url}?fnId={self.app}-{name}&stepId=step"},
                        "retries": {"attempts": 1},
                    }
                },
                **configs.get(name, {}),
            }
            for name in self.scripts
        ]
        return {
            "v": "0.1", "url": self.url, "deployType": "ping", "sdk": "test:v1.0.0", "framework": "scripted",
            "appName": self.app, "functions": functions, "headers": {},
        }  # fmt: skip


@contextmanager
def scripted_sdk(app: str, scripts: dict[str, Script]) -> Iterator[ScriptedSdk]:
    """Runs it on a port of its own."""
    sdk: list[ScriptedSdk] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            self._body()
            answer = httpx.post(f"{sdk[0].server_url}/fn/register", json=sdk[0].document(), trust_env=False)
            # a connection that is kept would be answered after the server has been shut down
            self._answer(200 if answer.status_code == 200 else 500, {"message": answer.text}, {"connection": "close"})

        def do_POST(self) -> None:
            body = self._body()
            query = parse_qs(urlsplit(self.path).query)
            name = query["fnId"][0].removeprefix(f"{app}-")
            try:
                answer = scripts[name](body, query["stepId"][0])
            except Failed as failure:
                extra = {"x-inngest-no-retry": str(failure.no_retry).lower()}
                if failure.retry_after is not None:
                    extra["retry-after"] = failure.retry_after
                self._answer(500, failure.body, extra)
                return
            self._answer(206 if isinstance(answer, list) else 200, answer)

        def _body(self) -> Any:
            raw = self.rfile.read(int(self.headers.get("content-length", 0)))
            return json.loads(raw) if raw else None

        def _answer(self, status: int, body: Any, extra: dict[str, str] | None = None) -> None:
            raw = json.dumps(body).encode()
            self.send_response(status)
            for key, value in {**HEADERS, **(extra or {}), "content-length": str(len(raw))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    sdk.append(ScriptedSdk(server.server_port, scripts, app))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield sdk[0]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
