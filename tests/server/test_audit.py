"""The audit log: every route that changes something leaves a line, and no line changes."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest
from scripted_sdk import ScriptedSdk, scripted_sdk
from server_kit import PRODUCTION, Running, Start, bearer, every_route, make_app

from holdfast import App
from holdfast.base.ids import ulid_text
from holdfast.compose import build_engine

pytestmark = pytest.mark.anyio
ACTOR = re.compile(r"signing key [0-9a-f]{8}")
NO_CHANGE = {
    ("POST", "/e/{key}"): "an event is its own record, with its time and source",
    ("POST", "/api/v2/events"): "the same",
    ("POST", "/v1/checkpoint/{run_id}/async"): "an application's report about a run that it executes",
    ("POST", "/v1/checkpoint"): "an application's report that it executes a run within a request of its own",
    ("POST", "/v1/checkpoint/{run_id}/steps"): "its steps",
    ("POST", "/v1/runs/{run_id}/metadata"): "what an application says about a run that it executes",
    ("POST", "/dev/traces"): "what an application traces of its runs",
    ("POST", "/v0/telemetry"): "the same",
    ("POST", "/v1/traces/userland"): "the same",
    ("POST", "/bulk/ask"): "asks whether it is really meant",
}
"""Routes that are not GET and leave no line, and why."""


class Making:
    """Makes what a route needs, and the values it is called with."""

    def __init__(self, server: Running, sdk: ScriptedSdk) -> None:
        self.server = server
        self.sdk = sdk

    async def held(self) -> str:
        for slug in ("shop-follow-up", "lim-capped"):
            await self.server.engine.flow_control.resume(slug)
        return await self.server.run_of(await self.server.send("shop/order.shipped", order_id="o1"))

    async def dead(self) -> str:
        run_id = await self.server.run_of(await self.server.send("shop/doomed"))
        await self.server.ended(run_id)
        return run_id

    async def bulk(self) -> str:
        for _ in range(3):
            await self.held()
        body = {"action": "cancel", "filter": {"function": "shop-follow-up"}, "rate": "1/h"}  # so that it is not over at once
        return (await self.server.http.post("/v1/bulk", json=body)).json()["data"]["id"]

    async def cancellation(self) -> str:
        for _ in range(3):
            await self.held()
        where = {"app": "shop", "function": "follow-up", "until": self.server.clock.now() + 60_000}
        row = await self.server.engine.bulks.start("cancel", where, rate="1/h", actor="a test")
        return ulid_text(row.id)

    async def app(self) -> str:
        self.sdk.server_url = ""
        answer = await self.server.http.post("/fn/register", json=self.sdk.document())
        assert answer.status_code == 200, answer.text
        return next(fn.uuid for fn in self.server.engine.applications.functions.values())

    async def slug_uuid(self) -> str:
        found = await self.server.http.post("/v0/gql", json={"query": "query{ functions{ id slug } }"})
        return next(fn["id"] for fn in found.json()["data"]["functions"] if fn["slug"] == "shop-follow-up")


Made = dict[str, Any]
Recipe = Callable[[Making], Awaitable[Made]]


def body(action: str = "", /, *, make: str | None = None, **json: Any) -> Recipe:
    """A recipe with a JSON body; `make` names what is made first, whose id goes into the path."""

    async def recipe(making: Making) -> Made:
        made = await getattr(making, make)() if make else ""
        return {"path": {"run_id": made, "bulk_id": made}, "json": json or None, "action": action}

    return recipe


def form(action: str, /, *, make: str | None = None, **fields: str) -> Recipe:
    async def recipe(making: Making) -> Made:
        made = await getattr(making, make)() if make else ""
        page = (await making.server.http.get("/events/send")).text
        token = re.search(r'name="csrf_token" value="([^"]+)"', page)[1]
        fields_ = {"csrf_token": token, **{name: value.replace("{made}", made) for name, value in fields.items()}}
        return {"path": {"run_id": made, "bulk_id": made}, "data": fields_, "action": action}

    return recipe


def query(action: str, make: str, **params: str) -> Recipe:
    async def recipe(making: Making) -> Made:
        made = await getattr(making, make)()
        held = await making.held() if "{held}" in params.values() else ""
        values = {name: value.format(made=made, url=making.sdk.url, held=held) for name, value in params.items()}
        return {"path": {}, "params": values, "action": action}

    return recipe


async def _signal(making: Making) -> Made:
    return {"path": {}, "json": {"signal": "nobody-waits", "data": 1}, "action": None, "status": 404}


async def _register(making: Making) -> Made:
    return {"path": {}, "json": making.sdk.document(), "action": "app.register"}


async def _login(making: Making) -> Made:
    return {"path": {}, "data": {"credential": PRODUCTION["signing_key"]}, "action": "login"}


async def _logout(making: Making) -> Made:
    http, keyless = making.server.http, {"authorization": ""}
    await http.post("/login", data={"credential": PRODUCTION["signing_key"]}, headers=keyless)
    page = (await http.get("/logout", headers=keyless)).text
    token = re.search(r'name="csrf_token" value="([^"]+)"', page)[1]
    return {"path": {}, "data": {"csrf_token": token}, "headers": keyless, "action": "logout"}


async def _sync(making: Making) -> Made:
    made = await form("app.sync", url=making.sdk.url)(making)
    return made


async def _remove(making: Making) -> Made:
    await making.app()
    return await form("app.remove", url=making.sdk.url)(making)


async def _gql(making: Making) -> Made:
    run_id = await making.held()
    return {"path": {}, "json": {"query": "mutation($id:ULID!){ cancelRun(runID:$id){ id } }", "variables": {"id": run_id}}, "action": "run.cancel"}


EVENT = '{"order_id": "o1", "amount": 5}'
RECIPES: dict[tuple[str, str], Recipe] = {
    ("POST", "/v1/signals"): _signal,
    ("DELETE", "/v1/runs/{run_id}"): body("run.cancel", make="held"),
    ("DELETE", "/v0/runs/{run_id}"): body("run.cancel", make="held"),
    ("POST", "/v1/runs/{run_id}/rerun"): body("run.rerun", make="dead"),
    ("POST", "/v1/runs/{run_id}/redrive"): body("run.redrive", make="dead"),
    ("DELETE", "/v1/dead-letters/{run_id}"): body("dead_letter.discard", make="dead"),
    ("POST", "/v1/bulk"): body("bulk.start", make="held", action="cancel", filter={"function": "shop-follow-up"}),
    ("DELETE", "/v1/bulk/{bulk_id}"): body("bulk.cancel", make="bulk"),
    ("POST", "/v1/cancellations"): body("bulk.start", make="held", app_id="shop", function_id="follow-up", started_before="2099-01-01T00:00:00Z"),
    ("DELETE", "/v1/cancellations/{bulk_id}"): body("bulk.cancel", make="cancellation"),
    ("POST", "/invoke/{slug}"): body("function.invoke", data={"order_id": "o1"}),
    ("POST", "/v1/functions/{slug}/pause"): body("function.pause"),
    ("POST", "/v1/functions/{slug}/resume"): body("function.resume"),
    ("PUT", "/v1/functions/{slug}/limits/{rule}"): body("function.limit", limit=3),
    ("DELETE", "/v1/functions/{slug}/limits/{rule}"): body("function.limit"),
    ("POST", "/v1/functions/{slug}/flush"): body("function.flush"),
    ("POST", "/v1/crons/run"): body("cron.run", function="new-year"),
    ("POST", "/fn/register"): _register,
    ("DELETE", "/fn/remove"): query("app.remove", "app", url="{url}"),
    ("POST", "/fn/step-limit"): query("function.step_limit", "app", functionId="{made}", limit="5"),
    ("DELETE", "/fn/step-limit"): query("function.step_limit", "app", functionId="{made}"),
    ("POST", "/fn/state-size-limit"): query("function.state_limit", "app", functionId="{made}", limit="5000"),
    ("DELETE", "/fn/state-size-limit"): query("function.state_limit", "app", functionId="{made}"),
    ("POST", "/api/v2/apps/{app}/functions/{function}/invoke"): body("function.invoke", data={"order_id": "o1"}),
    ("POST", "/api/v2/runs/{run_id}/rerun"): body("run.rerun", make="dead"),
    ("POST", "/api/v2/runs/{run_id}/cancel"): body("run.cancel", make="held"),
    ("POST", "/v0/gql"): _gql,
    ("POST", "/test/reset"): body("test.reset"),
    ("POST", "/test/function/pause"): query("function.pause", "slug_uuid", fnId="{made}"),
    ("POST", "/test/function/runs/cancel"): query("run.cancel", "slug_uuid", fnId="{made}", runId="{held}"),
    ("POST", "/login"): _login,
    ("POST", "/logout"): _logout,
    ("POST", "/bulk"): form("bulk.start", make="held", action="cancel", filter='{"function": "shop-follow-up"}'),
    ("POST", "/bulk/{bulk_id}/cancel"): form("bulk.cancel", make="bulk"),
    ("POST", "/runs/{run_id}/edit"): form("run.rerun", make="dead", data='{"message": "again"}'),
    ("POST", "/runs/{run_id}/cancel"): form("run.cancel", make="held"),
    ("POST", "/runs/{run_id}/rerun"): form("run.rerun", make="dead"),
    ("POST", "/runs/{run_id}/redrive"): form("run.redrive", make="dead"),
    ("POST", "/events/send"): form("event.send", name="shop/order.paid", data=EVENT),
    ("POST", "/functions/{slug}/invoke"): form("function.invoke", data='{"order_id": "o1"}'),
    ("POST", "/functions/{slug}/pause"): form("function.pause"),
    ("POST", "/functions/{slug}/resume"): form("function.resume"),
    ("POST", "/functions/{slug}/limits"): form("function.limit", rule="concurrency", limit="2"),
    ("POST", "/functions/{slug}/flush"): form("function.flush"),
    ("POST", "/dead-letters/redrive"): form("run.redrive", make="dead", run="{made}"),
    ("POST", "/dead-letters/discard"): form("run.discard", make="dead", run="{made}"),
    ("POST", "/crons/run"): form("cron.run", function="shop-new-year", schedule="TZ=Europe/Paris 0 3 1 1 *"),
    ("POST", "/apps/sync"): _sync,
    ("POST", "/apps/remove"): _remove,
}
"""How to make each route of the router change something."""


@pytest.mark.slow
async def test_every_change_leaves_a_line(start: Start):
    settings = {**PRODUCTION, "test_mode": True, "allow_private_networks": "all"}
    with scripted_sdk("far", {"fn": lambda body, step: 1}) as sdk:
        capped = App("lim")
        capped.function("lim/go", id="capped", concurrency=5)(lambda ctx: None)
        async with start({**bearer(), "user-agent": "a test"}, apps=[make_app(), capped], **settings) as server:
            sdk.server_url = str(server.http.base_url)
            making = Making(server, sdk)
            changing = [route for route in every_route(server.serving.app.routes) if route[0] not in {"GET", "OPTIONS"}]
            assert set(changing) == set(RECIPES) | set(NO_CHANGE), "a new route needs a recipe, or a reason why it changes nothing"
            problems = []
            for method, path in changing:
                if (method, path) in NO_CHANGE:
                    continue
                problems += await tried(making, method, path)
            assert not problems, "\n".join(problems)


async def tried(making: Making, method: str, path: str) -> list[str]:
    """What is wrong with the line that a route leaves."""
    server, reader = making.server, making.server.engine.reader
    made = await RECIPES[method, path](making)
    values = {"slug": "lim-capped" if "limits" in path else "shop-follow-up", "rule": "concurrency", "app": "shop", "function": "follow-up", **made.pop("path")}
    action, status = made.pop("action"), made.pop("status", None)
    before = len(await reader.audit(limit=1000))
    answer = await server.http.request(method, path.format_map(values), **made)
    where = f"{method} {path} ({answer.status_code})"
    if answer.status_code != status and answer.status_code not in {200, 201, 202, 204, 303}:
        return [f"{where}: {answer.text[:300]}"]
    entries = list(await reader.audit(limit=1000))
    new = entries[: len(entries) - before]
    if action is None:
        return [f"{where}: it changed nothing and left {new}"] if new else []
    if not any(entry.action == action for entry in new):
        return [f"{where}: no line says {action}: {[entry.action for entry in new]}"]
    entry = next(entry for entry in new if entry.action == action)
    way = "dashboard" if path in {"/login", "/logout"} or "data" in made else "API"
    told = ACTOR.fullmatch(entry.actor) or entry.action in {"login", "logout"}
    if not told or entry.origin != f"127.0.0.1, {way}" or entry.at <= 0:
        return [f"{where}: {entry}"]
    return []


async def test_pages_api_and_command_line_show_it(start: Start):
    async with start(bearer(), **PRODUCTION) as server:
        await server.http.post("/v1/functions/shop-fulfil/pause", headers={"user-agent": "holdfast-cli"})
        (entry,) = (await server.http.get("/v1/audit")).json()["data"]
        assert (entry["action"], entry["target"], entry["origin"]) == ("function.pause", "shop-fulfil", "127.0.0.1, command line")
        page = (await server.http.get("/audit")).text
        for text in ("function.pause", "shop-fulfil", "127.0.0.1, command line", entry["actor"]):
            assert text in page


async def test_a_refused_change_leaves_none(start: Start):
    async with start(**PRODUCTION) as server:
        for path in ("/v1/functions/shop-fulfil/pause", "/test/reset", "/events/send"):
            assert (await server.http.post(path)).status_code == 401
        assert await server.engine.reader.audit() == []


@pytest.mark.parametrize("statement", ["UPDATE audit SET actor = 'nobody'", "DELETE FROM audit", "DELETE FROM audit WHERE at < 1"])
async def test_a_line_can_not_be_changed_on_sqlite(tmp_path, statement):
    async with build_engine([App("shop")], f"sqlite:///{tmp_path}/x.db") as engine:
        await engine.audit("somebody", "run.cancel", "r", "", "here")
    with sqlite3.connect(tmp_path / "x.db") as conn:
        if "WHERE" in statement:
            conn.execute(statement)  # nothing matches
        else:
            with pytest.raises(sqlite3.DatabaseError, match="only ever added"):
                conn.execute(statement)
        assert conn.execute("SELECT actor, origin FROM audit").fetchall() == [("somebody", "here")]
    conn.close()


async def test_a_line_can_not_be_changed_on_postgresql(postgres_url):
    async with build_engine([App("shop")], postgres_url) as engine:
        await engine.audit("somebody", "run.cancel", "r", "", "here")
        (entry,) = await engine.reader.audit()
        assert entry.origin == "here"
    address, _, schema = postgres_url.partition("&schema=")
    with psycopg.connect(address, autocommit=True) as conn:
        for statement in ("UPDATE {0}.audit SET actor = ''", "DELETE FROM {0}.audit", "TRUNCATE {0}.audit"):
            with pytest.raises(psycopg.errors.RaiseException, match="only ever added"):
                conn.execute(statement.format(schema))
        assert conn.execute(f"SELECT actor FROM {schema}.audit").fetchall() == [("somebody",)]
