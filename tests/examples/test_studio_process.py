"""C1 and C2 on the studio as it runs: a real process that is killed, and whose keys nobody gets to see."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from examples.demo.inbox import Inbox, smtp_server
from examples.demo.observers import Api
from examples.demo.outside import Outside
from examples.demo.processes import AppProcess
from examples.demo.receiver import Receiver
from examples.demo.serving import served
from examples.demo.waiting import until
from ports import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


class RunningStudio:
    def __init__(self) -> None:
        self.outside, self.inbox, self.receiver = Outside(), Inbox(), Receiver()
        self.process: AppProcess
        self.client: httpx.AsyncClient
        self.server: httpx.AsyncClient
        self.hooks = ""

    async def begin(self, path: str, body: dict[str, Any]) -> str:
        answer = await self.client.post(path, json=body)
        assert answer.status_code == 202, answer.text
        return answer.json()["jobId"]

    async def ended(self, job_id: str, seconds: float = 60) -> dict[str, Any]:
        seen: dict[str, Any] = {}

        async def over() -> bool:
            seen.update((await self.client.get(f"/api/jobs/{job_id}")).json())
            return seen["status"] in {"COMPLETED", "FAILED"}

        assert await until(over, seconds), seen
        return seen


@pytest.fixture
async def studio(tmp_path) -> AsyncIterator[RunningStudio]:
    made = RunningStudio()
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(served(made.outside.app()))
        made.hooks = await stack.enter_async_context(served(made.receiver.app())) + "/hooks"
        made.process = AppProcess(
            port=free_port(),
            dashboard_port=free_port(),
            environ={
                "HOLDFAST_STORE": f"sqlite:///{tmp_path}/holdfast.db", "EXPORT_DIRECTORY": f"{tmp_path}/exports", "STUDIO_API_KEY": "canary-api",
                "SMTP_PORT": str(await stack.enter_async_context(smtp_server(made.inbox))), "TEXT_MODEL_URL": f"{url}/v1",
                "TEXT_MODEL_KEY": "canary-model", "WEBHOOK_SECRET": "canary-hook", "WEBHOOK_TIMEOUT": "20",
            },
            log=tmp_path / "studio.log",
            module=("examples.studio",),
        )  # fmt: skip
        made.outside.model.key = "canary-model"
        await made.process.start()
        stack.push_async_callback(made.process.stop)
        headers = {"Authorization": "Bearer canary-api"}
        made.client = await stack.enter_async_context(httpx.AsyncClient(base_url=made.process.url, timeout=60, headers=headers))
        made.server = await stack.enter_async_context(httpx.AsyncClient(base_url=made.process.dashboard_url, timeout=60))
        yield made


BODIES = {
    "/api/hello": {"name": "Ada"},
    "/api/emails": {"to": "ada@example.test", "subject": "Hello", "text": "It is ready."},
    "/api/strategies": {"product": "Cold brew"},
    "/api/exports": {"title": "Plan", "sections": [{"heading": "One", "text": "Do it."}]},
}


async def test_c1_c2_all_jobs_over_http_and_no_key_anywhere(studio, tmp_path):
    jobs = {path: await studio.begin(path, body) for path, body in BODIES.items()}
    jobs["/api/deliveries"] = await studio.begin("/api/deliveries", {"url": studio.hooks, "event": "x", "payload": {"n": 1}})
    studio.outside.model.key = "another"  # and one that fails, with the key in the provider's answer
    refused = await studio.begin("/api/strategies", BODIES["/api/strategies"])
    answers = [await studio.ended(job) for job in jobs.values()]
    assert [answer["status"] for answer in answers] == ["COMPLETED"] * 5
    failed = await studio.ended(refused)
    assert (failed["status"], "answered 401" in failed["error"]) == ("FAILED", True)
    assert len(studio.inbox.mails) == 1
    assert len(studio.receiver.arrived) == 1
    seen = [json.dumps(answers), json.dumps(failed), (tmp_path / "studio.log").read_text()]
    api = Api(studio.server)
    for run in await api.runs():
        seen += [json.dumps(await api.history(run["run_id"])), (await studio.server.get(f"/runs/{run['run_id']}")).text]
    seen += [(await studio.client.get(path)).text for path in ("/docs", "/openapi.json", "/api/inngest")]
    for key in ("canary-api", "canary-model", "canary-hook"):
        assert all(key not in text for text in seen), key


async def test_c2_a_delivery_survives_kill_9_and_is_recognisable(studio):
    studio.receiver.seconds = 5
    job = await studio.begin("/api/deliveries", {"url": studio.hooks, "event": "x", "payload": {"n": 1}})
    assert await until(lambda: len(studio.receiver.arrived) == 1, 60)
    await studio.process.kill()
    studio.receiver.seconds = 0
    await studio.process.start()
    assert (await studio.ended(job))["status"] == "COMPLETED"
    first, second = studio.receiver.arrived
    assert (first.body, first.headers["x-studio-delivery"]) == (second.body, second.headers["x-studio-delivery"])
    assert second.headers["x-studio-delivery"] == job


async def test_c1_events_verbatim_over_the_event_api(studio):
    for body in (
        '{"name": "test/hello.world", "data": {"name": "Ada"}}',
        '{"name": "email/send", "data": {"to": "ada@example.test", "subject": "Hello", "text": "Hi", "html": "<p>Hi</p>"}}',
        '{"name": "strategy/generate", "data": {"product": "Cold brew", "audience": "students"}}',
        '{"name": "export/pdf", "data": {"title": "Plan", "sections": [{"heading": "One", "text": "Do it."}]}}',
        '{"name": "webhook/deliver", "data": {"url": "%s", "event": "x", "payload": {"n": 1}}}' % studio.hooks,
    ):
        response = await studio.server.post("/e/any-key", content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == 200, response.text
        stored = (await studio.server.get(f"/v1/events/{response.json()['ids'][0]}")).json()["data"]
        assert {"name": stored["name"], "data": stored["data"]} == json.loads(body)
