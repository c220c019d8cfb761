"""P7: REST for flow control: how it stands, pausing, limits, flushing, and why events started nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from server_kit import PRODUCTION, bearer

from holdfast import App, Batch, Concurrency, Context, Debounce, RateLimit
from holdfast.compose import build_engine
from holdfast.engine.engine import Engine
from holdfast.server.serve import serving
from holdfast.server.settings import ServerSettings

pytestmark = pytest.mark.anyio


class Busy:
    """A server of functions with rules, whose bodies stay until the test lets them go."""

    def __init__(self, engine: Engine, http: httpx.AsyncClient, door: asyncio.Event) -> None:
        self.engine = engine
        self.http = http
        self.door = door

    async def ask(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        answer = await self.http.request(method, path, json=body)
        assert answer.status_code == status, answer.text
        return answer.json()["data"] if status == 200 else answer.json()

    async def send(self, name: str, **data: Any) -> str:
        answer = await self.http.post("/e/event-canary-0f6e2d1c9b", json={"name": name, "data": data})
        await self.engine.store.group.drain()
        return answer.json()["ids"][0]

    async def audited(self) -> list[tuple[str, str, str]]:
        await self.engine.store.group.drain()
        return [(entry.action, entry.target, entry.detail) for entry in reversed(await self.engine.reader.audit())]


@asynccontextmanager
async def busy(folder: Path, headers: dict[str, str] | None = None, **settings: Any) -> AsyncIterator[Busy]:
    app, door = App("shop"), asyncio.Event()

    @app.function("shop/work", concurrency=Concurrency(2, key="event.data.who"))
    async def work(ctx: Context[Any]) -> None:
        await ctx.step.run("wait", door.wait)

    @app.function("shop/quiet", debounce=Debounce("1h", key="event.data.who"))
    async def quiet(ctx: Context[Any]) -> None: ...

    @app.function("shop/many", batch=Batch(10, "1h"))
    async def many(ctx: Context[Any]) -> None: ...

    @app.function("shop/rare", rate_limit=RateLimit(1, "1h"))
    async def rare(ctx: Context[Any]) -> None: ...

    async with build_engine([app], f"sqlite:///{folder / 'store.db'}") as engine:
        async with serving(engine, ServerSettings(**{"port": 0, **settings})) as where:
            base = f"http://127.0.0.1:{where.port}"
            async with httpx.AsyncClient(base_url=base, headers=headers, trust_env=False, timeout=20) as http:
                try:
                    yield Busy(engine, http, door)
                finally:
                    door.set()


async def test_who_waits_for_what_and_where_in_line(tmp_path):
    async with busy(tmp_path) as server:
        sent = [await server.send("shop/work", who="user-7") for _ in range(4)]
        (run,) = await server.ask("GET", f"/v1/events/{sent[3]}/runs")
        run = await server.ask("GET", f"/v1/runs/{run['run_id']}")
        place = run["queue"]
        assert {name: place[name] for name in ("state", "position", "more_ahead", "rule", "key", "used", "limit", "until")} == {
            "state": "ready", "position": 2, "more_ahead": False, "rule": "concurrency", "key": "user-7", "used": 2, "limit": 2, "until": None,
        }
        assert run["why"] == ["Concurrency key user-7: 2 of 2 places taken, 2nd in line."]
        history = await server.ask("GET", f"/v1/runs/{run['run_id']}/steps")
        assert (history["queue"], history["run"]["why"]) == (place, run["why"])
        flow = await server.ask("GET", "/v1/functions/shop-work/flow")
        (rule,) = flow["rules"]
        assert (rule["name"], rule["words"], rule["limit"], rule["used"], rule["waiting"], rule["lines"]) == (
            "concurrency", "at most 2 steps at once, for each event.data.who", 2, 2, 2, 1,
        )
        assert [(key["key"], key["used"], key["waiting"]) for key in rule["hot_keys"]] == [("user-7", 2, 2)]
        assert flow["backlog"]["delayed"] == {"concurrency": 2}
        assert [one["function"] for one in await server.ask("GET", "/v1/flow")] == ["shop-many", "shop-quiet", "shop-rare", "shop-work"]


async def test_a_function_is_paused_resumed_and_its_limit_changed_by_whom_the_audit_log_says(tmp_path):
    async with busy(tmp_path) as server:
        paused = await server.ask("POST", "/v1/functions/shop-work/pause")
        assert paused["paused"] == "hold"
        held = await server.send("shop/work", who="a")
        (run,) = await server.ask("GET", f"/v1/events/{held}/runs")
        assert (await server.ask("GET", f"/v1/runs/{run['run_id']}"))["why"] == ["Held: the function is paused, 1st in line."]
        assert (await server.ask("POST", "/v1/functions/shop-work/pause", {"mode": "skip"}))["paused"] == "skip"
        skipped = await server.send("shop/work", who="a")
        (skip,) = await server.ask("GET", f"/v1/events/{skipped}/skips")
        (run,) = await server.ask("GET", f"/v1/events/{skipped}/runs")
        assert (skip["function"], skip["reason"], skip["run_id"]) == ("shop-work", "paused", run["run_id"])
        assert (run["status"], run["reason"]) == ("Skipped", "the function is paused")
        listed = {one["slug"]: (one["paused"], one["pause"]) for one in await server.ask("GET", "/v1/functions")}
        assert listed["shop-work"] == (True, "skip")
        assert (await server.ask("POST", "/v1/functions/shop-work/resume"))["paused"] is None
        (rule,) = (await server.ask("PUT", "/v1/functions/shop-work/limits/concurrency", {"limit": 5}))["rules"]
        assert (rule["limit"], rule["declared"]) == (5, 2)
        (rule,) = (await server.ask("DELETE", "/v1/functions/shop-work/limits/concurrency"))["rules"]
        assert (rule["limit"], rule["declared"]) == (2, 2)
        assert await server.audited() == [
            ("function.pause", "shop-work", "hold"), ("function.pause", "shop-work", "skip"), ("function.resume", "shop-work", ""),
            ("function.limit", "shop-work", "concurrency 5"), ("function.limit", "shop-work", "concurrency as in the code"),
        ]


async def test_debounces_and_batches_are_shown_and_flushed(tmp_path):
    async with busy(tmp_path) as server:
        waits = await server.send("shop/quiet", who="a")
        await server.send("shop/quiet", who="b")
        gathered = await server.send("shop/many")
        (skip,) = await server.ask("GET", f"/v1/events/{waits}/skips")
        assert (skip["reason"], skip["detail"]) == ("debounced", "1h of quiet for key 'a'")
        assert skip["waits_until"] > skip["at"]
        (batched,) = await server.ask("GET", f"/v1/events/{gathered}/skips")
        assert (batched["reason"], batched["detail"]) == ("batched", "1 so far")
        flow = await server.ask("GET", "/v1/functions/shop-quiet/flow")
        assert (flow["gathering"], [(one["kind"], one["key"], one["events"]) for one in flow["gathers"]]) == (2, [("debounce", "a", 1), ("debounce", "b", 1)])
        assert await server.ask("POST", "/v1/functions/shop-quiet/flush", {"key": "a"}) == {"started": 1}
        assert await server.ask("POST", "/v1/functions/shop-quiet/flush") == {"started": 1}
        assert await server.ask("POST", "/v1/functions/shop-quiet/flush") == {"started": 0}
        assert await server.ask("POST", "/v1/functions/shop-many/flush") == {"started": 1}
        (run,) = await server.ask("GET", f"/v1/events/{gathered}/runs")
        history = await server.ask("GET", f"/v1/runs/{run['run_id']}/steps")
        assert (run["run_id"], run["batch"]) == (batched["run_id"], 1)
        assert [(one["internal_id"], one["name"]) for one in history["batch_events"]] == [(gathered, "shop/many")]
        assert await server.ask("GET", f"/v1/events/{gathered}/skips") == []


async def test_an_event_that_started_nothing_always_says_why(tmp_path):
    async with busy(tmp_path) as server:
        await server.send("shop/rare")
        dropped, nobody = await server.send("shop/rare"), await server.send("shop/nobody-listens")
        (limited,) = await server.ask("GET", f"/v1/events/{dropped}/skips")
        assert (limited["reason"], limited["detail"], limited["waits_until"]) == ("rate limited", "1 in 1h", None)
        (none,) = await server.ask("GET", f"/v1/events/{nobody}/skips")
        assert (none["function"], none["reason"]) == (None, "no function")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "told"),
    [
        ("POST", "/v1/functions/shop-nobody/pause", None, 404, "there is no function 'shop-nobody'"),
        ("POST", "/v1/functions/shop-work/pause", {"mode": "gently"}, 400, "'hold' or 'skip', not 'gently'"),
        ("POST", "/v1/functions/shop-work/pause", {"mode": 3}, 400, "the body is not what this expects"),
        ("PUT", "/v1/functions/shop-work/limits/throttle", {"limit": 3}, 400, "no limit 'throttle'; it has concurrency"),
        ("PUT", "/v1/functions/shop-work/limits/concurrency", {"limit": 0}, 400, "1 or more, not 0"),
        ("PUT", "/v1/functions/shop-work/limits/concurrency", {}, 400, "limit"),
        ("DELETE", "/v1/functions/shop-quiet/limits/concurrency", None, 400, "it has none"),
        ("GET", "/v1/functions/shop-nobody/flow", None, 404, "GET /v1/functions lists those there are"),
    ],
)
async def test_what_is_not_possible_is_refused_in_a_sentence_and_leaves_no_trace(tmp_path, method, path, body, status, told):
    async with busy(tmp_path) as server:
        assert told in (await server.ask(method, path, body, status))["error"]
        assert await server.audited() == []


async def test_a_production_server_asks_for_the_key(tmp_path):
    async with busy(tmp_path, **PRODUCTION) as server:
        for method, path in (("GET", "/v1/flow"), ("POST", "/v1/functions/shop-work/pause"), ("PUT", "/v1/functions/shop-work/limits/concurrency")):
            assert (await server.http.request(method, path)).status_code == 401
        answer = await server.http.put("/v1/functions/shop-work/limits/concurrency", json={"limit": 9}, headers=bearer())
        assert answer.json()["data"]["rules"][0]["limit"] == 9


async def test_metrics_have_functions_and_rules_but_no_keys(tmp_path):
    async with busy(tmp_path) as server:
        for _ in range(3):
            await server.send("shop/work", who="user-7")
        await server.send("shop/quiet", who="user-7")
        await server.ask("POST", "/v1/functions/shop-rare/pause")
        text = (await server.http.get("/metrics")).text
        for line in (
            'holdfast_runs_in_line{fn="shop-work"} 1.0', 'holdfast_runs_waiting{fn="shop-work",rule="concurrency"} 1.0',
            'holdfast_limit{fn="shop-work",rule="concurrency"} 2.0', 'holdfast_limit_used{fn="shop-work",rule="concurrency"} 2.0',
            'holdfast_runs_waiting{fn="shop-quiet",rule="debounce"} 1.0', 'holdfast_function_paused{fn="shop-rare"} 1.0',
        ):
            assert line in text
        assert "user-7" not in text
