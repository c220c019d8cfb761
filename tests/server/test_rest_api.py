"""REST: the protocol's shapes, our own calls, errors as sentences; and the OpenAPI document says the same."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime

import jsonschema
import pytest
from openapi_spec_validator import validate
from scripted_sdk import scripted_sdk
from server_kit import EVENT_KEY, PRODUCTION, Running, Start, bearer
from starlette.routing import Route

from holdfast.base.ids import IdFactory, name_uuid, ulid_text
from holdfast.server.app import OPERATIONS

pytestmark = pytest.mark.anyio
NOBODY = ulid_text(IdFactory(1).new(1_700_000_000_000))


async def get(server: Running, path: str, **params):
    response = await server.http.get(path, params=params)
    assert response.status_code == 200, response.text
    return response.json()


async def failed_run(server: Running, message: str = "it is broken") -> str:
    run_id = await server.run_of(await server.send("shop/doomed", message=message))
    assert await server.ended(run_id) == "Failed"
    return run_id


class TestEvents:
    @pytest.mark.protocol("v1.events")
    async def test_the_protocols_row(self, start: Start):
        async with start() as server:
            sent = {
                "name": "shop/thing",
                "id": "mine",
                "ts": 1_700_000_000_123,
                "v": "2",
                "user": {"id": 7},
                "data": {"big": 12345678901234567890123},
            }
            internal = (await server.http.post("/e/k", json=sent)).json()["ids"][0]
            body = await get(server, f"/v1/events/{internal}")
            row = body["data"]
            assert {name: row[name] for name in sent} == sent
            assert row["internal_id"] == internal
            assert row["account_id"] == "00000000-0000-4000-a000-000000000000"
            assert row["environment_id"] == "00000000-0000-4000-b000-000000000000"
            assert (row["source"], row["source_id"]) == ("api", None)
            assert datetime.fromisoformat(row["received_at"]).tzinfo is not None
            assert datetime.fromisoformat(body["metadata"]["fetched_at"]).tzinfo is not None
            assert body["metadata"]["cached_until"] is None

    @pytest.mark.protocol("v1.events")
    async def test_the_list_is_newest_first_in_pages(self, start: Start):
        async with start() as server:
            ids = (await server.http.post("/e/k", json=[{"name": f"shop/{n % 2}"} for n in range(60)])).json()["ids"]
            assert len((await get(server, "/v1/events"))["data"]) == 20
            assert len((await get(server, "/v1/events", limit=1000))["data"]) == 51
            assert len((await get(server, "/v1/events", limit=-3))["data"]) == 1
            seen, cursor = [], None
            while True:
                page = await get(server, "/v1/events", limit=25, **({"cursor": cursor} if cursor else {}))
                seen += [row["internal_id"] for row in page["data"]]
                cursor = page["metadata"]["next_cursor"]
                if cursor is None:
                    break
            assert seen == sorted(ids, reverse=True)
            odd = await get(server, "/v1/events", name="shop/1", limit=51)
            assert {row["name"] for row in odd["data"]} == {"shop/1"}
            assert len(odd["data"]) == 30

    @pytest.mark.protocol("v1.events")
    async def test_by_the_time_of_receipt(self, start: Start):
        async with start() as server:
            await server.http.post("/e/k", json={"name": "early"})
            server.clock.offset = 3_600_000
            await server.http.post("/e/k", json={"name": "late"})
            between = server.clock.now() - 1_800_000
            assert [row["name"] for row in (await get(server, "/v1/events", received_after=between))["data"]] == [
                "late"
            ]
            assert [row["name"] for row in (await get(server, "/v1/events", received_before=between))["data"]] == [
                "early"
            ]
            moment = datetime.fromtimestamp(between / 1000).astimezone().isoformat()
            assert [row["name"] for row in (await get(server, "/v1/events", received_after=moment))["data"]] == ["late"]

    @pytest.mark.protocol("v1.events")
    async def test_the_runs_of_an_event(self, start: Start):
        async with start() as server:
            event_id = await server.send("shop/order.paid", order_id="o1", amount=1)
            (run,) = (await get(server, f"/v1/events/{event_id}/runs"))["data"]
            assert (run["event_id"], run["function"]) == (event_id, "shop-fulfil")


class TestRuns:
    @pytest.mark.protocol("v1.runs", "run.states")
    async def test_the_protocols_fields_and_ours(self, start: Start):
        async with start() as server:
            event_id = await server.send("shop/order.paid", order_id="o1", amount=1)
            run_id = await server.run_of(event_id)
            await server.ended(run_id)
            run = (await get(server, f"/v1/runs/{run_id}"))["data"]
            assert run["run_id"] == run_id
            assert run["status"] == "Completed"
            assert run["function_id"] == name_uuid("shop", "shop-fulfil")
            assert run["event_id"] == event_id
            assert run["output"] == "charge-o1"
            assert (run["batch_id"], run["original_run_id"], run["cron"]) == (None, None, None)
            started, ended = (datetime.fromisoformat(run[name]) for name in ("run_started_at", "ended_at"))
            assert run["duration_ms"] == round((ended - started).total_seconds() * 1000)
            assert (run["steps"], run["attempt"], run["error"]) == (1, 0, None)

    @pytest.mark.protocol("v1.runs")
    async def test_a_failed_run_has_its_error_as_output(self, start: Start):
        async with start() as server:
            run = (await get(server, f"/v1/runs/{await failed_run(server)}"))["data"]
            assert run["status"] == "Failed"
            assert run["output"]["error"]["message"] == "it is broken"
            assert "NonRetriableError" in run["output"]["error"]["name"]
            assert "it is broken" in run["error"]

    async def test_a_run_of_a_schedule_names_it(self, start: Start):
        async with start() as server:
            (schedule,) = [cron.schedule for cron in await server.engine.reader.crons()]
            run_id = await server.engine.run_cron("shop-new-year", schedule)
            assert await server.ended(run_id) == "Completed"
            run = (await get(server, f"/v1/runs/{run_id}"))["data"]
            assert (run["origin"], run["cron"]) == ("cron", schedule)

    async def test_the_list_narrows(self, start: Start):
        async with start() as server:
            failed = await failed_run(server)
            event_id = await server.send("shop/order.paid", order_id="o1", amount=1)
            done = await server.run_of(event_id)
            await server.ended(done)
            waiting = await server.run_of(await server.send("shop/order.shipped", order_id="o9"))

            async def found(**params) -> list[str]:
                return [run["run_id"] for run in (await get(server, "/v1/runs", **params))["data"]]

            assert await found() == [waiting, done, failed]
            assert await found(status="failed") == [failed]
            assert await found(status="Failed,COMPLETED") == [done, failed]
            assert await found(status=["failed", "completed"]) == [done, failed]
            assert await found(function="shop-fulfil") == [done]
            assert await found(event="shop/doomed") == [failed]
            assert await found(event_id=event_id) == [done]
            assert await found(error="broken") == [failed]
            assert await found(app="other") == []
            assert await found(since=server.clock.now() + 1000) == []
            page = await get(server, "/v1/runs", limit=2)
            rest = await get(server, "/v1/runs", limit=2, cursor=page["metadata"]["next_cursor"])
            assert [run["run_id"] for run in page["data"] + rest["data"]] == [waiting, done, failed]

    async def test_the_history(self, start: Start):
        async with start() as server:
            run_id = await server.run_of(await server.send("shop/order.paid", order_id="o1", amount=1))
            await server.ended(run_id)
            history = (await get(server, f"/v1/runs/{run_id}/steps"))["data"]
            (step,) = history["steps"]
            assert (step["id"], step["kind"], step["state"], step["output"], step["error"]) == (
                "charge",
                "run",
                "done",
                "charge-o1",
                None,
            )
            assert history["event"]["data"] == {"order_id": "o1", "amount": 1}
            assert history["run"]["run_id"] == run_id

    async def test_what_a_run_waits_for_can_be_read(self, start: Start):
        async with start() as server:
            run_id = await server.run_of(await server.send("shop/order.shipped", order_id="o1"))
            async with asyncio.timeout(60):
                while (run := (await get(server, f"/v1/runs/{run_id}/steps"))["data"])["run"]["status"] != "Waiting":
                    await asyncio.sleep(0)
            (step,) = run["steps"]
            assert (step["id"], step["kind"], step["state"]) == ("paid", "wait_event", "pending")

    async def test_following_a_run(self, start: Start):
        async with start() as server:
            run_id = await server.run_of(await server.send("shop/order.shipped", order_id="o1"))
            seen = []
            async with server.http.stream("GET", f"/v1/runs/{run_id}/stream") as response:
                assert response.headers["content-type"].startswith("text/event-stream")
                assert response.headers["x-accel-buffering"] == "no"
                name = ""
                async with asyncio.timeout(60):
                    async for line in response.aiter_lines():
                        name = line[7:] if line.startswith("event: ") else name
                        if line.startswith("data: ") and name == "run":
                            seen.append(json.loads(line[6:])["status"])
                            if len(seen) == 1:
                                await server.send("shop/order.paid", order_id="o1", amount=1)
            assert seen[0] in {"Queued", "Running", "Waiting"}
            assert seen[-1] == "Completed"

    async def test_following_a_run_that_has_ended(self, start: Start):
        async with start() as server:
            run_id = await failed_run(server)
            text = (await server.http.get(f"/v1/runs/{run_id}/stream")).text
            assert text.count("event: run\n") == 1


class TestProgress:
    """P8: what a run says of itself, over HTTP."""

    async def test_a_reader_who_comes_back_is_told_of_the_steps_it_has_missed(self, start: Start):
        async with start() as server:
            run_id = await server.run_of(await server.send("shop/order.paid", order_id="o1", amount=1))
            await server.ended(run_id)
            headers = {"last-event-id": "0"}
            text = (await server.http.get(f"/v1/runs/{run_id}/stream", headers=headers)).text
            step, run = (part for part in text.split("\n\n") if part.startswith("event: "))
            assert step.startswith("event: step\nid: 1\ndata: ")
            assert json.loads(step.partition("data: ")[2])["id"] == "charge"
            assert run.startswith("event: run\nid: 1\ndata: ")
            again = (await server.http.get(f"/v1/runs/{run_id}/stream?after=1")).text
            assert "event: step" not in again

    async def test_reported_progress_is_kept_and_followed(self, start: Start):
        async with start() as server:
            run_id = await server.run_of(await server.send("shop/order.shipped", order_id="o1"))
            path = f"/v1/runs/{run_id}/metadata"
            body = {"metadata": [
                {"kind": "userland.progress", "op": "set", "values": {"fraction": 0.4, "text": "images"}},
                {"kind": "inngest.score", "values": {"good": {"value": 1}}},
                {"kind": "userland.log", "op": "add", "values": {"at": 1, "level": 30, "message": "few are left", "step": "images"}},
            ]}
            async with server.http.stream("GET", f"/v1/runs/{run_id}/stream") as response:
                async with asyncio.timeout(30):
                    async for line in response.aiter_lines():
                        if line == "event: run":
                            answer = await server.http.post(path, json=body)
                        if '"text":"images"' in line:
                            break
            assert answer.json()["data"] == {"kept": ["userland.log", "userland.progress"], "ignored": ["inngest.score"]}
            run = (await get(server, f"/v1/runs/{run_id}"))["data"]
            assert (run["progress"]["fraction"], run["progress"]["text"]) == (0.4, "images")
            history = (await get(server, f"/v1/runs/{run_id}/steps"))["data"]
            assert {(line["level"], line["message"], line["step"]) for line in history["logs"]} == {("warning", "few are left", "images")}
            (listed,) = (await get(server, "/v1/runs"))["data"]
            assert listed["progress"] == run["progress"]

    async def test_what_is_refused(self, start: Start):
        async with start() as server:
            run_id = await server.run_of(await server.send("shop/order.paid", order_id="o1", amount=1))
            await server.ended(run_id)

            async def post(run: str, body: Any) -> tuple[int, str]:
                answer = await server.http.post(f"/v1/runs/{run}/metadata", json=body)
                return answer.status_code, answer.json()["error"]

            said = {"metadata": [{"kind": "userland.progress", "values": {"fraction": 0.5}}]}
            status, error = await post(run_id, said)
            assert (status, "has ended" in error) == (409, True)
            status, error = await post(NOBODY, said)
            assert (status, "there is no run" in error) == (404, True)
            status, error = await post(run_id, {"metadata": [{"kind": "userland.progress", "values": {"fraction": 7}}]})
            assert (status, "a number from 0 to 1" in error) == (400, True)
            for values in ({}, {"at": 10**15}, {"at": 10**20}, {"at": -1}, {"at": 1, "level": 10**20}, {"at": 1, "level": -1}):
                line = {"kind": "userland.log", "values": {"message": "x", "level": 20, **values}}
                assert (await post(run_id, {"metadata": [line]}))[0] == 400, values
            status, error = await post(run_id, {"metadata": 1})
            assert status == 400
            huge = {"metadata": [{"kind": "x", "values": {"y": "z" * 70_000}}]}
            assert (await post(run_id, huge))[0] == 413


class TestChanges:
    @pytest.mark.protocol("v1.runs", "run.cancel")
    async def test_cancelling(self, start: Start):
        async with start() as server:
            one = await server.run_of(await server.send("shop/order.shipped", order_id="o1"))
            two = await server.run_of(await server.send("shop/order.shipped", order_id="o2"))
            first = await server.http.delete(f"/v1/runs/{one}")
            assert (first.status_code, first.content) == (200, b"")
            assert (await server.http.delete(f"/v0/runs/{two}")).status_code == 204
            for run_id in (one, two):
                assert (await get(server, f"/v1/runs/{run_id}"))["data"]["status"] == "Cancelled"
                for version in ("v0", "v1"):
                    again = await server.http.delete(f"/{version}/runs/{run_id}")
                    assert (again.status_code, again.json()["code"]) == (409, "run_ended")

    async def test_rerunning(self, start: Start):
        async with start() as server:
            old = await failed_run(server)
            new = (await server.http.post(f"/v1/runs/{old}/rerun")).json()["data"]["run_id"]
            assert new != old
            assert await server.ended(new) == "Failed"
            run = (await get(server, f"/v1/runs/{new}"))["data"]
            assert (run["original_run_id"], run["origin"], run["parent_run_id"]) == (old, "rerun", None)

    async def test_a_run_that_has_not_ended_is_not_run_again(self, start: Start):
        async with start() as server:
            run_id = await server.run_of(await server.send("shop/order.shipped", order_id="o1"))
            response = await server.http.post(f"/v1/runs/{run_id}/rerun")
            assert (response.status_code, response.json()["code"]) == (409, "not_possible")
            assert len((await get(server, "/v1/runs"))["data"]) == 1

    async def test_redriving_twice_runs_once(self, start: Start):
        async with start() as server:
            dead = await failed_run(server)
            answers = await asyncio.gather(*[server.http.post(f"/v1/runs/{dead}/redrive") for _ in range(5)])
            assert {response.status_code for response in answers} == {200}
            (new,) = {response.json()["data"]["run_id"] for response in answers}
            await server.ended(new)
            letters = (await get(server, "/v1/dead-letters", state="redriven"))["data"]
            assert [(letter["run_id"], letter["redriven_as"]) for letter in letters] == [(dead, new)]

    async def test_only_dead_letters_are_redriven(self, start: Start):
        async with start() as server:
            run_id = await server.run_of(await server.send("shop/order.paid", order_id="o1", amount=1))
            await server.ended(run_id)
            response = await server.http.post(f"/v1/runs/{run_id}/redrive")
            assert (response.status_code, response.json()["code"]) == (409, "not_a_dead_letter")

    async def test_dead_letters_are_listed_and_discarded(self, start: Start):
        async with start() as server:
            one, two = await failed_run(server, "no stock"), await failed_run(server, "no money")
            letters = (await get(server, "/v1/dead-letters"))["data"]
            assert [letter["run_id"] for letter in letters] == [two, one]
            assert (letters[0]["function"], letters[0]["event_name"], letters[0]["state"]) == (
                "shop-doomed",
                "shop/doomed",
                "dead",
            )
            assert "no money" in letters[0]["error"]
            same = (
                await get(server, "/v1/dead-letters", fingerprint=letters[1]["fingerprint"], function="shop-doomed")
            )["data"]
            assert one in [letter["run_id"] for letter in same]
            assert (await server.http.delete(f"/v1/dead-letters/{one}")).status_code == 204
            again = await server.http.delete(f"/v1/dead-letters/{one}")
            assert (again.status_code, again.json()["code"]) == (409, "dead_letter_resolved")
            assert [letter["run_id"] for letter in (await get(server, "/v1/dead-letters"))["data"]] == [two]
            assert len((await get(server, "/v1/dead-letters", state="all"))["data"]) == 2
            assert (await get(server, f"/v1/runs/{one}"))["data"]["status"] == "Failed"

    @pytest.mark.protocol("events.invoke")
    async def test_invoking(self, start: Start):
        async with start() as server:
            response = await server.http.post("/invoke/shop-fulfil", json={"data": {"order_id": "o7", "amount": 1}})
            body = response.json()
            assert (response.status_code, body["status"]) == (200, 200)
            assert await server.ended(body["run_id"]) == "Completed"
            run = (await get(server, f"/v1/runs/{body['run_id']}"))["data"]
            assert (run["event_id"], run["output"]) == (body["id"], "charge-o7")

    async def test_invoking_with_what_does_not_fit(self, start: Start):
        async with start() as server:
            for body, error in [
                (b'{"data":{"order_id":"o1"}}', "amount: field required"),
                (b"", "order_id: field required"),
                (b"[]", "Request body must contain an event object"),
                (b"x", "the body is not JSON"),
                (b'{"name":"inngest/x","data":{}}', "reserved"),
            ]:
                response = await server.http.post("/invoke/shop-fulfil", content=body)
                assert response.status_code == 400
                assert error in response.json()["error"], body

    async def test_every_change_is_in_the_audit_log(self, start: Start):
        async with start(bearer(), **PRODUCTION) as server:
            dead, other = await failed_run(server), await failed_run(server)
            waiting = await server.run_of(await server.send("shop/order.shipped", order_id="o1"))
            await server.http.delete(f"/v1/runs/{waiting}")
            rerun = (await server.http.post(f"/v1/runs/{dead}/rerun")).json()["data"]["run_id"]
            redriven = (await server.http.post(f"/v1/runs/{dead}/redrive")).json()["data"]["run_id"]
            await server.http.delete(f"/v1/dead-letters/{other}")
            invoked = (
                await server.http.post("/invoke/shop-fulfil", json={"data": {"order_id": "o1", "amount": 1}})
            ).json()["run_id"]
            entries = [
                (entry.action, entry.target, entry.detail) for entry in reversed(await server.engine.reader.audit())
            ]
            assert entries == [
                ("run.cancel", waiting, ""),
                ("run.rerun", dead, rerun),
                ("run.redrive", dead, redriven),
                ("dead_letter.discard", other, ""),
                ("function.invoke", "shop-fulfil", invoked),
            ]
            assert {entry.actor for entry in await server.engine.reader.audit()} == {
                (await server.engine.reader.audit())[0].actor
            }
            assert (await server.engine.reader.audit())[0].actor.startswith("signing key ")

    async def test_what_changed_nothing_is_not(self, start: Start):
        async with start() as server:
            await server.http.delete(f"/v1/runs/{NOBODY}")
            await server.http.post(f"/v1/runs/{NOBODY}/rerun")
            await server.http.post("/invoke/nothing", json={})
            assert await server.engine.reader.audit() == []


class TestErrors:
    @pytest.mark.protocol("auth.errors")
    async def test_they_are_json_with_a_sentence(self, start: Start):
        async with start() as server:
            for method, path, status, code in [
                ("GET", f"/v1/runs/{NOBODY}", 404, "run_not_found"),
                ("GET", f"/v1/runs/{NOBODY}/steps", 404, "run_not_found"),
                ("GET", f"/v1/runs/{NOBODY}/stream", 404, "run_not_found"),
                ("DELETE", f"/v1/runs/{NOBODY}", 404, "run_not_found"),
                ("DELETE", f"/v0/runs/{NOBODY}", 404, "run_not_found"),
                ("POST", f"/v1/runs/{NOBODY}/rerun", 404, "run_not_found"),
                ("POST", f"/v1/runs/{NOBODY}/redrive", 404, "run_not_found"),
                ("DELETE", f"/v1/dead-letters/{NOBODY}", 404, "run_not_found"),
                ("GET", f"/v1/events/{NOBODY}", 404, "event_not_found"),
                ("GET", f"/v1/events/{NOBODY}/runs", 404, "event_not_found"),
                ("GET", "/v1/runs/nonsense", 400, "bad_request"),
                ("GET", "/v1/events/%3Cscript%3E", 400, "bad_request"),
                ("GET", "/v1/runs?status=burning", 400, "bad_request"),
                ("GET", "/v1/runs?limit=many", 400, "bad_request"),
                ("GET", "/v1/runs?since=yesterday", 400, "bad_request"),
                ("GET", "/v1/runs?cursor=nonsense", 400, "bad_request"),
                ("GET", "/v1/events?cursor=nonsense", 400, "bad_request"),
                ("GET", "/v1/dead-letters?cursor=nonsense", 400, "bad_request"),
                ("GET", "/v1/dead-letters?state=undead", 400, "bad_request"),
                ("GET", "/v1/apps/nothing/functions", 404, "app_not_found"),
                ("POST", "/invoke/nothing", 404, "function_not_found"),
                ("GET", "/v1/nothing", 404, "not_found"),
                ("PATCH", "/v1/runs", 405, "method_not_allowed"),
            ]:
                response = await server.http.request(method, path)
                body = response.json()
                assert (response.status_code, body["status"], body["code"], body["data"]) == (
                    status,
                    status,
                    code,
                    None,
                )
                assert len(body["error"]) > 10, (method, path)

    async def test_browsers_get_a_page(self, start: Start):
        async with start() as server:
            response = await server.http.get("/v1/runs/<b>", headers={"accept": "text/html"})
            assert response.headers["content-type"].startswith("text/html")
            assert "&lt;b&gt;" in response.text
            assert "<b>" not in response.text

    async def test_what_nobody_expected_tells_nothing_of_the_inside(self, start: Start, caplog):
        async with start() as server:

            async def explode():
                raise RuntimeError("secret-inside-canary")

            server.engine.reader.functions = explode
            response = await server.http.get("/v1/functions")
            assert response.status_code == 500
            assert "canary" not in response.text
            assert "secret-inside-canary" in caplog.text


class TestServer:
    @pytest.mark.protocol("events.health")
    async def test_health(self, start: Start):
        async with start() as server:
            response = await server.http.get("/health")
            assert (response.status_code, response.text) == (200, '{"status":200,"message":"OK"}')
            head = await server.http.head("/health")
            assert (head.status_code, head.content) == (200, b"")
            server.engine.draining = True
            assert (await server.http.get("/health")).status_code == 503
            server.engine.draining = False

    @pytest.mark.protocol("register.sync")
    async def test_dev(self, start: Start):
        async with start() as server:
            body = await get(server, "/dev")
            assert set(body) >= {
                "version",
                "authed",
                "startOpts",
                "functions",
                "handlers",
                "isSingleNodeService",
                "isMissingSigningKey",
                "isMissingEventKeys",
                "features",
            }
            assert {function["slug"] for function in body["functions"]} == {
                "shop-fulfil",
                "shop-follow-up",
                "shop-doomed",
                "shop-new-year",
            }
            paid = next(function for function in body["functions"] if function["slug"] == "shop-fulfil")
            assert paid["triggers"] == [{"event": "shop/order.paid"}]

    @pytest.mark.protocol("register.sync")
    async def test_dev_says_where_functions_are_called(self, start: Start):
        async with start() as server:
            with scripted_sdk("remote", {"work": lambda call, step: None}) as sdk:
                assert (await server.http.post("/fn/register", json=sdk.document())).status_code == 200
                found = next(one for one in (await get(server, "/dev"))["functions"] if one["slug"] == "remote-work")
                assert found["triggers"] == [{"event": "remote/work"}]
                assert found["steps"] == [{"id": "step", "name": "step", "uri": f"{sdk.url}?fnId=remote-work&stepId=step"}]

    async def test_there_is_no_dev_in_production(self, start: Start):
        async with start(bearer(), **PRODUCTION) as server:
            assert (await server.http.get("/dev")).status_code == 404

    @pytest.mark.protocol("auth.kind")
    @pytest.mark.parametrize(("settings", "kind"), [({}, "dev"), (PRODUCTION, "cloud")])
    async def test_every_answer_says_its_kind(self, start: Start, settings, kind):
        async with start(**settings) as server:
            for method, path in (
                ("GET", "/health"),
                ("GET", "/v1/runs"),
                ("POST", "/e/x"),
                ("GET", "/nothing"),
                ("GET", "/"),
            ):
                assert (await server.http.request(method, path)).headers["x-inngest-server-kind"] == kind

    @pytest.mark.protocol("v1.functions")
    async def test_functions_of_an_app(self, start: Start):
        async with start() as server:
            everything = (await get(server, "/v1/functions"))["data"]
            assert (await get(server, "/v1/apps/shop/functions"))["data"] == everything
            fulfil = next(function for function in everything if function["slug"] == "shop-fulfil")
            assert fulfil["config"]["triggers"] == [{"event": "shop/order.paid"}]

    @pytest.mark.protocol("v1.metrics")
    async def test_metrics(self, start: Start):
        async with start() as server:
            await server.send("shop/order.paid", order_id="o1", amount=1)
            await server.http.post("/e/k", content=b"nonsense")
            text = (await server.http.get("/metrics")).text
            assert 'holdfast_http_requests_total{method="POST",route="/e/{key}",status="200"} 1.0' in text
            assert 'holdfast_http_requests_total{method="POST",route="/e/{key}",status="400"} 1.0' in text
            assert 'holdfast_http_request_seconds_count{route="/e/{key}"} 2.0' in text
            assert "holdfast_events_received_total 1.0" in text

    @pytest.mark.protocol("v1.metrics", "v1.telemetry")
    async def test_what_sdks_find_in_the_cloud(self, start: Start):
        async with start() as server:
            assert "holdfast_events_received_total" in (await server.http.get("/v1/prom/any")).text
            for path in ("/v0/telemetry", "/v1/traces/userland", "/dev/traces"):
                assert (await server.http.post(path, content=b"\x0a\x00", headers={"content-type": "application/x-protobuf"})).status_code == 200

    async def test_unknown_paths_and_methods_make_no_new_labels(self, start: Start):
        async with start() as server:
            for number in range(20):
                await server.http.get(f"/nothing/{number}")
                await server.http.request(f"METHOD{number}", "/v1/runs")
            text = (await server.http.get("/metrics")).text
            assert sum(line.startswith("holdfast_http_requests_total{") for line in text.splitlines()) <= 3


class TestReference:
    async def test_the_document_is_valid(self, start: Start):
        async with start() as server:
            validate(await get(server, "/openapi.json"))

    async def test_the_page_needs_no_script_and_shows_every_operation(self, start: Start):
        async with start() as server:
            page = (await server.http.get("/docs")).text
            assert "<script" not in page
            assert "style=" not in page
            for operation in OPERATIONS:
                assert operation.summary in page
                assert operation.path in page

    async def test_every_route_of_the_api_is_in_it(self, start: Start):
        async with start() as server:
            document = await get(server, "/openapi.json")
            routes = {
                (method, route.path)
                for route in server.serving.app.routes
                if isinstance(route, Route)
                and route.path.startswith(("/v1/", "/v0/", "/e/", "/invoke/", "/health", "/metrics", "/dev"))
                for method in route.methods
            } - {("OPTIONS", "/e/{key}"), ("GET", "/e/{key}"), ("HEAD", "/e/{key}")}
            documented = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
            # what begins like /dev but belongs to the dashboard is no part of the API
            pages = {(method, path) for method, path in routes if path.startswith("/dead-letters")}
            assert {(m, p) for m, p in routes - pages if m != "HEAD"} <= documented

    async def test_answers_are_what_it_says(self, start: Start):
        async with start() as server:
            document = await get(server, "/openapi.json")
            event_id = await server.send("shop/order.paid", order_id="o1", amount=1)
            run_id = await server.run_of(event_id)
            dead = await failed_run(server)
            await server.run_of(await server.send("shop/order.shipped", order_id="o1"))
            calls = [
                ("GET", "/v1/runs", "/v1/runs"),
                ("GET", "/v1/runs/{run_id}", f"/v1/runs/{run_id}"),
                ("GET", "/v1/runs/{run_id}", f"/v1/runs/{dead}"),
                ("GET", "/v1/runs/{run_id}/steps", f"/v1/runs/{run_id}/steps"),
                ("GET", "/v1/runs/{run_id}/steps", f"/v1/runs/{dead}/steps"),
                ("GET", "/v1/runs/{run_id}", f"/v1/runs/{NOBODY}"),
                ("GET", "/v1/events", "/v1/events"),
                ("GET", "/v1/events/{internal_id}", f"/v1/events/{event_id}"),
                ("GET", "/v1/events/{internal_id}/runs", f"/v1/events/{event_id}/runs"),
                ("GET", "/v1/functions", "/v1/functions"),
                ("GET", "/v1/apps/{app}/functions", "/v1/apps/shop/functions"),
                ("GET", "/v1/apps/{app}/functions", "/v1/apps/nothing/functions"),
                ("GET", "/v1/dead-letters", "/v1/dead-letters"),
                ("GET", "/health", "/health"),
                ("GET", "/dev", "/dev"),
                ("POST", "/v1/runs/{run_id}/rerun", f"/v1/runs/{dead}/rerun"),
                ("POST", "/v1/runs/{run_id}/redrive", f"/v1/runs/{dead}/redrive"),
                ("DELETE", "/v1/runs/{run_id}", f"/v1/runs/{dead}"),
                ("POST", "/e/{key}", "/e/k"),
                ("POST", "/invoke/{slug}", "/invoke/shop-fulfil"),
                ("POST", "/invoke/{slug}", "/invoke/nothing"),
            ]
            for method, path, address in calls:
                response = await server.http.request(method, address)
                operation = document["paths"][path][method.lower()]
                assert str(response.status_code) in operation["responses"], (method, address, response.status_code)
                content = operation["responses"][str(response.status_code)].get("content")
                if content is None:
                    assert response.content == b""
                else:
                    schema = {**content["application/json"]["schema"], "components": document["components"]}
                    jsonschema.Draft202012Validator(schema).validate(response.json())

    async def test_it_says_which_calls_need_a_key(self, start: Start):
        async with start(bearer(), **PRODUCTION) as server:
            document = await get(server, "/openapi.json")
            validate(document)
            refused = document["paths"]["/e/{key}"]["post"]["responses"]["401"]["content"]["application/json"]["schema"]
            body = (await server.http.post("/e/wrong", json={"name": "a"})).json()
            jsonschema.Draft202012Validator({**refused, "components": document["components"]}).validate(body)
            open_calls = {
                path for path, item in document["paths"].items() for call in item.values() if not call["security"]
            }
            outputs = {f"/v1/{kind}/{{run_id}}/output" for kind in ("checkpoint", "http/runs")}
            assert open_calls == {"/health", "/e/{key}", *outputs}, "outputs have tokens of their own"
            assert EVENT_KEY not in (await server.http.get("/docs")).text


class TestJobs:
    @pytest.mark.protocol("v1.runs")
    async def test_what_is_to_be_done_for_a_run(self, start: Start):
        async with start() as server:
            waiting = await server.run_of(await server.send("shop/order.shipped", order_id="o1"))
            own, step = (await server.http.get(f"/v1/runs/{waiting}/jobs")).json()["data"]
            assert (own["run_id"], own["step"]) == (waiting, None)
            assert (step["step"], step["state"], step["attempt"]) == ("paid", "pending", 0)
            assert step["run_at"]
            done = await server.run_of(await server.send("shop/order.paid", order_id="o2", amount=1))
            await server.ended(done)
            assert (await server.http.get(f"/v1/runs/{done}/jobs")).json()["data"] == []
            assert (await server.http.get("/v1/runs/01ARZ3NDEKTSV4RRFFQ69G5FAV/jobs")).status_code == 404

    @pytest.mark.protocol("v1.runs")
    @pytest.mark.parametrize(("prefix", "status"), [("/v1", 200), ("/v0", 204)])
    async def test_cancelling_by_either_address(self, start: Start, prefix, status):
        async with start() as server:
            run_id = await server.run_of(await server.send("shop/order.shipped", order_id="o1"))
            answer = await server.http.delete(f"{prefix}/runs/{run_id}")
            assert (answer.status_code, answer.content) == (status, b"")
            assert (await server.http.delete(f"{prefix}/runs/{run_id}")).status_code == 409
            assert (await server.http.delete(f"{prefix}/runs/01ARZ3NDEKTSV4RRFFQ69G5FAV")).status_code == 404
