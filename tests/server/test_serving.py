"""Listening and stopping: ports, prefixes, streams, and requests in flight."""

from __future__ import annotations

import asyncio
import signal
import socket

import httpx
import pytest
from ports import free_port
from server_kit import PRODUCTION, Start, make_app, running

from holdfast.base.errors import ConfigurationError
from holdfast.compose import build_engine
from holdfast.server.serve import bind, serve, serving
from holdfast.server.settings import ServerSettings

pytestmark = pytest.mark.anyio


async def test_a_port_in_use_is_a_sentence(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with build_engine([make_app()], f"sqlite:///{tmp_path}/a.db") as engine:
            with pytest.raises(
                ConfigurationError, match=f"port {port} on 127.0.0.1 is in use.*choose another port with --port"
            ):
                async with serving(engine, ServerSettings(port=port)):
                    pytest.fail("it must not begin")
            async with serving(engine, ServerSettings(port=0)) as where:
                assert where.port > 0


@pytest.mark.parametrize(
    ("host", "message"),
    [("192.0.2.1", "no address of this machine"), ("nothing.invalid", "can't listen on 'nothing.invalid'")],
)
async def test_an_address_that_is_not_ours_is_a_sentence(host, message):
    with pytest.raises(ConfigurationError, match=message):
        bind(host, 0)


async def test_an_app_serves_itself(tmp_path):
    app = make_app()
    port = free_port()
    async with app.running(store=f"sqlite:///{tmp_path}/a.db", serve=f"127.0.0.1:{port}"):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
            assert (await http.get("/health")).status_code == 200
            assert (await http.get("/")).status_code == 200


async def test_signals_stay_with_their_owner(start: Start):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    async with start() as server:
        assert (await server.http.get("/health")).status_code == 200
        assert {number: signal.getsignal(number) for number in before} == before
    assert {number: signal.getsignal(number) for number in before} == before


async def test_a_socket_can_be_handed_over(tmp_path):
    sock = bind("127.0.0.1", 0)
    port = sock.getsockname()[1]
    stop = asyncio.Event()
    async with build_engine([make_app()], f"sqlite:///{tmp_path}/a.db") as engine:
        task = asyncio.create_task(serve(engine, ServerSettings(port=port), sockets=[sock], stop=stop))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
            assert (await http.get("/health")).status_code == 200
        stop.set()
        async with asyncio.timeout(60):
            await task
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_request_in_flight_is_answered_when_the_server_stops(tmp_path):
    async with build_engine([make_app()], f"sqlite:///{tmp_path}/a.db") as engine:
        begun, release = asyncio.Event(), asyncio.Event()
        accept = engine.send

        async def slowly(events):
            begun.set()
            await release.wait()
            return await accept(events)

        engine.send = slowly
        stop = asyncio.Event()
        sock = bind("127.0.0.1", 0)
        task = asyncio.create_task(serve(engine, ServerSettings(), sockets=[sock], stop=stop))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{sock.getsockname()[1]}", trust_env=False) as http:
            request = asyncio.create_task(http.post("/e/k", json={"name": "shop/late"}))
            await begun.wait()
            stop.set()
            done, _ = await asyncio.wait({task, request}, timeout=0.2)
            assert not done
            release.set()
            response = await request
            assert response.status_code == 200
        async with asyncio.timeout(60):
            await task
        assert (await engine.reader.event(response.json()["ids"][0])).name == "shop/late"


@pytest.mark.parametrize("path", ["/stream", "/v1/runs/{run_id}/stream"])
async def test_streams_end_when_the_server_stops(tmp_path, path, caplog):
    received = []
    async with running(tmp_path / "a.db", None, shutdown_timeout=30) as server:
        run_id = await server.run_of(await server.send("shop/order.shipped", order_id="o1"))
        begun = asyncio.Event()
        url = f"http://127.0.0.1:{server.port}{path.format(run_id=run_id)}"

        async def follow():
            async with httpx.AsyncClient(trust_env=False, timeout=None) as http, http.stream("GET", url) as response:
                async for chunk in response.aiter_text():
                    received.append(chunk)
                    begun.set()

        following = asyncio.create_task(follow())
        await begun.wait()
        left_at = asyncio.get_running_loop().time()
    await following
    assert asyncio.get_running_loop().time() - left_at < 8
    assert received
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_reader_that_goes_leaves_nothing_behind(start: Start):
    async with start() as server:
        run_id = await server.run_of(await server.send("shop/order.shipped", order_id="o1"))
        for _ in range(5):
            async with server.http.stream("GET", f"/v1/runs/{run_id}/stream") as response:
                async for _line in response.aiter_lines():
                    break
        closing = server.serving.app.state.closing
        async with asyncio.timeout(60):
            while closing._streams or server.engine.notices.wanted:
                await asyncio.sleep(0.01)


class TestPrefix:
    async def test_everything_is_below_it(self, start: Start):
        async with start(prefix="/jobs", **PRODUCTION) as server:
            away = await server.http.get("/runs", headers={"accept": "text/html"})
            assert away.headers["location"] == "/jobs/login?next=/runs"
            login = await server.http.get("/login")
            assert 'action="/jobs/login"' in login.text
            assert 'href="/jobs/login.css"' in login.text
            entered = await server.http.post("/login", data={"credential": PRODUCTION["signing_key"], "next": "/runs"})
            assert entered.headers["location"] == "/jobs/runs"
            assert "Path=/jobs" in entered.headers["set-cookie"]
            assert (await server.http.get("/v1/runs")).status_code == 200
            assert (await server.http.get("/openapi.json")).json()["servers"] == [{"url": "/jobs"}]
            page = (await server.http.get("/runs")).text
            assert 'href="/jobs/' in page
            assert 'href="/runs' not in page
            sheet = page.partition('rel="stylesheet" href="')[2].partition('"')[0]
            assert sheet.startswith("/jobs/static/")
            assert (await server.http.get(f"http://127.0.0.1:{server.port}{sheet}")).status_code == 200

    async def test_a_proxy_may_take_it_off(self, start: Start):
        async with start(prefix="/jobs") as server:
            base = f"http://127.0.0.1:{server.port}"
            assert (await server.http.get(f"{base}/health")).status_code == 200
            assert (await server.http.post(f"{base}/e/k", json={"name": "a"})).status_code == 200
            assert 'href="/jobs/' in (await server.http.get(f"{base}/runs")).text

    async def test_a_longer_name_is_not_it(self, start: Start):
        async with start(prefix="/jobs") as server:
            assert (await server.http.get(f"http://127.0.0.1:{server.port}/jobsx/health")).status_code == 404

    async def test_it_can_be_mounted_into_another_application(self, tmp_path):
        from starlette.applications import Starlette
        from starlette.routing import Mount

        from holdfast.server.app import build_app

        async with build_engine([make_app()], f"sqlite:///{tmp_path}/a.db") as engine:
            outer = Starlette(routes=[Mount("/background", build_app(engine, ServerSettings()))])
            transport = httpx.ASGITransport(outer)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                assert (await http.get("/background/health")).status_code == 200
                assert (await http.post("/background/e/k", json={"name": "a"})).status_code == 200
                assert 'href="/background/' in (await http.get("/background/runs")).text
