"""Version 2 of the API: invoking with an idempotency key, its envelope and errors."""

from __future__ import annotations

import pytest
from scripted_sdk import scripted_sdk
from server_kit import EVENT_KEY, PRODUCTION, SIGNING_KEY, Start, bearer

pytestmark = pytest.mark.anyio
UNKNOWN = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
INVOKE = "/api/v2/apps/shop/functions/fulfil/invoke"
ORDER = {"order_id": "o1", "amount": 5}


class TestInvoke:
    @pytest.mark.protocol("v2.invoke")
    async def test_a_key_starts_one_run(self, start: Start):
        async with start() as server:
            first = await server.http.post(INVOKE, json={"data": ORDER, "idempotency_key": "k"})
            assert first.status_code == 200, first.text
            run_id = first.json()["data"]["runId"]
            assert set(first.json()) == {"data", "metadata"}
            assert first.json()["metadata"]["fetchedAt"]
            again = await server.http.post(INVOKE, json={"data": ORDER, "idempotency_key": "k"})
            assert (again.status_code, again.json()["data"]) == (409, {"runId": run_id})
            other = await server.http.post(INVOKE, json={"data": ORDER, "idempotency_key": "l"})
            bare = [await server.http.post(INVOKE, json={"data": ORDER}) for _ in range(2)]
            made = {answer.json()["data"]["runId"] for answer in [other, *bare]}
            assert len(made | {run_id}) == 4
            assert await server.ended(run_id) == "Completed"
            elsewhere = await server.http.post(
                "/api/v2/apps/shop/functions/follow-up/invoke", json={"data": {"order_id": "o1"}, "idempotency_key": "k"}
            )
            assert elsewhere.status_code == 200

    @pytest.mark.protocol("v2.invoke")
    @pytest.mark.parametrize(
        ("path", "body", "status", "code"),
        [
            (INVOKE, {}, 400, "invalid_request"),
            (INVOKE, {"data": 1}, 400, "invalid_request"),
            (INVOKE, [], 400, "invalid_request"),
            ("/api/v2/apps/shop/functions/none/invoke", {"data": {}}, 404, "function_not_found"),
            ("/api/v2/apps/none/functions/fulfil/invoke", {"data": {}}, 404, "app_not_found"),
        ],
    )
    async def test_refusals(self, start: Start, path, body, status, code):
        async with start() as server:
            answer = await server.http.post(path, json=body)
            assert answer.status_code == status
            (problem,) = answer.json()["errors"]
            assert problem["code"] == code
            assert problem["message"]

    async def test_a_paused_function(self, start: Start):
        async with start() as server:
            await server.engine.flow_control.pause("shop-fulfil", "skip")
            answer = await server.http.post(INVOKE, json={"data": ORDER})
            assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "run_refused")


    @pytest.mark.protocol("v2.invoke")
    @pytest.mark.parametrize(
        ("rule", "statuses", "code"),
        [
            ({"rateLimit": {"limit": 1, "period": "1h"}}, [200, 422], "run_refused"),
            ({"debounce": {"period": "1h"}}, [422, 422], "run_delayed"),
            ({"batchEvents": {"maxSize": 3, "timeout": "60s"}}, [422, 422], "run_delayed"),
        ],
    )
    async def test_what_rules_do_not_let_start(self, start: Start, rule, statuses, code):
        async with start() as server:
            with scripted_sdk("remote", {"one": lambda _call, _step: 1}) as sdk:
                registered = await server.http.post("/fn/register", json=sdk.document(one=rule))
                assert registered.status_code == 200, registered.text
                answers = [await server.http.post("/api/v2/apps/remote/functions/one/invoke", json={"data": {}}) for _ in range(2)]
                assert [answer.status_code for answer in answers] == statuses
                assert answers[1].json()["errors"][0]["code"] == code

    async def test_an_event_that_does_not_fit_its_class(self, start: Start):
        async with start() as server:
            answer = await server.http.post("/api/v2/events", json={"name": "shop/order.paid", "data": {"order_id": 1}})
            assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "event_invalid")


