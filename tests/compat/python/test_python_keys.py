"""Production mode: signed calls, authenticated registration, and keys that are rotated."""

from __future__ import annotations

import hashlib

import fastapi
import httpx
import inngest
import inngest.fast_api
import pytest
from live_server import output_of, until
from ports import free_port
from sdk_steps import step_functions
from served import Uvicorn
from watched import Watched

OLD, NEW = "signkey-prod-" + "0a" * 32, "signkey-prod-" + "1b" * 32


def bearer(key):
    return {"Authorization": "Bearer " + hashlib.sha256(bytes.fromhex(key.rpartition("-")[2])).hexdigest()}


@pytest.fixture
def signed(start_holdfast, monkeypatch):
    """An application with a signing key, and `holdfast start` with one."""
    running = []

    def start(app_key, server_key, fallback=None):
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        if fallback:
            monkeypatch.setenv("INNGEST_SIGNING_KEY_FALLBACK", fallback)
        client = inngest.Inngest(
            app_id="signed", api_base_url=url, event_api_base_url=url, is_production=True, signing_key=app_key, event_key="events"
        )
        seen = Watched()
        web = fastapi.FastAPI()
        inngest.fast_api.serve(web, client, step_functions(client, seen, ""))
        seen.app = web
        served = Uvicorn(seen)
        running.append(served)
        server = start_holdfast(
            "-u", f"{served.url}/api/inngest", command="start", store="sqlite:///signed.db", port=port, headers=bearer(server_key),
            event_key="events", INNGEST_SIGNING_KEY=server_key, INNGEST_EVENT_KEY="events",
        )
        running.append(server)
        return server, seen, f"{served.url}/api/inngest"

    yield start
    for one in running:
        one.stop()


@pytest.mark.protocol("auth.signature", "auth.key")
def test_calls_are_signed_and_the_api_needs_the_key(signed):
    server, seen, app_url = signed(NEW, NEW)
    server.wait_for_app("signed")
    run = server.call("py/async-steps", {"n": 1})
    assert output_of(run) == [2, None, 3]
    first = seen.calls(run["run_id"])[0].headers
    assert first["x-inngest-signature"].startswith("t=")
    assert first["x-inngest-server-kind"] == "cloud"
    large = server.call("py/large-state")
    assert output_of(large) == [1_500_000] * 4
    for headers in ({}, bearer(OLD)):
        assert httpx.get(f"{server.url}/v1/apps", headers=headers).status_code == 401
        assert httpx.post(f"{server.url}/fn/register", json={}, headers=headers).status_code == 401
    assert httpx.post(f"{server.url}/e/wrong", json={"name": "py/waits"}).status_code == 401
    unsigned = httpx.post(f"{app_url}?fnId=signed-async-steps&stepId=step", content=seen.calls(run["run_id"])[0].raw)
    assert unsigned.status_code in {401, 500}


@pytest.mark.protocol("auth.signature")
def test_an_application_accepts_the_key_it_is_being_rotated_to(signed):
    server, _, _ = signed(OLD, NEW, fallback=NEW)
    server.wait_for_app("signed")
    assert output_of(server.call("py/async-steps", {"n": 1})) == [2, None, 3]


@pytest.mark.protocol("auth.signature")
def test_an_application_with_another_key_is_not_called_in_silence(signed):
    server, seen, app_url = signed(OLD, NEW)
    until(lambda: any(one.method == "PUT" for one in seen.requests), "the application is asked to register")
    assert server.get("/v1/apps") == []
    line = server.running.wait_for("could not be synced")
    assert app_url in line.string
