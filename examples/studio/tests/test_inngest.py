"""C3: the studio's durable side: client configuration, event types, function exports, route handlers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from examples.studio import functions as exports
from examples.studio.client import app
from examples.studio.events import EVENTS, EmailSend, ExportPdf, HelloWorld, StrategyGenerate, WebhookDeliver
from examples.studio.main import create_api
from examples.studio.settings import Settings
from holdfast import App, Event, Function, RetryPresets, UnknownEventError

KEY = "studio-key"


@pytest.fixture
async def studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """The studio, running on a store in memory, with a key."""
    monkeypatch.setenv("EXPORT_DIRECTORY", str(tmp_path))
    settings = Settings(holdfast_store="sqlite://", dashboard=None, api_key=KEY, export_directory=tmp_path)
    api = create_api(settings)
    transport = httpx.ASGITransport(api)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with (
        api.router.lifespan_context(api),
        httpx.AsyncClient(transport=transport, base_url="http://studio", headers=headers) as client,
    ):
        yield client


async def ended(studio: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    """A job, once it has ended."""
    deadline = time.monotonic() + 20
    while True:
        job: dict[str, Any] = (await studio.get(f"/api/jobs/{job_id}")).json()
        if job["status"] in {"COMPLETED", "FAILED", "CANCELLED"}:
            return job
        assert time.monotonic() < deadline, job
        await asyncio.sleep(0.02)


class TestClientConfiguration:
    def test_the_client_is_an_app(self) -> None:
        assert isinstance(app, App)

    def test_the_app_id(self) -> None:
        assert app.id == "advert-01"

    def test_the_app_knows_all_events_and_no_others(self) -> None:
        assert app.closed_schema
        assert set(EVENTS) <= set(app.events.values())

    def test_an_unknown_event_is_refused_with_the_nearest_name(self) -> None:
        with pytest.raises(UnknownEventError, match="email/send"):
            app.outgoing({"name": "email/sent", "data": {}})

    def test_keys_are_optional_in_development(self) -> None:
        assert Settings.from_environment({}).event_key is None

    def test_keys_are_required_in_production(self) -> None:
        with pytest.raises(Exception, match=r"INNGEST_EVENT_KEY is required(.|\n)*INNGEST_SIGNING_KEY is required"):
            Settings.from_environment({"APP_ENV": "production"})


class TestEventTypes:
    @pytest.mark.parametrize(
        ("model", "name"),
        [
            (HelloWorld, "test/hello.world"),
            (EmailSend, "email/send"),
            (StrategyGenerate, "strategy/generate"),
            (ExportPdf, "export/pdf"),
            (WebhookDeliver, "webhook/deliver"),
        ],
    )
    def test_each_event_has_its_name(self, model: type[Event], name: str) -> None:
        assert app.events[name] is model

    @pytest.mark.parametrize(
        ("model", "data", "field"),
        [
            (HelloWorld, {"name": ""}, "name"),
            (EmailSend, {"to": "nobody", "subject": "x", "text": "x"}, "to"),
            (StrategyGenerate, {"audience": "students"}, "product"),
            (ExportPdf, {"title": "x", "sections": []}, "sections"),
            (WebhookDeliver, {"url": "ftp://x", "event": "x", "payload": {}}, "url"),
        ],
    )
    def test_each_event_has_a_schema(self, model: type[Event], data: dict[str, Any], field: str) -> None:
        with pytest.raises(ValidationError, match=field):
            model.model_validate(data)

    def test_fields_that_nobody_knows_are_refused(self) -> None:
        with pytest.raises(ValidationError, match="nmae"):
            HelloWorld.model_validate({"nmae": "Ada"})


class TestFunctionExports:
    def test_all_functions_are_in_the_list(self) -> None:
        found = {value for value in vars(exports).values() if isinstance(value, Function)}
        assert set(exports.functions) == found

    def test_their_ids(self) -> None:
        assert [function.id for function in exports.functions] == [
            "hello-world",
            "send-email",
            "generate-strategy",
            "export-pdf",
            "deliver-webhook",
        ]

    @pytest.mark.parametrize("function", exports.functions, ids=lambda function: function.id)
    def test_each_is_triggered_by_one_event_of_the_app(self, function: Function[Any, Any]) -> None:
        (trigger,) = function.config()["triggers"]
        assert trigger["event"] in app.events

    def test_each_event_has_its_function(self) -> None:
        triggers = [function.config()["triggers"][0]["event"] for function in exports.functions]
        assert sorted(triggers) == sorted(app.events)

    def test_the_text_model_is_asked_as_the_preset_says(self) -> None:
        options = exports.generate_strategy.options
        assert (options.retries, options.backoff) == (RetryPresets.ai_api.retries, RetryPresets.ai_api)

    def test_functions_can_be_called_as_they_are(self) -> None:
        assert exports.greet("Ada") == "Hello, Ada!"


@pytest.mark.anyio
class TestRouteHandlers:
    async def test_hello_is_accepted_and_done(self, studio: httpx.AsyncClient) -> None:
        answer = await studio.post("/api/hello", json={"name": "Ada"})
        assert answer.status_code == 202
        job = await ended(studio, answer.json()["jobId"])
        assert (job["status"], job["output"], job["error"]) == ("COMPLETED", "Hello, Ada!", None)

    async def test_an_export_can_be_downloaded(self, studio: httpx.AsyncClient) -> None:
        answer = await studio.post(
            "/api/exports", json={"title": "Plan", "sections": [{"heading": "One", "text": "Do it."}]}
        )
        job = await ended(studio, answer.json()["jobId"])
        assert job["output"]["pages"] == 1
        file = await studio.get(f"/api/exports/{job['jobId']}.pdf")
        assert (file.status_code, file.headers["content-type"]) == (200, "application/pdf")
        assert file.content.startswith(b"%PDF-")

    async def test_a_failed_job_says_why(self, studio: httpx.AsyncClient) -> None:
        answer = await studio.post("/api/exports", json={"title": "قهوة", "sections": [{"heading": "One"}]})
        job = await ended(studio, answer.json()["jobId"])
        assert job["status"] == "FAILED"
        assert "is not in the font" in job["error"]
        assert (await studio.get(f"/api/exports/{job['jobId']}.pdf")).status_code == 404

    @pytest.mark.parametrize(
        ("path", "body", "field"),
        [
            ("/api/hello", {"name": 5}, "name"),
            ("/api/emails", {"to": "x", "subject": "x", "text": "x"}, "to"),
            ("/api/strategies", {}, "product"),
            ("/api/exports", {"title": "x"}, "sections"),
            ("/api/deliveries", {"url": "x", "event": "x", "payload": {}}, "url"),
        ],
    )
    async def test_bad_input_names_the_field(
        self, studio: httpx.AsyncClient, path: str, body: dict[str, Any], field: str
    ) -> None:
        answer = await studio.post(path, json=body)
        assert answer.status_code == 422
        assert field in answer.json()["detail"][0]["loc"]

    async def test_without_the_key_nothing_is_done(self, studio: httpx.AsyncClient) -> None:
        for headers in ({"Authorization": ""}, {"Authorization": "Bearer guessed"}):
            answer = await studio.post("/api/hello", json={}, headers=headers)
            assert answer.status_code == 401
            assert KEY not in answer.text
        assert (await studio.get("/health", headers={"Authorization": ""})).status_code == 200

    async def test_a_job_that_does_not_exist(self, studio: httpx.AsyncClient) -> None:
        for job_id in ("01M8AM36T10B8A549SE987Q1D8", "nonsense"):
            assert (await studio.get(f"/api/jobs/{job_id}")).status_code == 404
            assert (await studio.get(f"/api/exports/{job_id}.pdf")).status_code == 404

    async def test_the_functions_are_served_at_api_inngest(self, studio: httpx.AsyncClient) -> None:
        answer = await studio.get("/api/inngest")
        assert answer.status_code == 200
        failure_handlers = 1  # of exports
        assert answer.json()["function_count"] == len(exports.functions) + failure_handlers
        assert answer.json()["mode"] == "dev"

    async def test_a_function_runs_through_the_route(self, studio: httpx.AsyncClient) -> None:
        event = {"name": "test/hello.world", "data": {"name": "Ada"}, "id": "e1", "ts": 1}
        context = {
            "fn_id": "f",
            "run_id": "01M8AM36T10B8A549SE987Q1D8",
            "env": "local",
            "step_id": "step",
            "attempt": 0,
        }
        context |= {"max_attempts": 5, "stack": {"stack": [], "current": 0}, "use_api": False}
        call: dict[str, Any] = {"event": event, "events": [event], "steps": {}, "ctx": context, "use_api": False}
        where = {"fnId": "advert-01-hello-world", "stepId": "step"}
        first = await studio.post("/api/inngest", params=where, json=call)
        assert first.status_code == 206, first.text
        (step,) = first.json()
        assert (step["op"], step["data"]) == ("StepRun", "Hello, Ada!")
        call["steps"] = {step["id"]: {"type": "data", "data": step["data"]}}
        call["ctx"]["stack"] = {"stack": [step["id"]], "current": 1}
        last = await studio.post("/api/inngest", params=where, json=call)
        assert (last.status_code, last.json()) == (200, "Hello, Ada!")

    async def test_in_production_unsigned_calls_are_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("INNGEST_SIGNING_KEY", "signkey-prod-" + "00" * 32)
        monkeypatch.setenv("INNGEST_EVENT_KEY", "event-key")
        api = create_api(Settings(environment="production", dashboard=None, export_directory=tmp_path))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://studio") as client:
            answer = await client.post(
                "/api/inngest", params={"fnId": "advert-01-hello-world", "stepId": "step"}, json={}
            )
        assert answer.status_code == 401