class TestReading:
    @pytest.mark.protocol("v2.read", "v2.change")
    async def test_runs_traces_and_events(self, start: Start):
        async with start() as server:
            sent = await server.http.post("/api/v2/events", json={"name": "shop/order.paid", "data": ORDER})
            event_id = sent.json()["data"]["id"]
            await server.engine.store.group.drain()
            (run,) = (await server.http.get(f"/api/v2/events/{event_id}/runs")).json()["data"]
            await server.ended(run["id"])
            read = (await server.http.get(f"/api/v2/runs/{run['id']}")).json()["data"]
            assert (read["status"], read["output"], read["functionSlug"]) == ("COMPLETED", "charge-o1", "shop-fulfil")
            root = (await server.http.get(f"/api/v2/runs/{run['id']}/trace")).json()["data"]["rootSpan"]
            assert [child["name"] for child in root["children"]] == ["charge", "function success"]
            again = (await server.http.post(f"/api/v2/runs/{run['id']}/rerun")).json()["data"]["runId"]
            await server.ended(again)
            listed = (await server.http.get("/api/v2/runs?limit=1")).json()
            assert [one["id"] for one in listed["data"]] == [again]
            assert (listed["page"]["hasMore"], listed["page"]["limit"]) == (True, 1)
            rest = (await server.http.get(f"/api/v2/runs?limit=1&cursor={listed['page']['cursor']}")).json()
            assert ([one["id"] for one in rest["data"]], rest["page"]["hasMore"]) == ([run["id"]], False)
            of_function = (await server.http.get("/api/v2/apps/shop/functions/fulfil/runs?status=COMPLETED")).json()["data"]
            assert len(of_function) == 2
            assert (await server.http.get("/api/v2/apps/shop/functions/doomed/runs")).json()["data"] == []

    @pytest.mark.protocol("v2.change")
    async def test_cancelling(self, start: Start):
        async with start() as server:
            run_id = await server.run_of(await server.send("shop/order.shipped", order_id="o1"))
            assert (await server.http.post(f"/api/v2/runs/{run_id}/cancel")).status_code == 200
            again = await server.http.post(f"/api/v2/runs/{run_id}/cancel")
            assert (again.status_code, again.json()["errors"][0]["code"]) == (409, "run_ended")
            for method, path in [("GET", ""), ("GET", "/trace"), ("POST", "/rerun"), ("POST", "/cancel")]:
                answer = await server.http.request(method, f"/api/v2/runs/{UNKNOWN}{path}")
                assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, "run_not_found"), path

    @pytest.mark.protocol("v2.read")
    async def test_apps_and_functions(self, start: Start):
        async with start() as server:
            (app,) = (await server.http.get("/api/v2/apps")).json()["data"]
            assert (app["id"], app["functionCount"]) == ("shop", 4)
            assert (await server.http.get("/api/v2/apps/shop")).json()["data"] == app
            assert (await server.http.get("/api/v2/apps/none")).status_code == 404
            functions = (await server.http.get("/api/v2/apps/shop/functions")).json()["data"]
            assert {one["id"] for one in functions} == {"fulfil", "follow-up", "new-year", "doomed"}
            one = (await server.http.get("/api/v2/apps/shop/functions/fulfil")).json()["data"]
            assert one["slug"] == "shop-fulfil"

    @pytest.mark.protocol("v2.absent")
    async def test_what_is_not_here(self, start: Start):
        async with start() as server:
            assert (await server.http.get("/api/v2/health")).json()["data"] == {"status": "ok"}
            for what in ("account", "partner", "envs", "webhooks", "syncs", "insights", "experiments", "sessions"):
                answer = await server.http.get(f"/api/v2/{what}")
                assert (answer.status_code, answer.json()["errors"][0]["code"]) == (501, "not_implemented"), what

    @pytest.mark.protocol("v2.read")
    async def test_keys_are_never_shown_whole(self, start: Start):
        async with start(bearer(), **PRODUCTION) as server:
            for path, key in (("/keys/events", EVENT_KEY), ("/keys/signing", SIGNING_KEY)):
                text = (await server.http.get("/api/v2" + path)).text
                assert '"name"' in text
                assert key not in text
                assert key[5:] not in text
