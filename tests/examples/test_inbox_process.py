"""D1 to D7 on the inbox as it runs: a real process, killed where it hurts, a real Redis, a million messages."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.demo.observers import Api, Database
from examples.demo.processes import ROOT, AppProcess
from examples.demo.waiting import until
from examples.inbox.canary import Canary, Load
from ports import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
RECOMPUTE = "zrg-dashboard-inbox-counts-recompute"


@dataclass
class RunningInbox:
    process: AppProcess
    client: httpx.AsyncClient
    server: httpx.AsyncClient
    api: Api
    database: Database
    store: Any

    def status(self, client: str) -> dict[str, Any]:
        found = self.store.get(f"job:v1:{client}:inbox-counts-recompute")
        return json.loads(found) if found else {}

    async def post_event(self, name: str, data: dict[str, Any]) -> httpx.Response:
        response = await self.server.post("/e/any-key", json={"name": name, "data": data})
        assert response.status_code == 200, response.text
        return response


@pytest.fixture
async def start(tmp_path: Path, redis_url: str, store: Any) -> AsyncIterator[Callable[..., Any]]:
    async with AsyncExitStack() as stack:

        async def begin(**environ: str) -> RunningInbox:
            process = AppProcess(
                port=free_port(),
                dashboard_port=free_port(),
                environ={
                    "DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/inbox.db",
                    "HOLDFAST_STORE": f"sqlite:///{tmp_path}/holdfast.db",
                    "REDIS_URL": redis_url,
                    **environ,
                },
                log=tmp_path / "inbox.log",
                module=("examples.inbox",),
            )
            await process.start()
            stack.push_async_callback(process.stop)
            client = await stack.enter_async_context(httpx.AsyncClient(base_url=process.url, timeout=60))
            server = await stack.enter_async_context(httpx.AsyncClient(base_url=process.dashboard_url, timeout=60))
            return RunningInbox(process, client, server, Api(server), Database(tmp_path / "inbox.db"), store)

        yield begin


async def test_d2_a_message_over_http_is_counted(start):
    inbox = await start()
    body = {"clientId": "acme", "sender": "ada@example.test", "subject": "Hello"}
    answer = await inbox.client.post("/api/messages", json=body)
    assert answer.status_code == 201

    async def counted() -> bool:
        found = await inbox.client.get("/api/counts/acme")
        return found.status_code == 200 and found.json() == {
            "clientId": "acme", "unread": 1, "read": 0, "archived": 0, "version": 1, "dirty": False,
        }  # fmt: skip

    assert await until(counted, 60)
    for path, wrong, field in [("/api/messages", body | {"clientId": "a:b"}, "clientId"), ("/api/messages", body | {"subject": ""}, "subject")]:
        refused = await inbox.client.post(path, json=wrong)
        assert (refused.status_code, field in refused.text) == (422, True)
    assert (await inbox.client.get("/api/counts/nobody")).status_code == 404
    assert (await inbox.client.get("/api/inngest")).json()["function_count"] == 12


@pytest.mark.parametrize(
    "event",
    [
        '{"name": "inbox.counts.dirty", "data": {"clientId": "c1", "requestId": "r1", "source": "test"}}',
        '{"name": "inbox.counts.recompute", "data": {"clientId": "c1", "requestId": "r1", "source": "test", "priority": 5}}',
        '{"name": "analytics.aggregates.recompute", "data": {"clientId": "c1", "requestId": "r1", "source": "test"}}',
        '{"name": "background/process.requested", "data": {"requestId": "r1", "source": "test", "clientId": "c1"}}',
        '{"name": "background/process.requested", "data": {"requestId": "r1", "source": "test"}}',
    ],
)
async def test_d1_events_verbatim_over_the_event_api(start, event):
    inbox = await start()
    response = await inbox.server.post("/e/any-key", content=event, headers={"Content-Type": "application/json"})
    assert response.status_code == 200, response.text
    (event_id,) = response.json()["ids"]
    stored = (await inbox.server.get(f"/v1/events/{event_id}")).json()["data"]
    assert {"name": stored["name"], "data": stored["data"]} == json.loads(event)

    async def done() -> bool:
        runs = await inbox.api.runs_of_event_id(event_id)
        return [run["status"] for run in runs] == ["Completed"]

    assert await until(done, 60)


async def test_d4_over_a_million_messages_the_endpoint_only_enqueues(start):
    inbox = await start(BACKGROUND_JOBS_USE_INNGEST="true")
    await asyncio.to_thread(fill, inbox.database.path, 1_000_000)
    for number in range(20):
        inbox.store.set(f"inbox:v1:dirty:c{number}", "someone")

    async def ask(number: int) -> None:
        method = "GET" if number % 2 else "POST"
        answer = await inbox.client.request(method, "/api/cron/background-jobs", params={"requestId": f"r{number}"})
        assert answer.status_code == 202, answer.text
        assert answer.json()["mode"] == "enqueued"

    for start_at in range(0, 100, 5):
        await asyncio.gather(*(ask(number) for number in range(start_at, start_at + 5)))
    assert await until(lambda: inbox.store.keys("inbox:v1:dirty:*") == [], 60)
    assert sorted(int(inbox.store.get(f"inbox:v1:ver:c{number}")) >= 1 for number in range(20)) == [True] * 20
    (row,) = inbox.database.rows("SELECT unread FROM inbox_counts WHERE client_id = 'c1'")
    assert row["unread"] == 50_000


def fill(path: Path, count: int) -> None:
    import sqlite3

    with sqlite3.connect(path, timeout=60) as database:
        database.execute(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?) "
            "INSERT INTO messages (client_id, sender, subject, status, created_at) "
            "SELECT 'c' || (i % 20), 'x', 'y', 'unread', '2026-01-01 00:00:00' FROM n",
            [count],
        )
    database.close()


async def test_d4_by_default_the_endpoint_does_the_same_work_itself(start):
    inbox = await start()
    for client in ("c1", "c2"):
        inbox.store.set(f"inbox:v1:dirty:{client}", "someone")
    answers = [await inbox.client.get("/api/cron/background-jobs", params={"requestId": "p1"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == {"mode": "inline", "requestId": "p1", "requested": 2}
    assert await until(lambda: inbox.store.keys("inbox:v1:dirty:*") == [], 60)
    assert [inbox.store.get(f"inbox:v1:ver:{client}") for client in ("c1", "c2")] == ["1", "1"]
    names = {event["name"] for event in await inbox.api._list("/v1/events", {"limit": "50"})}
    assert "background/process.requested" not in names - {"background/process.requested"}
    assert (await inbox.client.delete("/api/cron/background-jobs")).status_code == 405


async def test_d4_who_may_call(start):
    inbox = await start(CRON_SECRET="cron-secret", INBOX_API_KEY="inbox-key")
    for headers in ({}, {"Authorization": "Bearer guessed"}):
        for path in ("/api/cron/background-jobs", "/api/counts/c1"):
            answer = await inbox.client.get(path, headers=headers)
            assert answer.status_code == 401
            assert "secret" not in answer.text.replace("the secret of", "")
            assert "inbox-key" not in answer.text
    assert (await inbox.client.get("/api/cron/background-jobs", headers={"Authorization": "Bearer cron-secret"})).status_code == 200
    assert (await inbox.client.get("/api/counts/c1", headers={"Authorization": "Bearer inbox-key"})).status_code == 404


async def test_d5_the_status_is_right_after_kill_9(start):
    inbox = await start(RECOMPUTE_BUCKET_SECONDS="1")
    # two jobs that are being tried again when the process dies, and one that has ended
    await inbox.post_event("inbox.counts.recompute", {"clientId": "done", "requestId": "r0", "source": "test"})
    assert await until(lambda: inbox.status("done").get("status") == "completed", 60)
    import sqlite3

    with sqlite3.connect(inbox.database.path, timeout=60) as database:
        database.execute("CREATE TRIGGER broken BEFORE INSERT ON inbox_counts BEGIN SELECT RAISE(ABORT, 'out of order'); END")
    for client in ("c1", "c2"):
        await inbox.post_event("inbox.counts.recompute", {"clientId": client, "requestId": client, "source": "test"})
    assert await until(lambda: all(inbox.status(client).get("status") == "retrying" for client in ("c1", "c2")), 60)
    await inbox.process.kill()
    assert inbox.status("c1")["finishedAt"] is None
    assert inbox.store.ttl("job:v1:c1:inbox-counts-recompute") == -1
    # and Redis forgets one of them meanwhile
    inbox.store.delete("job:v1:c2:inbox-counts-recompute", "job:v1:c2:inbox-counts-recompute:run")
    database.execute("DROP TRIGGER broken")
    database.commit()
    database.close()
    await inbox.process.start()
    assert await until(lambda: all(inbox.status(client).get("status") == "completed" for client in ("c1", "c2")), 60)
    for client in ("c1", "c2"):
        status = inbox.status(client)
        assert status["attempt"] >= 2
        assert "out of order" in status["lastError"]
        assert inbox.store.ttl(f"job:v1:{client}:inbox-counts-recompute") > 6 * 86_400
        assert inbox.store.get(f"inbox:v1:ver:{client}") == "1"
    assert inbox.status("done")["status"] == "completed"
    assert inbox.store.smembers("inbox:v1:status:unfinished") == set()


async def test_d7_a_canary_load_stays_under_the_threshold_and_a_larger_one_raises_the_alert(start):
    inbox = await start(BACKLOG_ALERT="100", RECOMPUTE_CAP="2")
    canary = Canary(inbox.server)
    calm = await canary.run(Load(rate=10, seconds=3))
    assert (calm.sent, calm.alerts, calm.cleared) == (30, 0, True), calm
    assert inbox.database.rows("SELECT * FROM alerts") == []
    storm = await canary.run(Load(rate=100_000, seconds=0.005), patience=90)
    assert storm.sent == 500
    assert storm.highest > 100, storm
    assert storm.alerts > 0, storm
    assert storm.cleared, storm

    def told() -> list[tuple[str, str]]:
        rows = inbox.database.rows("SELECT happening, job, alert FROM alerts ORDER BY id")
        return [(row["happening"], row["job"]) for row in rows if row["alert"] == "backlog"]

    assert await until(lambda: told() == [("raised", RECOMPUTE), ("resolved", RECOMPUTE)], 60), told()


def test_d7_the_canary_command_says_when_there_is_no_server():
    command = [sys.executable, "-m", "examples.inbox.canary", "--server", f"http://127.0.0.1:{free_port()}", "--rate", "5", "--seconds", "1"]
    environ = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "does not answer as it should" in done.stderr
    assert "Traceback" not in done.stderr
