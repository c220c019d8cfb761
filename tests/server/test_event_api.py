"""The event API over HTTP: what it answers, and that what it acknowledged is there."""

from __future__ import annotations

import asyncio
import gzip
import json
import sqlite3
from base64 import b64encode

import pytest
from server_kit import EVENT_KEY, OTHER_EVENT_KEY, PRODUCTION, Running, Start, bearer

from holdfast.base.errors import OverloadedError, StoreFailedError, StoreFullError
from holdfast.base.ids import ulid_bytes, ulid_ms

pytestmark = pytest.mark.anyio

EVENT = {"name": "shop/thing", "data": {"n": 1}}


async def stored(server: Running) -> list[str]:
    """Names of the events in the store, oldest first."""
    await server.engine.store.group.drain()
    rows, _ = await server.engine.reader.events(limit=200, internal=False)
    return [row.name for row in reversed(rows)]


def failing(server: Running, error: Exception) -> None:
    """From now on the engine's store refuses, as it does when the disk is full or the memory is."""

    async def refuse(_events):
        raise error

    server.engine.send = refuse


@pytest.mark.protocol("events.send")
async def test_one_event(start: Start):
    async with start() as server:
        response = await server.http.post("/e/any-key", json=EVENT)
        assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
        body = response.json()
        assert body == {"ids": body["ids"], "status": 200}
        event = await server.engine.reader.event(body["ids"][0])
        assert (event.name, json.loads(event.data)) == ("shop/thing", {"n": 1})


@pytest.mark.protocol("events.send")
async def test_many_events_in_order(start: Start):
    async with start() as server:
        response = await server.http.post("/e/k", json=[{"name": f"shop/{n}"} for n in range(50)])
        ids = response.json()["ids"]
        assert len(ids) == 50
        assert [(await server.engine.reader.event(one)).name for one in ids] == [f"shop/{n}" for n in range(50)]


@pytest.mark.protocol("events.send")
async def test_what_was_acknowledged_is_in_the_file(start: Start, tmp_path):
    async with start() as server:
        ids = (await server.http.post("/e/k", json=[EVENT, EVENT])).json()["ids"]
        with sqlite3.connect(f"file:{tmp_path}/test.db?mode=ro", uri=True) as file:
            found = {row[0] for row in file.execute("SELECT id FROM events")}
        file.close()
    assert {ulid_bytes(one) for one in ids} <= found


@pytest.mark.protocol("events.partial")
async def test_the_events_before_a_bad_one_are_accepted(start: Start):
    async with start() as server:
        response = await server.http.post(
            "/e/k", json=[{"name": "one"}, {"name": "two"}, {"name": ""}, {"name": "four"}]
        )
        body = response.json()
        assert (response.status_code, body["status"], body["error"], body["code"]) == (
            400,
            400,
            "event name is empty",
            "event_invalid",
        )
        assert [(await server.engine.reader.event(one)).name for one in body["ids"]] == ["one", "two"]
        assert await stored(server) == ["one", "two"]


@pytest.mark.protocol("events.empty")
@pytest.mark.parametrize(("body", "status"), [(b"[]", 200), (b"{}", 400), (b"nonsense", 400), (b'[{"name":""}]', 400)])
async def test_no_ids_are_one_empty_id(start: Start, body, status):
    async with start() as server:
        response = await server.http.post("/e/k", content=body)
        assert (response.status_code, response.json()["ids"]) == (status, [""])
        assert await stored(server) == []


async def test_data_that_does_not_fit_the_schema_names_the_field(start: Start):
    async with start() as server:
        response = await server.http.post(
            "/e/k", json={"name": "shop/order.paid", "data": {"order_id": "o1", "amount": "lots"}}
        )
        assert response.status_code == 400
        assert "event 'shop/order.paid' does not fit its schema: amount:" in response.json()["error"]


@pytest.mark.protocol("run.context")
async def test_the_function_receives_what_was_sent(start: Start):
    async with start() as server:
        run_id = await server.run_of(await server.send("shop/order.paid", order_id="o1", amount=5))
        assert await server.ended(run_id) == "Completed"
        assert (await server.engine.reader.run(run_id)).output == b'"charge-o1"'


@pytest.mark.parametrize(
    "request_of",
    [
        {"data": {"name": "shop/thing", "data": "{}"}},
        {"files": {"name": ("name", b"shop/thing")}},
        {"content": b'{"name":"a"}', "headers": {"content-type": "application/x-www-form-urlencoded"}},
    ],
    ids=["form", "multipart", "curl's default"],
)
async def test_forms_are_refused_with_the_remedy(start: Start, request_of):
    async with start() as server:
        response = await server.http.post("/e/k", **request_of)
        assert response.status_code == 400
        assert "send JSON" in response.json()["error"]
        assert await stored(server) == []


