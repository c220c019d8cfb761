"""Durable endpoints, as their SDK's side of it asks: runs that are executed within a request and reported step by step."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from holdfast.base.ids import ulid_text
from holdfast.core.endpoints import ABANDONED_AFTER_MS
from holdfast.server import run_tokens
from scripted_sdk import HEADERS, op, step_hash
from server_kit import PRODUCTION, SIGNING_KEY, Running, Start, bearer

pytestmark = pytest.mark.anyio
JS = {"x-inngest-sdk": "inngest-js:v4.24.0"}


class Endpoint:
    """What is called when a run goes on without its client's request."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.answers: list[Any] = []
        """What it answers, one after the other; the last for ever."""
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                raw = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                endpoint.calls.append({"method": self.command, "path": self.path, "headers": headers, "body": raw.decode()})
                said = endpoint.answers.pop(0) if len(endpoint.answers) > 1 else endpoint.answers[0]
                body = json.dumps(said).encode()
                self.send_response(206)
                for name, value in {**HEADERS, "content-length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PATCH = answer

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever)
        self._thread.start()
        self.domain = f"http://127.0.0.1:{self._http.server_port}"

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    yield made
    made.close()


def complete(data: Any = None, kind: str = "RunComplete") -> dict[str, Any]:
    return {"op": kind, "id": step_hash("complete"), "data": data}


def done(name: str, data: Any = None) -> dict[str, Any]:
    return op("StepRun", name, data=data)


