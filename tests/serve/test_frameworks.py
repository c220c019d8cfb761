"""P2: each framework's adapter behind that framework's real server: introspection, sync, calls, refusals, sizes."""

from __future__ import annotations

import asyncio
import http.client
import json
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import fastapi
import flask
import pytest
import starlette.applications
import werkzeug.serving
from protocol_server import ProtocolServer, Run

from holdfast import App, Context, SyncContext
from holdfast.serve import fastapi as on_fastapi
from holdfast.serve import flask as on_flask
from holdfast.serve import starlette as on_starlette

Start = Callable[..., str]
PLACES = ["fastapi", "starlette", "flask", "django-asgi", "django-wsgi"]


class ThreadingWsgiServer(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


def an_app(name: str) -> App:
    @asynccontextmanager
    async def lifespan(app: App):
        yield {"loop": asyncio.get_running_loop()}

    app = App(name, lifespan=lifespan)

    @app.function("dj/go", id="asynchronous")
    async def asynchronous(ctx: Context[Any]) -> list[Any]:
        first = await ctx.step.run("first", lambda: ctx.event.data["n"])
        both = await asyncio.gather(ctx.step.run("a", lambda: 1), ctx.step.run("b", lambda: 2))
        return [first, *both, ctx.resources["loop"] is asyncio.get_running_loop()]

    @app.function("dj/go", id="synchronous")
    def synchronous(ctx: SyncContext[Any]) -> list[Any]:
        def inside() -> bool:
            return threading.current_thread() is not threading.main_thread()

        return [ctx.step.run("query", lambda: 42), ctx.step.run("thread", inside)]

    return app


@pytest.fixture
def wsgi() -> Iterator[Callable[[Any], str]]:
    running: list[tuple[Any, threading.Thread]] = []

    def start(server: Any) -> str:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(params=PLACES)
def place(request, web_server, wsgi, monkeypatch) -> tuple[str, str]:
    """A running application with the serve route, its framework's name, and its address."""
    options: dict[str, Any] = {"dev": True, "base_url": "http://127.0.0.1:9"}
    if request.param == "fastapi":
        web = fastapi.FastAPI()
        on_fastapi.serve(web, an_app("dj"), **options)
        return "fastapi", web_server(web)
    if request.param == "starlette":
        plain = starlette.applications.Starlette()
        on_starlette.serve(plain, an_app("dj"), **options)
        return "starlette", web_server(plain)
    if request.param == "flask":
        app = flask.Flask("x")
        on_flask.serve(app, an_app("dj"), **options)
        return "flask", wsgi(werkzeug.serving.make_server("127.0.0.1", 0, app, threaded=True, request_handler=QuietWerkzeug))
    import django_project  # noqa: F401 - configures Django
    from django.core.asgi import get_asgi_application
    from django.core.wsgi import get_wsgi_application

    if request.param == "django-asgi":
        return "django", web_server(get_asgi_application(), lifespan="off")
    return "django", wsgi(make_server("127.0.0.1", 0, get_wsgi_application(), ThreadingWsgiServer, Quiet))


class QuietWerkzeug(werkzeug.serving.WSGIRequestHandler):
    def log(self, *args: object, **kwargs: object) -> None:
        pass


def driver(server: ProtocolServer, base: str, slug: str) -> Run:
    """A run of a function that this test knows the address of, without a registration."""
    server.functions[slug] = {"id": slug, "steps": {"step": {"runtime": {"url": f"{base}/api/inngest?fnId={slug}&stepId=step"}}}}
    return Run(server, slug, {"name": "dj/go", "data": {"n": 7}})


def test_introspection(place, protocol) -> None:
    framework, base = place
    status, headers, body = protocol().ask("GET", f"{base}/api/inngest")
    assert (status, body["function_count"], body["mode"]) == (200, 2, "dev")
    assert (headers["x-inngest-framework"], headers["content-type"]) == (framework, "application/json")


def test_functions_run_to_their_end(place, protocol) -> None:
    server = protocol()
    assert driver(server, place[1], "dj-asynchronous").drive().output == [7, 1, 2, True]
    assert driver(server, place[1], "dj-synchronous").drive().output == [42, True]


def test_a_sync_that_fails_says_so(place, protocol) -> None:
    status, _, body = protocol().ask("PUT", f"{place[1]}/api/inngest")
    assert status == 500
    assert "no server answers at http://127.0.0.1:9/fn/register" in body["message"]


def test_in_band_sync_knows_the_address(place, protocol) -> None:
    status, headers, body = protocol().ask("PUT", f"{place[1]}/api/inngest", headers={"x-inngest-sync-kind": "in_band"})
    assert (status, headers["x-inngest-sync-kind"], body["url"]) == (200, "in_band", f"{place[1]}/api/inngest")


def test_a_malformed_call(place, protocol) -> None:
    status, _, body = protocol().ask("POST", f"{place[1]}/api/inngest?fnId=dj-asynchronous", [])
    assert (status, body["code"]) == (400, "wire_invalid")


def test_a_body_that_is_too_large_is_refused(place) -> None:
    parts = urlsplit(place[1])
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    connection.putrequest("POST", "/api/inngest?fnId=dj-asynchronous")
    connection.putheader("content-length", str(17 * 1024 * 1024))
    connection.endheaders()
    try:
        for _ in range(17):
            connection.send(b" " * 1024 * 1024)
    except OSError:
        pass  # it has answered already and reads no more
    answer = connection.getresponse()
    assert answer.status == 413
    assert b"is over 16777216 bytes" in answer.read()
    connection.close()


def test_functions_see_flasks_context(wsgi, protocol) -> None:
    app = App("dj")

    @app.function("dj/go", id="here")
    def here(ctx: SyncContext[Any]) -> list[str]:
        return [flask.current_app.config["COLOUR"], ctx.step.run("inside", lambda: flask.current_app.config["COLOUR"])]

    web = flask.Flask("x")
    web.config["COLOUR"] = "green"
    on_flask.serve(web, app, dev=True)
    base = wsgi(werkzeug.serving.make_server("127.0.0.1", 0, web, threaded=True, request_handler=QuietWerkzeug))
    assert driver(protocol(), base, "dj-here").drive().output == ["green", "green"]


def test_a_lifespan_is_left_when_the_application_stops(protocol) -> None:
    from served import Uvicorn

    told: list[str] = []

    @asynccontextmanager
    async def lifespan(app: App):
        told.append("in")
        yield
        told.append("out")

    app = App("dj", lifespan=lifespan)

    @app.function("dj/go", id="f")
    async def fn(ctx: Context[Any]) -> None:
        told.append("call")

    @asynccontextmanager
    async def own(web: Any):
        told.append("web in")
        yield
        told.append("web out")

    web = fastapi.FastAPI(lifespan=own)
    on_fastapi.serve(web, app, dev=True)
    running = Uvicorn(web)
    driver(protocol(), running.url, "dj-f").drive()
    driver(protocol(), running.url, "dj-f").drive()
    running.stop()
    assert told == ["web in", "in", "call", "call", "out", "web out"]


def test_the_doctor_finds_nothing_wrong(place) -> None:
    from holdfast.base.findings import Level
    from holdfast.cli.endpoint import examine

    findings = examine(place[1])
    assert [finding.level for finding in findings] == [Level.FINE, Level.FINE]
    assert findings[1].text == "it has 2 functions"


def test_another_path(web_server, protocol) -> None:
    web = fastapi.FastAPI()
    on_fastapi.serve(web, an_app("dj"), dev=True, path="/jobs")
    base = web_server(web)
    assert protocol().ask("GET", f"{base}/jobs")[0] == 200
    assert json.loads(json.dumps(web.openapi()))["paths"] == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flask", "django"])
def test_a_framework_that_is_not_installed_is_named_with_the_remedy(name) -> None:
    code = f"import sys; sys.modules[{name!r}] = None\nimport holdfast.serve.{name}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"pip install 'holdfast[{name}]'" in done.stderr