async def test_compressed_bodies_are_refused_unread(start: Start):
    bomb = gzip.compress(b"[" + b'{"name":"a"},' * 1_000_000 + b'{"name":"a"}]')
    async with start() as server:
        response = await server.http.post("/e/k", content=bomb, headers={"content-encoding": "gzip"})
        assert response.status_code == 415
        assert "without Content-Encoding" in response.json()["error"]
        assert await stored(server) == []


async def test_a_body_past_the_cap_is_refused_before_it_is_parsed(start: Start):
    async with start(max_request_bytes=10_000) as server:
        fits = b'{"name":"a","data":{"x":"' + b"y" * (10_000 - 28) + b'"}}'
        assert len(fits) == 10_000
        assert (await server.http.post("/e/k", content=fits)).status_code == 200
        response = await server.http.post("/e/k", content=fits + b" ")
        assert (response.status_code, response.json()["code"]) == (413, "too_large")
        assert "10000 bytes" in response.json()["error"]
        assert await stored(server) == ["a"]


@pytest.mark.protocol("events.limits")
async def test_the_largest_event_is_accepted(start: Start):
    async with start() as server:
        body = b'{"name":"a","data":{"x":"' + b"y" * (3 * 1024 * 1024 - 28) + b'"}}'
        assert (await server.http.post("/e/k", content=body)).status_code == 200
        response = await server.http.post("/e/k", content=body[:-3] + b'y"}}')
        assert response.status_code == 400
        assert "Event is over the max size" in response.json()["error"]


@pytest.mark.protocol("events.limits")
async def test_five_thousand_events_and_one_more(start: Start):
    async with start() as server:
        assert len((await server.http.post("/e/k", json=[{"name": "a"}] * 5000)).json()["ids"]) == 5000
        response = await server.http.post("/e/k", json=[{"name": "a"}] * 5001)
        assert (response.status_code, len(response.json()["ids"])) == (400, 5000)
        assert response.json()["error"] == "Cannot have more than 5000 events in a batch"


@pytest.mark.protocol("events.seed")
async def test_a_seed_makes_a_retry_give_the_same_ids(start: Start):
    seed = {"x-inngest-event-id-seed": "1700000000000," + b64encode(b"0123456789").decode()}
    async with start() as server:
        first = (await server.http.post("/e/k", json=[EVENT, EVENT], headers=seed)).json()["ids"]
        again = (await server.http.post("/e/k", json=[EVENT, EVENT], headers=seed)).json()["ids"]
        assert first == again
        assert len(set(first)) == 2
        assert ulid_ms(ulid_bytes(first[0])) == 1_700_000_000_000
        listed = (await server.http.get("/v1/events", params={"name": EVENT["name"]})).json()["data"]
        assert sorted(one["internal_id"] for one in listed) == sorted(first + again), "as often as they came in"
        other = (await server.http.post("/e/k", json=EVENT)).json()["ids"]
        listed = (await server.http.get("/v1/events", params={"name": EVENT["name"]})).json()["data"]
        assert [one["internal_id"] for one in listed].count(other[0]) == 1


@pytest.mark.protocol("events.id")
async def test_an_id_starts_a_function_once(start: Start):
    async with start() as server:
        event = {"name": "shop/order.paid", "id": "payment-1", "data": {"order_id": "o1", "amount": 5}}
        for _ in range(3):
            assert (await server.http.post("/e/k", json=event)).status_code == 200
        await server.engine.idle()
        assert await server.engine.reader.count_runs(_all()) == 1


def _all():
    from holdfast.store.reads import RunFilter

    return RunFilter()


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (OverloadedError("too much is in memory", retry_after=2.5), 503, "overloaded", "3"),
        (StoreFullError("the disk is full"), 507, "store_full", None),
        (StoreFailedError("the disk failed"), 503, "store_failed", "30"),
    ],
)
async def test_refusals_of_the_engine(start: Start, error, status, code, retry_after):
    async with start() as server:
        failing(server, error)
        response = await server.http.post("/e/k", json=[EVENT, {"name": ""}])
        assert (response.status_code, response.headers.get("retry-after")) == (status, retry_after)
        assert response.json() == {"ids": [""], "status": status, "error": str(error), "code": code}