class Client:
    """The SDK's side."""

    def __init__(self, server: Running, domain: str = "http://127.0.0.1:9") -> None:
        self.server = server
        self.domain = domain

    def body(self, *steps: dict[str, Any], run_id: str | None = None, event: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
        data = {"domain": self.domain, "method": "GET", "path": "/api/pay", "fn": "", "ip": "", "content_type": "", "query_params": "", "body": ""}
        return {
            "run_id": run_id or ulid_text(self.server.engine.ids.new(self.server.clock.now())),
            "event": {"name": "http/run", "data": {**data, **(event or {})}},
            "steps": list(steps), "request_version": 2, "retries": 1, "ts": 0, **fields,
        }  # fmt: skip

    async def post(self, path: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> Any:
        return await self.server.http.post(path, json=body, headers={**JS, **(headers or {})})

    async def begin(self, *steps: dict[str, Any], **fields: Any) -> dict[str, Any]:
        answer = await self.post("/v1/checkpoint", self.body(*steps, **fields))
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    async def report(self, run_id: str, *steps: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        answer = await self.post(f"/v1/checkpoint/{run_id}/steps", {"run_id": run_id, "fn_id": "x", "app_id": "y", "steps": steps}, headers)
        assert answer.status_code == 200, answer.text

    async def run(self, run_id: str) -> dict[str, Any]:
        return (await self.server.http.get(f"/v1/runs/{run_id}")).json()["data"]

    async def output(self, run_id: str, token: str, path: str = "/v1/checkpoint") -> Any:
        return await self.server.http.get(f"{path}/{run_id}/output", params={"token": token})


class TestWithinTheRequest:
    @pytest.mark.protocol("endpoint.new", "endpoint.steps")
    async def test_a_run_is_recorded_step_by_step(self, start: Start):
        async with start() as server:
            client = Client(server)
            begun = await client.begin(done("a", 1))
            assert set(begun) == {"fn_id", "app_id", "run_id", "token", "realtime_token"}
            run = await client.run(begun["run_id"])
            assert (run["status"], run["app"], run["function_name"]) == ("Waiting", client.domain, "GET /api/pay")
            await client.report(begun["run_id"], done("b", {"x": 2}))
            await client.report(begun["run_id"], complete("said"))
            run = await client.run(begun["run_id"])
            assert (run["status"], run["output"]) == ("Completed", "said")
            memos = await server.http.get(f"/v0/runs/{begun['run_id']}/actions")
            assert memos.status_code == 410
            answer = await client.output(begun["run_id"], begun["token"])
            assert (answer.status_code, answer.json()) == (200, {"data": "said"})
            assert answer.headers["access-control-allow-origin"] == "*"

    @pytest.mark.protocol("endpoint.new")
    async def test_a_run_without_steps_has_no_token_yet(self, start: Start):
        async with start() as server:
            begun = await Client(server).begin()
            assert "token" not in begun
            assert begun["realtime_token"]

    @pytest.mark.protocol("endpoint.conflicts")
    async def test_a_run_is_begun_once(self, start: Start):
        async with start() as server:
            client = Client(server)
            body = client.body(done("a"), idempotency="order-1")
            assert (await client.post("/v1/checkpoint", body)).status_code == 200
            again = await client.post("/v1/checkpoint", body)
            assert (again.status_code, again.json()["error"]) == (409, "Run already exists")
            other = client.body(done("a"), idempotency="order-1")
            assert (await client.post("/v1/checkpoint", other)).status_code == 409
            assert (await client.post("/v1/checkpoint", client.body(done("a"), idempotency="order-2"))).status_code == 200

    @pytest.mark.protocol("endpoint.conflicts")
    async def test_a_paused_endpoint_takes_no_runs(self, start: Start):
        async with start() as server:
            client = Client(server)
            begun = await client.run((await client.begin(done("a")))["run_id"])
            assert (await server.http.post(f"/v1/functions/{begun['function']}/pause", json={})).status_code == 200
            refused = await client.post("/v1/checkpoint", client.body(done("a")))
            assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (429, "function_paused", "5")

    @pytest.mark.protocol("endpoint.new")
    @pytest.mark.parametrize(
        ("change", "word"),
        [
            ({"run_id": "nonsense"}, "ULID"),
            ({"run_id": "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"}, "another day"),
            ({"event": {"domain": "file:///etc"}}, "domain"),
            ({"event": {"path": "no-slash"}}, "slash"),
            ({"event": {"method": "GET /"}}, "method"),
            ({"event": {"path": "/" + "x" * 300}}, "functionId"),
            ({"steps": [{"op": "Nonsense", "id": "x"}]}, "unknown opcode"),
        ],
    )
    async def test_what_is_no_run_is_refused(self, start: Start, change: dict[str, Any], word: str):
        async with start() as server:
            client = Client(server)
            body = client.body(run_id=change.get("run_id"), event=change.get("event"))
            body |= {"steps": change["steps"]} if "steps" in change else {}
            answer = await client.post("/v1/checkpoint", body)
            assert answer.status_code == 400
            assert word in answer.json()["error"]

    @pytest.mark.protocol("endpoint.new")
    async def test_endpoints_are_functions_of_their_application(self, start: Start):
        async with start() as server:
            client = Client(server)
            paths = [{"path": "/a/b"}, {"path": "/a_b"}, {"path": "/a/b", "method": "POST"}, {"fn": "pay the bill"}]
            for event in paths:
                await client.begin(done("a"), event=event)
            functions = [one for one in (await server.http.get("/v1/functions")).json()["data"] if one["app"] == client.domain]
            assert {one["name"] for one in functions} == {"GET /a/b", "GET /a_b", "POST /a/b", "pay the bill"}
            assert len({one["slug"] for one in functions}) == 4
            assert not any("/" in one["slug"] for one in functions)
            for one in functions:
                assert (await server.http.get(f"/functions/{one['slug']}")).status_code == 200


class TestTokens:
    @pytest.mark.protocol("endpoint.token")
    async def test_only_the_runs_own_token_opens_its_output(self, start: Start):
        async with start(headers=bearer(), **PRODUCTION) as server:
            client = Client(server)
            begun, other = [await client.begin(done("a"), complete(1)) for _ in range(2)]
            server.http.headers.pop("authorization")
            for token in ("", "x", "a.b.c", other["token"], begun["realtime_token"], begun["token"] + "x"):
                answer = await client.output(begun["run_id"], token)
                assert (answer.status_code, answer.json()["code"]) == (401, "token_refused"), token
            for path in ("/v1/checkpoint", "/v1/http/runs"):
                assert (await client.output(begun["run_id"], begun["token"], path)).json() == {"data": 1}
            assert (await server.http.get(f"/v1/runs/{begun['run_id']}")).status_code == 401, "and nothing else"
            server.clock.offset = (run_tokens.LIFETIME_SECONDS + 1) * 1000
            assert (await client.output(begun["run_id"], begun["token"])).status_code == 401

    @pytest.mark.protocol("endpoint.token")
    async def test_beginning_and_reporting_need_the_signing_key(self, start: Start):
        async with start(**PRODUCTION) as server:
            client = Client(server)
            for path in ("/v1/checkpoint", "/v1/checkpoint/01HZZZZZZZZZZZZZZZZZZZZZZZ/steps"):
                assert (await client.post(path, client.body())).status_code == 401

    @pytest.mark.protocol("endpoint.output")
    async def test_a_response_that_the_sdk_describes_is_given_as_it_was(self, start: Start):
        async with start() as server:
            client = Client(server)
            said = {"data": {"status_code": 418, "headers": {"x-said": "yes", "content-type": "text/plain"}, "body": "dGVhcG90"}}
            begun = await client.begin(done("a"), complete(said, "SyncRunComplete"))
            answer = await client.output(begun["run_id"], begun["token"])
            assert (answer.status_code, answer.headers["x-said"], answer.text) == (418, "yes", "teapot")


class TestOnTheQueue:
    @pytest.mark.protocol("endpoint.reentry")
    async def test_the_clients_request_is_made_again(self, start: Start, endpoint: Endpoint):
        endpoint.answers = [[complete("over")]]
        async with start() as server:
            client = Client(server, endpoint.domain)
            event = {"method": "PATCH", "query_params": "a=1&b=%20", "content_type": "text/csv", "body": "x,y"}
            begun = await client.begin(done("a"), op("Sleep", "nap", opts={"duration": "1ms"}), event=event)
            answer = await client.output(begun["run_id"], begun["token"])
            assert answer.json() == {"data": "over"}
            (call,) = endpoint.calls
            assert (call["method"], call["path"], call["body"]) == ("PATCH", "/api/pay?a=1&b=%20", "x,y")
            headers = call["headers"]
            assert headers["content-type"] == "text/csv"
            assert headers["x-run-id"] == begun["run_id"]
            assert headers["x-inngest-signature"] == "", "it is there, or the SDK takes the call for a client's"
            assert headers["x-inngest-req-version"] == "2"
            assert headers["x-request-id"]
            assert headers["x-inngest-job-id"]
            assert headers["x-inngest-generation-id"] == "1"
            assert "x-inngest-step-id" not in headers
            assert "x-inngest-force-step-plan" not in headers

    @pytest.mark.protocol("endpoint.reentry")
    async def test_an_sdk_that_writes_bodies_in_base64(self, start: Start, endpoint: Endpoint):
        endpoint.answers = [[complete("over")]]
        async with start() as server:
            client = Client(server, endpoint.domain)
            event = {"method": "POST", "content_type": "application/json", "body": "eyJhIjoxfQ==", "query_params": {"a": ["1", "2"]}}
            body = client.body(op("Sleep", "nap", opts={"duration": "1ms"}), event=event)
            begun = (await client.post("/v1/checkpoint", body, {"x-inngest-sdk": "inngest-go:v0.15.0"})).json()["data"]
            await client.output(begun["run_id"], begun["token"])
            assert (endpoint.calls[0]["path"], endpoint.calls[0]["body"]) == ("/api/pay?a=1&a=2", '{"a":1}')

    @pytest.mark.protocol("endpoint.reentry")
    async def test_a_planned_step_is_asked_for_by_name(self, start: Start, endpoint: Endpoint):
        plan = [op("StepPlanned", "a"), op("StepPlanned", "b")]
        endpoint.answers = [[done("a", 1)], [done("b", 2)], [complete("over")]]
        async with start() as server:
            client = Client(server, endpoint.domain)
            begun = await client.begin(*plan)
            assert (await client.output(begun["run_id"], begun["token"])).json() == {"data": "over"}
            asked = [(call["headers"].get("x-inngest-step-id"), call["headers"].get("x-inngest-force-step-plan")) for call in endpoint.calls]
            assert sorted(asked[:2]) == sorted((step_hash(name), "true") for name in "ab")
            assert asked[2] == (None, None)

    @pytest.mark.protocol("endpoint.reentry", "auth.signature")
    async def test_calls_are_signed_in_production(self, start: Start, endpoint: Endpoint):
        endpoint.answers = [[complete("over")]]
        async with start(headers=bearer(), **PRODUCTION) as server:
            server.engine.driver.signing_key = SIGNING_KEY
            client = Client(server, endpoint.domain)
            event = {"method": "POST", "content_type": "application/json", "body": '{"b": 1, "a": 2}'}
            begun = await client.begin(op("Sleep", "nap", opts={"duration": "1ms"}), event=event)
            await client.output(begun["run_id"], begun["token"])
            (call,) = endpoint.calls
            assert call["body"] == '{"b": 1, "a": 2}', "the client's bytes"
            from holdfast.wire.signatures import verify

            assert verify(call["headers"]["x-inngest-signature"], call["body"].encode(), [SIGNING_KEY], server.clock.now())

    @pytest.mark.protocol("endpoint.errors")
    async def test_a_step_error_is_retried_and_then_given_to_the_function(self, start: Start, endpoint: Endpoint):
        failing = op("StepError", "pay", error={"name": "Error", "message": "no"})
        endpoint.answers = [[failing], [complete("caught")]]
        async with start(retry_interval_ms=10) as server:
            client = Client(server, endpoint.domain)
            begun = await client.begin(failing)
            assert (await client.output(begun["run_id"], begun["token"])).json() == {"data": "caught"}
            steps = (await server.http.get(f"/v1/runs/{begun['run_id']}/steps")).json()["data"]["steps"]
            assert [(one["name"], one["state"]) for one in steps] == [("pay", "failed")]

    @pytest.mark.protocol("endpoint.errors")
    async def test_the_functions_own_error_is_not_taken_for_a_step_of_the_same_id(self, start: Start, endpoint: Endpoint):
        endpoint.answers = [[complete("mended")]]
        async with start(retry_interval_ms=10) as server:
            client = Client(server, endpoint.domain)
            begun = await client.begin({"op": "StepError", "id": step_hash("complete"), "error": {"name": "Error", "message": "no"}})
            assert (await client.output(begun["run_id"], begun["token"])).json() == {"data": "mended"}
            assert (await server.http.get(f"/v1/runs/{begun['run_id']}/steps")).json()["data"]["steps"] == []
            begun = await client.begin(op("StepError", "complete", error={"name": "Error", "message": "no"}))
            await client.output(begun["run_id"], begun["token"])
            steps = (await server.http.get(f"/v1/runs/{begun['run_id']}/steps")).json()["data"]["steps"]
            assert [one["name"] for one in steps] == ["complete"]

    @pytest.mark.protocol("endpoint.errors", "endpoint.output")
    async def test_a_function_that_fails_for_good(self, start: Start):
        async with start() as server:
            client = Client(server)
            failed = {"op": "StepFailed", "id": step_hash("complete"), "error": {"name": "TypeError", "message": "no"}}
            begun = await client.begin(failed)
            answer = await client.output(begun["run_id"], begun["token"])
            assert (answer.status_code, answer.json()["error"]["name"]) == (500, "TypeError")

    @pytest.mark.protocol("endpoint.errors")
    async def test_who_goes_on_after_a_failed_step_is_not_called(self, start: Start, endpoint: Endpoint):
        endpoint.answers = [[complete("called")]]
        failed = op("StepFailed", "pay", error={"name": "Error", "message": "no"})
        async with start() as server:
            client = Client(server, endpoint.domain)
            goes_on = {"x-inngest-sdk": "inngest-go:v0.15.0"}
            answer = await client.post("/v1/checkpoint", client.body(failed), goes_on)
            begun = answer.json()["data"]
            await client.report(begun["run_id"], complete("went on"), headers=goes_on)
            assert (await client.output(begun["run_id"], begun["token"])).json() == {"data": "went on"}
            assert endpoint.calls == []
            begun = await client.begin(failed)
            assert (await client.output(begun["run_id"], begun["token"])).json() == {"data": "called"}

    @pytest.mark.protocol("endpoint.steps")
    async def test_reports_of_a_request_that_has_been_left_behind_change_nothing(self, start: Start, endpoint: Endpoint):
        endpoint.answers = [[complete("over")]]
        async with start() as server:
            client = Client(server, endpoint.domain)
            begun = await client.begin(op("WaitForEvent", "reply", opts={"event": "shop/never", "timeout": "1h"}))
            await client.report(begun["run_id"], done("late"), complete("too late"))
            assert (await client.run(begun["run_id"]))["status"] == "Waiting"
            steps = (await server.http.get(f"/v1/runs/{begun['run_id']}/steps")).json()["data"]["steps"]
            assert [one["name"] for one in steps] == ["reply"]

    @pytest.mark.protocol("endpoint.abandoned")
    async def test_a_request_that_is_never_heard_of_again_is_made_anew(self, start: Start, endpoint: Endpoint):
        endpoint.answers = [[complete("over")]]
        async with start() as server:
            client = Client(server, endpoint.domain)
            begun = await client.begin(done("a"))
            server.clock.offset = ABANDONED_AFTER_MS + 1000
            server.engine.timers.arm(0)
            assert (await client.output(begun["run_id"], begun["token"])).json() == {"data": "over"}
            await client.report(begun["run_id"], complete("too late"))
            assert (await client.run(begun["run_id"]))["output"] == "over"
