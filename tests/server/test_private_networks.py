"""A production server and applications at addresses it may not call: said where people look, mended by a setting."""

from __future__ import annotations

import pytest
from aiohttp.abc import AbstractResolver
from scripted_sdk import op, scripted_sdk
from server_kit import EVENT_KEY, PRODUCTION, Running, Start, bearer

from holdfast.compose import embedded
from holdfast.engine.outbound import EVERYTHING, Outbound
from holdfast.server.settings import ServerSettings

pytestmark = pytest.mark.anyio
METADATA = "http://169.254.169.254/api/inngest"


class Resolves(AbstractResolver):
    """Every name is at one address."""

    def __init__(self, address: str) -> None:
        self.address = address

    async def resolve(self, host, port=0, family=0):
        return [{"hostname": host, "host": self.address, "port": port, "family": 2, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        """Nothing is held."""


def named(document: dict, url: str) -> dict:
    """A registration whose functions are at another address."""
    for function in document["functions"]:
        runtime = function["steps"]["step"]["runtime"]
        runtime["url"] = f"{url}?fnId={function['id']}&stepId=step"
        function["steps"]["step"]["retries"]["attempts"] = 0
    return {**document, "url": url}


async def ran(server: Running, event: str) -> dict:
    answer = await server.http.post(f"/e/{EVENT_KEY}", json={"name": event, "data": {}})
    await server.engine.store.group.drain()
    run_id = await server.run_of(answer.json()["ids"][0])
    await server.ended(run_id)
    return (await server.http.get(f"/v1/runs/{run_id}")).json()["data"]


async def test_registering_says_why_it_is_refused(start: Start):
    with scripted_sdk("far", {"fn": lambda body, step: 1}) as sdk:
        async with start(bearer(), **PRODUCTION) as server:
            for url in (METADATA, "http://user:pw@shop.example/api/inngest", sdk.url):
                answer = await server.http.post("/fn/register", json=named(sdk.document(), url))
                assert (answer.status_code, answer.json()["code"]) == (400, "address_refused"), url
                assert "is not called" in answer.json()["error"]
            assert "HOLDFAST_ALLOW_PRIVATE_NETWORKS=127.0.0.1" in answer.json()["error"]
            answer = await server.http.post("/fn/register", json={**named(sdk.document(), METADATA), "url": "https://shop.example/api/inngest"})
            assert answer.status_code == 400, "where a function is called counts, not only where the application says it is"
            assert server.engine.applications.apps == {}


async def test_a_run_and_the_apps_page_say_it(start: Start):
    """The name is fine when it registers; what it resolves to is seen when it is called."""
    with scripted_sdk("far", {"fn": lambda body, step: 1}) as sdk:
        async with start(bearer(), **PRODUCTION) as server:
            url = "http://shop.example:1/api/inngest"
            assert (await server.http.post("/fn/register", json=named(sdk.document(), url))).status_code == 200
            for address, said in (("169.254.169.254", "such addresses never are"), ("127.0.0.1", "HOLDFAST_ALLOW_PRIVATE_NETWORKS=shop.example")):
                await server.engine.outbound.close()
                server.engine.outbound = Outbound(server.engine.outbound.private, Resolves(address))
                run = await ran(server, "far/fn")
                assert run["status"] == "Failed"
                message = run["output"]["error"]["message"]
                assert f"shop.example resolves to {address}" in message
                assert said in message
                page = (await server.http.get("/apps")).text
                assert f"resolves to {address}" in page
                assert said in page
                assert said in (await server.http.get("/v1/apps")).json()["data"][0]["error"]


@pytest.mark.parametrize("allowed", ["all", "127.0.0.1", "127.0.0.0/8"])
async def test_with_permission_it_is_called(start: Start, allowed):
    with scripted_sdk("far", {"fn": lambda body, step: {"got": 1}}) as sdk:
        async with start(bearer(), **PRODUCTION, allow_private_networks=allowed) as server:
            assert (await server.http.post("/fn/register", json=sdk.document())).status_code == 200
            assert (await ran(server, "far/fn"))["output"] == {"got": 1}


@pytest.mark.parametrize("mode", ["start", "dev"])
async def test_what_a_step_fetches(start: Start, mode):
    seen = []

    def function(body, step):
        if not body["steps"]:
            return [op("Gateway", "peek", opts={"url": seen[0], "method": "GET"})]
        return body["steps"]

    with scripted_sdk("far", {"fn": function}) as sdk:
        settings = {**PRODUCTION, "allow_private_networks": "127.0.0.1"} if mode == "start" else {}
        async with start(bearer() if settings else None, retry_interval_ms=1, **settings) as server:
            assert (await server.http.post("/fn/register", json=sdk.document())).status_code == 200
            urls = [METADATA, "http://[::ffff:169.254.169.254]/", "http://0.0.0.0/", "http://2852039166/", "gopher://x/", "http://a:b@c.example/"]
            if mode == "start":
                urls.append("http://127.0.0.2:1/")
            for url in urls:
                seen[:] = [url]
                run = await ran(server, "far/fn")
                steps = (await server.http.get(f"/v1/runs/{run['run_id']}/steps")).json()["data"]["steps"]
                (step,) = [one for one in steps if one["name"] == "peek"]
                assert step["state"] == "failed", url
                assert "is not called" in step["error"]["message"], url


def test_settings():
    assert ServerSettings().private_networks == EVERYTHING
    assert not ServerSettings(**PRODUCTION).private_networks.everything
    given = ServerSettings.from_environment({"HOLDFAST_ALLOW_PRIVATE_NETWORKS": "10.0.0.0/8"}, **PRODUCTION)
    assert [str(network) for network in given.private_networks.networks] == ["10.0.0.0/8"]


async def test_embedded_in_production(tmp_path, monkeypatch):
    from holdfast import App

    monkeypatch.setenv("INNGEST_EVENT_KEY", EVENT_KEY)
    monkeypatch.setenv("INNGEST_SIGNING_KEY", PRODUCTION["signing_key"])
    app = App("shop")
    async with embedded(app, store=f"sqlite:///{tmp_path}/x.db", serve="127.0.0.1:0", mode="start"):
        assert not app._senders[-1].outbound.private.everything
