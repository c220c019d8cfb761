"""Apps behind real HTTP servers, and the server that calls them."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from protocol_server import ProtocolServer
from served import Uvicorn
from starlette.applications import Starlette

from holdfast import App
from holdfast.serve.starlette import serve

Serve = Callable[..., str]



@pytest.fixture
def protocol() -> Iterator[Callable[..., ProtocolServer]]:
    made: list[ProtocolServer] = []

    def make(**options: Any) -> ProtocolServer:
        made.append(ProtocolServer(**options))
        return made[-1]

    yield make
    for server in made:
        server.close()


@pytest.fixture
def served() -> Iterator[Serve]:
    """Serve an app for a protocol server and register it; gives the address of its route."""
    running: list[Uvicorn] = []

    def start(app: App, server: ProtocolServer, **options: Any) -> str:
        web = Starlette()
        serve(web, app, **{"dev": True, "base_url": server.url, **options})
        running.append(Uvicorn(web))
        url = running[-1].url + "/api/inngest"
        status, _, body = server.ask("PUT", url)
        assert (status, body["ok"]) == (200, True), body
        return url

    yield start
    for one in running:
        one.stop()


@pytest.fixture
def served_by() -> Iterator[Callable[[App, str], str]]:
    """Serve an app for a server at an address and register it there; gives the address of its route."""
    running: list[Uvicorn] = []

    def start(app: App, base: str) -> str:
        web = Starlette()
        serve(web, app, dev=True, base_url=base)
        running.append(Uvicorn(web))
        url = running[-1].url + "/api/inngest"
        with urllib.request.urlopen(urllib.request.Request(url, b"", method="PUT"), timeout=20) as answer:
            assert answer.status == 200
        return url

    yield start
    for one in running:
        one.stop()


@pytest.fixture
def web_server() -> Iterator[Callable[..., str]]:
    """Any ASGI application behind uvicorn; gives its address."""
    running: list[Uvicorn] = []

    def start(app: Any, **config: Any) -> str:
        running.append(Uvicorn(app, **config))
        return running[-1].url

    yield start
    for one in running:
        one.stop()
