"""An application on the official Python SDK behind FastAPI, and the holdfast that calls it."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import fastapi
import inngest
import inngest.fast_api
import pytest
from live_server import Server
from ports import free_port
from sdk_flow import flow_functions
from sdk_steps import step_functions
from served import Uvicorn
from watched import Watched

QUIET = logging.getLogger("compat.sdk")
QUIET.addHandler(logging.NullHandler())
QUIET.propagate = False


@dataclass
class Application:
    """The application and its server."""

    server: Server
    seen: Watched
    model: Model


class Model:
    """A stand-in for a language model's API."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.names: set[str] = set()
        """Of headers, as they were written."""
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                model.names |= set(self.headers)
                model.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
                said = body["messages"][0]["content"]
                broken = said == "fail" or (said == "flaky" and sum(one[2] == body for one in model.requests) == 1)
                raw = json.dumps({"choices": [{"message": {"content": said.upper()}}]}).encode()
                self.send_response(500 if broken else 200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture(scope="session")
def application(start_holdfast) -> Iterator[Application]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    client = inngest.Inngest(app_id="py", api_base_url=url, event_api_base_url=url, is_production=False, logger=QUIET)
    seen, model = Watched(), Model()
    web = fastapi.FastAPI()
    functions = [*step_functions(client, seen, model.url), *flow_functions(client, seen)]
    inngest.fast_api.serve(web, client, functions)
    seen.app = web
    served = Uvicorn(seen)
    server = start_holdfast("-u", f"{served.url}/api/inngest", "--retry-interval", "0.1", "--poll-interval", "1", port=port)
    server.wait_for_app("py")
    yield Application(server, seen, model)
    server.stop()
    served.stop()
    model.close()


@pytest.fixture
def server(application: Application) -> Server:
    return application.server


@pytest.fixture
def seen(application: Application) -> Watched:
    return application.seen