async def test_bytes_in_flight_are_bounded_over_all_requests(start: Start):
    async with start(max_bytes_in_flight=50_000, max_request_bytes=40_000) as server:
        held = b'[{"name":"held","data":{"x":"' + b"y" * 30_000

        release = asyncio.Event()

        async def slowly():
            yield held
            await release.wait()
            yield b'"}}]'

        slow = asyncio.create_task(
            server.http.post("/e/k", content=slowly(), headers={"content-type": "application/json"})
        )
        metrics = ""
        while "holdfast_http_body_bytes 30029.0" not in metrics:
            metrics = (await server.http.get("/metrics")).text
        refused = await server.http.post("/e/k", content=held + b'"}}]')
        assert (refused.status_code, refused.headers["retry-after"], refused.json()["code"]) == (503, "1", "overloaded")
        small = await server.http.post("/e/k", json={"name": "small"})
        assert small.status_code == 200
        release.set()
        assert (await slow).status_code == 200
        assert "holdfast_http_body_bytes 0.0" in (await server.http.get("/metrics")).text
        assert (await server.http.post("/e/k", content=held + b'"}}]')).status_code == 200
        assert await stored(server) == ["small", "held", "held"]


class TestKeys:
    @pytest.mark.protocol("auth.event-key")
    async def test_production_takes_its_keys_only(self, start: Start):
        async with start(**PRODUCTION) as server:
            for key in (EVENT_KEY, OTHER_EVENT_KEY):
                assert (await server.http.post(f"/e/{key}", json=EVENT)).status_code == 200
            for key in ("wrong", EVENT_KEY + "x", EVENT_KEY[:-1], "NO_EVENT_KEY_SET", "%20"):
                response = await server.http.post(f"/e/{key}", json=EVENT)
                assert response.status_code == 401
                assert response.json() == {"status": 401, "message": "", "error": "Event key not found"}
            assert len(await stored(server)) == 2

    async def test_an_unknown_key_is_refused_before_the_body_is_read(self, start: Start):
        async with start(**PRODUCTION) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"POST /e/wrong HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n[")
            async with asyncio.timeout(60):
                answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 401")
            assert answer.endswith(b'"error":"Event key not found"}')
            writer.close()
            await writer.wait_closed()

    async def test_the_signing_key_sends_no_events(self, start: Start):
        async with start(bearer(), **PRODUCTION) as server:
            assert (await server.http.post("/e/wrong", json=EVENT)).status_code == 401


class TestBrowsers:
    @pytest.mark.protocol("auth.cors")
    async def test_development_accepts_pages_of_this_machine(self, start: Start):
        async with start() as server:
            for origin in ["http://localhost:3000", "http://127.0.0.1:5173", "http://shop.localhost"]:
                asked = await server.http.options(
                    "/e/k", headers={"origin": origin, "access-control-request-method": "POST"}
                )
                assert asked.status_code == 204
                assert asked.headers["access-control-allow-origin"] == origin
                assert "content-type" in asked.headers["access-control-allow-headers"]
                sent = await server.http.post("/e/k", json=EVENT, headers={"origin": origin})
                assert (sent.status_code, sent.headers["access-control-allow-origin"], sent.headers["vary"]) == (
                    200,
                    origin,
                    "Origin",
                )

    async def test_pages_from_elsewhere_are_refused(self, start: Start):
        async with start() as server:
            for origin in ["https://evil.example", "http://localhost.evil.example", "null", "file://"]:
                for response in (
                    await server.http.post("/e/k", json=EVENT, headers={"origin": origin}),
                    await server.http.options(
                        "/e/k", headers={"origin": origin, "access-control-request-method": "POST"}
                    ),
                ):
                    assert response.status_code == 403
                    assert "access-control-allow-origin" not in response.headers
                assert await stored(server) == []

    @pytest.mark.protocol("auth.cors")
    async def test_production_accepts_configured_origins_only(self, start: Start):
        async with start(**PRODUCTION, cors_origins=("https://shop.example",)) as server:
            good = await server.http.post(f"/e/{EVENT_KEY}", json=EVENT, headers={"origin": "https://shop.example"})
            assert (good.status_code, good.headers["access-control-allow-origin"]) == (200, "https://shop.example")
            bad = await server.http.post(f"/e/{EVENT_KEY}", json=EVENT, headers={"origin": "http://localhost:3000"})
            assert bad.status_code == 403

    async def test_there_is_no_cors_anywhere_else(self, start: Start):
        async with start() as server:
            for path in ("/v1/runs", "/", "/health", "/dev"):
                response = await server.http.get(path, headers={"origin": "http://localhost:3000"})
                assert "access-control-allow-origin" not in response.headers


async def test_only_post_sends(start: Start):
    async with start() as server:
        for method in ("GET", "PUT", "DELETE"):
            assert (await server.http.request(method, "/e/k")).status_code == 405
