"""What test suites of SDKs do to a server, and that it is off unless it is turned on."""

from __future__ import annotations

import pytest
from server_kit import Start

from holdfast.base.ids import name_uuid
from holdfast.server.settings import ServerSettings

pytestmark = pytest.mark.anyio
FN = name_uuid("shop", "shop-follow-up")
ROUTES = [
    ("GET", "/test"), ("POST", "/test/reset"), ("POST", f"/test/function/pause?fnId={FN}"),
    ("POST", f"/test/function/runs/cancel?fnId={FN}&runId=x"), ("GET", f"/test/queue/function-queue-size?fnId={FN}"),
]  # fmt: skip


@pytest.mark.protocol("test.mode")
async def test_it_is_off_unless_asked_for(start: Start):
    async with start() as server:
        for method, path in ROUTES:
            answer = await server.http.request(method, path)
            assert answer.status_code == 404, path
            assert "TEST_MODE=true" in answer.json()["error"]


@pytest.mark.parametrize(("given", "on"), [("true", True), ("TRUE", True), ("1", False), ("", False), ("false", False)])
def test_the_environment_turns_it_on(given, on):
    assert ServerSettings.from_environment({"TEST_MODE": given}).test_mode is on


@pytest.mark.protocol("test.mode")
async def test_counting_cancelling_pausing_and_resetting(start: Start):
    async with start(test_mode=True) as server:
        assert (await server.http.get("/test")).status_code == 200
        runs = [await server.run_of(await server.send("shop/order.shipped", order_id=f"o{n}")) for n in range(3)]
        size = f"/test/queue/function-queue-size?accountId=a&fnId={FN}"
        assert (await server.http.get(size)).json() == {"count": 3}
        cancel = f"/test/function/runs/cancel?accountId=a&fnId={FN}&runId="
        assert (await server.http.post(cancel + runs[0])).status_code == 200
        assert (await server.http.get(size)).json() == {"count": 2}
        assert (await server.http.post(cancel + "01ARZ3NDEKTSV4RRFFQ69G5FAV")).status_code == 404
        assert (await server.http.post(f"/test/function/pause?accountId=a&fnId={FN}")).status_code == 200
        event = await server.send("shop/order.shipped", order_id="o9")
        (skip,) = (await server.http.get(f"/v1/events/{event}/skips")).json()["data"]
        assert skip["reason"] == "paused"
        assert (await server.http.post("/test/reset")).json() == {"ok": True, "cancelled": 2}
        assert (await server.http.get(size)).json() == {"count": 0}
        event = await server.send("shop/order.shipped", order_id="o10")
        assert await server.run_of(event)


@pytest.mark.protocol("test.mode")
@pytest.mark.parametrize(("fn", "status"), [("x", 400), ("", 400), (name_uuid("none"), 404)])
async def test_functions_that_are_not_there(start: Start, fn, status):
    async with start(test_mode=True) as server:
        assert (await server.http.post(f"/test/function/pause?fnId={fn}")).status_code == status
