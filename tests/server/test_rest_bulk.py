"""REST for acting on many: bulk operations, the protocol's cancellations, groups of dead letters, edited reruns."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from holdfast.base.clock import iso
from server_kit import PRODUCTION, Running, Start, bearer

pytestmark = pytest.mark.anyio
NOBODY = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


async def get(server: Running, path: str, **query: Any) -> Any:
    response = await server.http.get(path, params=query)
    assert response.status_code == 200, response.text
    return response.json()["data"]


async def post(server: Running, path: str, body: Any = None) -> Any:
    response = await server.http.post(path, json=body)
    assert response.status_code in {200, 201}, response.text
    return response.json()["data"]


async def waiting(server: Running, count: int) -> list[str]:
    events = [await server.send("shop/order.shipped", order_id=f"o{n}") for n in range(count)]
    return [await server.run_of(event) for event in events]


async def failed(server: Running, message: str, count: int = 1) -> list[str]:
    runs = [await server.run_of(await server.send("shop/doomed", message=message)) for _ in range(count)]
    for run in runs:
        assert await server.ended(run) == "Failed"
    return runs


async def over(server: Running, bulk_id: str) -> Any:
    with server.engine.notices.subscribe() as notices:
        while (bulk := await get(server, f"/v1/bulk/{bulk_id}"))["state"] == "running":
            async with asyncio.timeout(60):
                await anext(aiter(notices))
    return bulk


async def test_an_operation_from_beginning_to_end(start: Start):
    async with start(bearer(), **PRODUCTION) as server:
        runs = await waiting(server, 3)
        asked = {"action": "cancel", "filter": {"function": "follow-up"}}
        assert await post(server, "/v1/bulk", {**asked, "dry_run": True}) == {"id": None, "total": 3}
        assert await get(server, "/v1/bulk") == []
        started = await post(server, "/v1/bulk", asked)
        assert started["total"] == 3
        bulk = await over(server, started["id"])
        assert (bulk["done"], bulk["failed"], bulk["state"]) == (3, 0, "done")
        assert bulk["filter"] == {"function": "follow-up", "status": ["QUEUED", "RUNNING", "WAITING"]}
        assert bulk["actor"].startswith("signing key ")
        for run in runs:
            assert (await get(server, f"/v1/runs/{run}"))["status"] == "Cancelled"
        assert [one["id"] for one in await get(server, "/v1/bulk")] == [started["id"]]
        assert await get(server, "/v1/bulk", state="running") == []
        entries = [(entry.action, entry.target) for entry in await server.engine.reader.audit()]
        assert entries == [("bulk.start", started["id"])]
        again = await server.http.delete(f"/v1/bulk/{started['id']}")
        assert (again.status_code, again.json()["code"]) == (409, "bulk_ended")


async def test_stopping_one(start: Start):
    async with start() as server:
        await waiting(server, 5)
        started = await post(server, "/v1/bulk", {"action": "cancel", "filter": {"all": True}, "rate": "1/h"})
        assert [one["id"] for one in await get(server, "/v1/bulk", state="running")] == [started["id"]]
        assert (await server.http.delete(f"/v1/bulk/{started['id']}")).status_code == 204
        bulk = await get(server, f"/v1/bulk/{started['id']}")
        assert (bulk["state"], bulk["rate"]) == ("cancelled", "1/h")
        assert bulk["done"] <= 1
        assert ("bulk.cancel", started["id"]) in [(e.action, e.target) for e in await server.engine.reader.audit()]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"action": "cancel", "filter": {}}, "matches every run"),
        ({"action": "burn", "filter": {"all": True}}, "'burn' is nothing to do with runs"),
        ({"action": "cancel"}, "missing required field `filter`"),
        ({"action": "cancel", "filter": {"all": True}, "speed": 1}, "unknown field `speed`"),
        ({"action": "cancel", "filter": {"all": True}, "rate": "10"}, "is not a rate"),
        ({"action": "cancel", "filter": {"colour": "red"}}, "'colour' is nothing to choose runs by"),
        ([], "Expected `object`"),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
async def test_what_can_not_be_understood(start: Start, body: Any, said: str, dry_run: bool):
    if isinstance(body, dict):
        body = {**body, "dry_run": dry_run}
    async with start() as server:
        response = await server.http.post("/v1/bulk", json=body)
        assert response.status_code == 400
        assert said in response.json()["error"]
        assert await server.engine.reader.bulks() == []


async def test_no_such_operation(start: Start):
    async with start() as server:
        for method in ("GET", "DELETE"):
            for path in ("bulk", "cancellations"):
                response = await server.http.request(method, f"/v1/{path}/{NOBODY}")
                assert (response.status_code, response.json()["code"]) == (404, "bulk_not_found")
                assert (await server.http.request(method, f"/v1/{path}/nonsense")).status_code == 400


async def test_a_key_is_needed(start: Start):
    async with start(None, **PRODUCTION) as server:
        for method, path in (("POST", "/v1/bulk"), ("GET", "/v1/bulk"), ("POST", "/v1/cancellations"), ("GET", "/v1/dead-letters/groups")):
            assert (await server.http.request(method, path)).status_code == 401


class TestCancellations:
    @pytest.mark.protocol("v1.cancellations", "run.cancel")
    async def test_the_protocols_form(self, start: Start):
        async with start() as server:
            await waiting(server, 2)
            later = iso(server.clock.now() + 60_000)
            made = await post(
                server,
                "/v1/cancellations",
                {"app_id": "shop", "function_id": "follow-up", "started_before": later, "if": "event.data.order_id == 'o1'"},
            )
            assert (made["app_id"], made["function_id"], made["if"]) == ("shop", "shop-follow-up", "event.data.order_id == 'o1'")
            await over(server, made["id"])
            read = await get(server, f"/v1/cancellations/{made['id']}")
            assert (read["state"], read["cancelled"]) == ("done", 1)
            assert [one["id"] for one in await get(server, "/v1/cancellations")] == [made["id"]]
            assert (await server.http.delete(f"/v1/cancellations/{made['id']}")).status_code == 409
            statuses = sorted(run["status"] for run in await get(server, "/v1/runs"))
            assert statuses == ["Cancelled", "Waiting"]

    @pytest.mark.protocol("v1.cancellations")
    async def test_a_function_by_its_uuid_and_runs_before_a_moment(self, start: Start):
        async with start() as server:
            await waiting(server, 1)
            before = server.clock.now()
            server.clock.offset += 10_000
            await waiting(server, 1)
            uuid = next(f["id"] for f in await get(server, "/v1/functions") if f["slug"] == "shop-follow-up")
            made = await post(
                server, "/v1/cancellations", {"app_id": "shop", "function_id": uuid, "started_before": iso(before + 1000)}
            )
            assert (await over(server, made["id"]))["total"] == 1

    async def test_a_function_that_is_not_there(self, start: Start):
        async with start() as server:
            body = {"app_id": "shop", "function_id": "nothing", "started_before": "2026-01-01T00:00:00Z"}
            response = await server.http.post("/v1/cancellations", json=body)
            assert (response.status_code, response.json()["code"]) == (404, "function_not_found")
            bad = {"app_id": "shop", "function_id": "fulfil", "started_before": "soon"}
            assert (await server.http.post("/v1/cancellations", json=bad)).status_code == 400

    async def test_another_operation_is_no_cancellation(self, start: Start):
        async with start() as server:
            started = await post(server, "/v1/bulk", {"action": "rerun", "filter": {"all": True}})
            assert (await server.http.get(f"/v1/cancellations/{started['id']}")).status_code == 404
            assert await get(server, "/v1/cancellations") == []


class TestGroups:
    async def test_of_all_letters_and_redriven_by_their_fingerprint(self, start: Start):
        async with start() as server:
            many, few = await failed(server, "no stock", 3), await failed(server, "no money at all")
            groups = await get(server, "/v1/dead-letters/groups")
            assert [(group["count"], group["error"]) for group in groups] == [
                (3, "NonRetriableError: no stock"), (1, "NonRetriableError: no money at all"),
            ]  # fmt: skip
            assert groups[0]["functions"] == [{"function": "shop-doomed", "function_name": "doomed", "count": 3}]
            assert groups[0]["sample_run_id"] == many[-1]
            assert groups[0]["first_at"] <= groups[0]["last_at"]
            assert await get(server, "/v1/dead-letters/groups", function="fulfil") == []
            assert len(await get(server, "/v1/dead-letters/groups", limit=1)) == 1
            started = await post(
                server, "/v1/bulk", {"action": "discard", "filter": {"fingerprint": groups[0]["fingerprint"]}}
            )
            assert (await over(server, started["id"]))["done"] == 3
            assert [group["sample_run_id"] for group in await get(server, "/v1/dead-letters/groups")] == few
            assert (await get(server, "/v1/dead-letters/groups", state="discarded"))[0]["count"] == 3
            assert (await server.http.get("/v1/dead-letters/groups?state=lost")).status_code == 400


class TestEditedReruns:
    async def test_with_another_event(self, start: Start):
        async with start(bearer(), **PRODUCTION) as server:
            run = await server.run_of(await server.send("shop/order.paid", order_id="o1", amount=1))
            assert await server.ended(run) == "Completed"
            made = await post(server, f"/v1/runs/{run}/rerun", {"event_data": {"order_id": "o9", "amount": 2}})
            assert await server.ended(made["run_id"]) == "Completed"
            assert (await get(server, f"/v1/runs/{made['run_id']}"))["output"] == "charge-o9"
            entry = (await server.engine.reader.audit())[0]
            assert (entry.action, entry.detail) == ("run.rerun", f"{made['run_id']}, with edited event")

    async def test_from_a_step(self, start: Start):
        async with start() as server:
            run = await server.run_of(await server.send("shop/order.paid", order_id="o1", amount=1))
            await server.ended(run)
            made = await post(server, f"/v1/runs/{run}/rerun", {"from_step": "charge", "input": []})
            assert await server.ended(made["run_id"]) == "Completed"

    @pytest.mark.parametrize(
        ("body", "status", "said"),
        [
            ({"from_step": "nope"}, 409, "it has no step 'nope'; it has 'charge'"),
            ({"input": [1]}, 409, "say which with from_step"),
            ({"from_step": "charge", "input": 5}, 400, "Expected `object | array | null`"),
            ({"event_data": {"order_id": "o1"}}, 400, "amount"),
            ({"step": "charge"}, 400, "unknown field `step`"),
        ],
    )
    async def test_edits_that_are_not_possible(self, start: Start, body: Any, status: int, said: str):
        async with start() as server:
            run = await server.run_of(await server.send("shop/order.paid", order_id="o1", amount=1))
            await server.ended(run)
            response = await server.http.post(f"/v1/runs/{run}/rerun", json=body)
            assert response.status_code == status, response.text
            assert said in response.json()["error"]
            assert len(await get(server, "/v1/runs")) == 1

    async def test_a_redrive_names_no_step(self, start: Start):
        async with start() as server:
            (run,) = await failed(server, "no")
            response = await server.http.post(f"/v1/runs/{run}/redrive", json={"from_step": "x"})
            assert response.status_code == 400
            made = await post(server, f"/v1/runs/{run}/redrive", {"event_data": {"message": "still"}})
            assert await server.ended(made["run_id"]) == "Failed"
            assert "still" in (await get(server, f"/v1/runs/{made['run_id']}"))["error"]
