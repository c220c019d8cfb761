"""Each application's `/api/inngest`, end to end: a holdfast server syncs it, and executes a function through it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import httpx
import pytest

from examples.demo.inbox import Inbox, smtp_server
from examples.demo.processes import ROOT, AppProcess
from examples.demo.waiting import until
from ports import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

EVENTS = {
    "storefront": ("riqle", 3, "email/welcome", {"userId": "u1", "email": "ada@example.test"}, "send-welcome-email"),
    "catalogue": ("salla-da9i9a", 7, "product/scrape.completed", {"productId": "p1", "success": True}, "enhance-product"),
    "studio": ("advert-01", 6, "test/hello.world", {"name": "Ada"}, "hello-world"),
    "inbox": ("zrg-dashboard", 12, "background/process.requested", {"requestId": "r1", "source": "test"}, "process-background-jobs"),
}


@pytest.fixture
def server(tmp_path):
    """A holdfast server without an app."""
    port = free_port()
    command = [sys.executable, "-m", "holdfast", "dev", "--port", str(port), "--store", f"sqlite:///{tmp_path}/server.db", "--no-reload"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("INNGEST_")}
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=tmp_path, env={**environ, "PYTHONPATH": f"{ROOT / 'src'}"}, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    deadline = time.monotonic() + 60
    url = f"http://127.0.0.1:{port}"
    while True:
        assert process.poll() is None, (tmp_path / "server.log").read_text()
        try:
            httpx.get(f"{url}/health")
            break
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    yield url
    process.send_signal(signal.SIGTERM)
    process.wait(30)


@pytest.mark.parametrize("app", sorted(EVENTS))
async def test_it_is_synced_and_called(app, server, tmp_path, redis_url):
    app_id, count, name, data, function = EVENTS[app]
    inbox = Inbox()
    async with smtp_server(inbox) as smtp_port:
        process = AppProcess(
            port=free_port(),
            dashboard_port=free_port(),
            environ={
                "DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/app.db", "HOLDFAST_STORE": f"sqlite:///{tmp_path}/holdfast.db",
                "REDIS_URL": redis_url, "SMTP_PORT": str(smtp_port), "INNGEST_DEV": server, "EXPORT_DIRECTORY": f"{tmp_path}/exports",
            },
            log=tmp_path / "app.log",
            module=(f"examples.{app}",),
        )  # fmt: skip
        await process.start()
        try:
            async with httpx.AsyncClient(timeout=60) as client:
                route = f"{process.url}/api/inngest"
                assert (await client.get(route)).json()["function_count"] == count
                synced = await client.put(route)
                assert synced.status_code == 200, synced.text
                sent = await client.post(f"{server}/e/any-key", json={"name": name, "data": data})
                assert sent.status_code == 200, sent.text
                runs = []

                async def completed() -> bool:
                    found = (await client.get(f"{server}/v1/runs", params={"function": f"{app_id}-{function}"})).json()["data"]
                    runs[:] = found
                    return [run["status"] for run in found] == ["Completed"]

                assert await until(completed, 60), (runs, (tmp_path / "server.log").read_text()[-2000:])
        finally:
            await process.stop()
    assert len(inbox.mails) == (1 if app == "storefront" else 0)
