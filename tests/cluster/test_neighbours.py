"""Two nodes that hear of each other: what is done at one is known at the other at once.

Their leases are so long that nothing is found by looking: whatever happens within a test has been told.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import psycopg
import pytest
from scripted_sdk import scripted_sdk

from holdfast import App, Concurrency, Context, Event, RunCancelledError
from holdfast.compose import build_engine
from holdfast.core.ingest import Ingest
from holdfast.core.rows import ItemRow
from holdfast.dashboard.stream import messages
from holdfast.engine.crash import kill, reap
from holdfast.engine.engine import Engine, EngineOptions
from holdfast.engine.nodes import nodes_of
from holdfast.sdk.sender import Outgoing
from holdfast.server.serve import serving
from holdfast.server.settings import ServerSettings
from holdfast.store.postgres import places

pytestmark = pytest.mark.anyio
PATIENCE = 40.0


class Go(Event, name="near/go"):
    n: int = 0


class Bill(Event, name="near/bill"):
    n: int = 0


class World:
    """What bodies have done, on which node, and what they wait for."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, int]] = []
        self.cancelled: list[int] = []
        self.inside = 0
        self.most = 0
        self.gate = asyncio.Event()

    def app(self, node: str, name: str = "near") -> App:
        """The application as one node has it."""
        app = App(name)

        @app.function(Go)
        async def work(ctx: Context[Go]) -> str:
            async def body(n: int) -> str:
                self.ran.append((node, n))
                return node

            return await ctx.step.run("body", body, ctx.event.data.n)

        @app.function(Go, id="held", concurrency=Concurrency(10))
        async def held(ctx: Context[Go]) -> str:
            async def body(n: int) -> str:
                self.ran.append((node, n))
                self.inside += 1
                self.most = max(self.most, self.inside)
                try:
                    await self.gate.wait()
                except asyncio.CancelledError:
                    self.cancelled.append(n)
                    raise
                finally:
                    self.inside -= 1
                return node

            return await ctx.step.run("body", body, ctx.event.data.n)

        return app


@pytest.fixture
async def world() -> World:
    return World()


async def until(fact: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not fact():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def node(url: str, *apps: App, lease: int = 600, **options: Any) -> AsyncIterator[Engine]:
    async with build_engine(apps, f"{url}&lease_seconds={lease}", options=EngineOptions(**options)) as engine:
        yield engine


@pytest.fixture
async def pair(postgres_url, world):
    """A node that only answers, and one that executes; they know of each other."""
    here, there = world.app("here"), world.app("there")
    async with node(postgres_url, here, capacity=0) as one, node(postgres_url, there) as two:
        await until(lambda: one.store.membership.others and two.store.membership.others)
        yield one, two


async def test_they_know_of_each_other_before_they_have_looked(pair):
    one, two = pair
    assert {view.number for view in await nodes_of(one)} == {one.store.boot, two.store.boot}


async def test_a_page_at_one_shows_what_the_other_does(pair):
    one, two = pair
    stream = messages(one, interval=0.01)
    assert b"hello" in await anext(stream)
    await until(lambda: two.store.watched)
    handle = await two.apps["near"].start(two.apps["near"].functions["work"], Go())
    async with asyncio.timeout(PATIENCE):
        while handle.id not in (change := json.loads((await anext(stream)).partition(b"data: ")[2]))["ids"]:
            assert "run" in change["kinds"]
    await stream.aclose()
    # nobody looks any more: nothing is told
    await until(lambda: not two.store.watched)
    assert not two.notices.wanted


async def test_a_run_is_followed_at_one_to_its_end_at_the_other(pair, world):
    one, two = pair
    async with serving(one, ServerSettings(port=0)) as server, httpx.AsyncClient(timeout=PATIENCE, trust_env=False) as client:
        handle = await one.apps["near"].start(one.apps["near"].functions["held"], Go())

        async def let_go() -> None:
            await until(lambda: world.inside and two.store.watched)
            world.gate.set()

        letting_go = asyncio.create_task(let_go())
        async with client.stream("GET", f"{server.url}/v1/runs/{handle.id}/stream") as answer:
            lines = [line async for line in answer.aiter_lines()]
        await letting_go
        seen = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
        assert seen[-1]["status"] == "Completed"


async def test_a_result_is_awaited_at_one_and_a_cancellation_reaches_the_other(pair, world):
    one, _ = pair
    app = one.apps["near"]
    done = await app.start(app.functions["work"], Go(n=1))
    assert await done.result(timeout=PATIENCE) == "there"
    held = await app.start(app.functions["held"], Go(n=2))
    await until(lambda: world.inside)
    assert await held.cancel()
    with pytest.raises(RunCancelledError):
        await held.result(timeout=PATIENCE)
    await until(lambda: world.cancelled == [2])


async def test_pauses_and_limits_that_are_changed_at_one_hold_at_the_other(pair, world):
    one, two = pair
    app = one.apps["near"]
    await one.flow_control.set_limit("near-held", "concurrency", 2)
    held = two.functions["near-held"].id
    await until(lambda: two.intake.flows[held].limits)
    for n in range(6):
        await app.start(app.functions["held"], Go(n=n))
    await until(lambda: world.inside == 2)
    await one.flow_control.set_limit("near-held", "concurrency", None)
    await until(lambda: world.inside == 6)
    await one.flow_control.pause("near-work", "hold")
    await until(lambda: two.functions["near-work"].id not in two.executable)
    handle = await app.start(app.functions["work"], Go(n=100))
    with pytest.raises(TimeoutError):
        await handle.result(timeout=0.5)
    await one.flow_control.resume("near-work")
    assert await handle.result(timeout=PATIENCE) == "there"
    world.gate.set()


async def test_what_is_changed_at_one_is_changed_back_at_the_other(pair):
    one, two = pair
    work, held = (two.functions[slug].id for slug in ("near-work", "near-held"))
    for here, there in ((one, two), (two, one)):
        await here.flow_control.pause("near-work", "hold")
        await here.flow_control.set_limit("near-held", "concurrency", 2)
        await until(lambda node=there: work not in node.executable and node.intake.flows[held].limits)
        await there.flow_control.resume("near-work")
        await there.flow_control.set_limit("near-held", "concurrency", None)
        await until(lambda node=here: work in node.executable and not node.intake.flows[held].limits)


async def test_a_limit_that_is_lifted_lets_those_run_that_a_group_still_on_its_way_turned_down(pair, world, monkeypatch):
    one, two = pair
    app, loop = two.apps["near"], asyncio.get_running_loop()
    await two.flow_control.set_limit("near-held", "concurrency", 1)
    await app.start(app.functions["held"], Go(n=1))
    await until(lambda: world.inside == 1)
    decided, lifted = asyncio.Event(), threading.Event()

    groups = two.store._groups
    commit = groups.commit

    def commit_later(xid: str) -> BaseException | None:
        if any(isinstance(plan, Ingest) for plan in two.store.group.committing):
            loop.call_soon_threadsafe(decided.set)
            lifted.wait(PATIENCE)
        return commit(xid)

    monkeypatch.setattr(groups, "commit", commit_later)
    starting = asyncio.create_task(app.start(app.functions["held"], Go(n=2)))
    async with asyncio.timeout(PATIENCE):
        await decided.wait()
    await one.flow_control.set_limit("near-held", "concurrency", None)
    await until(lambda: not two.intake.flows[two.functions["near-held"].id].limits)
    lifted.set()
    await starting
    await until(lambda: world.inside == 2)
    world.gate.set()


async def test_events_start_functions_that_only_another_node_has(postgres_url, world):
    async with node(postgres_url, world.app("here")) as one:
        billing = App("billing")

        @billing.function(Bill, concurrency=Concurrency(1, key="event.data.n"))
        async def bill(ctx: Context[Bill]) -> str:
            return "there"

        async with node(postgres_url, world.app("there"), billing) as two:
            function = two.functions["billing-bill"].id
            await until(lambda: one.intake.router.candidates("near/bill"))
            sent = await one.send([Outgoing("near/bill", b'{"n": 1}')])
            await until(lambda: not two.in_flight and not one.in_flight)
            async with asyncio.timeout(PATIENCE):
                while not (runs := await one.reader.event_runs(sent[0].id)) or runs[0].ended_at is None:
                    await asyncio.sleep(0.01)
            assert [run.status for run in runs] == ["COMPLETED"]
            assert function not in one.executable
            assert one.metrics.of(function).started == 0
        # nobody has it now: the run waits for whoever will, and isn't lost
        (sent,) = await one.send([Outgoing("near/bill", b'{"n": 2}')])
        async with node(postgres_url, world.app("there"), billing):
            async with asyncio.timeout(PATIENCE):
                while (await one.reader.event_runs(sent.id))[0].ended_at is None:
                    await asyncio.sleep(0.01)


async def test_an_application_that_registers_at_one_node_is_called_by_the_other(postgres_url, world):
    def hello(body: dict[str, Any], _step: str) -> Any:
        return body["event"]["data"]["n"]

    async with node(postgres_url, world.app("here"), capacity=0) as one, node(postgres_url, world.app("there")) as two:
        async with serving(one, ServerSettings(port=0)) as server, httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
            with scripted_sdk("remote", {"hello": hello}) as sdk:
                sdk.server_url = server.url
                document = sdk.document()
                assert (await client.post(f"{server.url}/fn/register", json=document)).json()["ok"]
                await until(lambda: "remote-hello" in two.applications.by_slug)
                (sent,) = await two.send([Outgoing("remote/hello", b'{"n": 7}')])
                async with asyncio.timeout(PATIENCE):
                    while not (runs := await two.reader.event_runs(sent.id)) or runs[0].ended_at is None:
                        await asyncio.sleep(0.01)
                assert [run.status for run in runs] == ["COMPLETED"]
                # it changes: another event starts it, at all nodes
                document["functions"][0]["triggers"] = [{"event": "remote/goodbye"}]
                assert (await client.post(f"{server.url}/fn/register", json=document)).json()["modified"]
                await until(lambda: two.intake.router.candidates("remote/goodbye"))
                assert not two.intake.router.candidates("remote/hello")
                # it is forgotten: nothing starts it any more
                assert (await client.delete(f"{server.url}/fn/remove", params={"url": sdk.url})).status_code == 200
                await until(lambda: not two.applications.functions and not two.applications.apps)
                assert not two.intake.router.candidates("remote/goodbye")


async def test_a_node_that_stops_hands_over_what_it_was_executing(postgres_url, world):
    here, there = world.app("here"), world.app("there")
    async with node(postgres_url, here, capacity=0) as one:
        async with node(postgres_url, there, drain_seconds=0.1):
            handles = [await here.start(here.functions["held"], Go(n=n)) for n in range(3)]
            await until(lambda: world.inside == 3)
        one.capacity = 100
        third = world.app("third")
        async with node(postgres_url, third):
            world.gate.set()
            results = [await handle.result(timeout=PATIENCE) for handle in handles]
            assert set(results) <= {"here", "third"}
            states = {view.state for view in await nodes_of(one)}
            assert states == {"alive", "stopped"}


async def test_what_a_dead_node_had_begun_in_bulk_another_finishes(postgres_url, world):
    here, there = world.app("here"), world.app("there")
    async with node(postgres_url, here, capacity=0) as one:
        for n in range(30):
            await here.start(here.functions["work"], Go(n=n))
        two = build_engine([there], f"{postgres_url}&lease_seconds=600", options=EngineOptions(capacity=0))
        await two.boot()
        bulk_id = await two.bulk("cancel", {"function": "near-work"}, rate="20/s")
        kill(two)
        await reap(two)
        async with asyncio.timeout(PATIENCE):
            while (await one.bulk_info(bulk_id)).state != "done":
                await asyncio.sleep(0.05)
        assert (await one.bulk_info(bulk_id)).done == 30


async def test_counts_that_are_wrong_are_set_right_when_a_node_is_gone(postgres_url, world, caplog):
    here, there = world.app("here"), world.app("there")
    schema = postgres_url.rpartition("=")[2]
    async with node(postgres_url, here) as one:
        function = one.functions["near-held"].id
        async with node(postgres_url, there, capacity=0):
            handles = [await here.start(here.functions["held"], Go(n=n)) for n in range(10)]
            await until(lambda: world.inside == 10)
            with psycopg.connect(postgres_url.partition("&")[0]) as conn:
                conn.execute(f"UPDATE {schema}.lease_counts SET used = used + 7")
                conn.execute(f"INSERT INTO {schema}.lease_counts (gate, used) VALUES ('lnobody', 3)")
            waiting = [await here.start(here.functions["held"], Go(n=n)) for n in range(10, 20)]
        # the other has left: that is when they are counted
        await until(lambda: "the count was set right" in caplog.text)
        world.gate.set()
        for handle in (*handles, *waiting):
            await handle.result(timeout=PATIENCE)
        assert world.most == 10
        with psycopg.connect(postgres_url.partition("&")[0]) as conn:
            assert places.differences(conn, one.store._sql) == []
            assert conn.execute(f"SELECT count(*) FROM {schema}.lease_counts").fetchone() == (0,)
        assert await one.store.read([(ItemRow, bytes(16))]) is not None
        assert function in one.executable


async def test_who_is_there_and_who_is_gone(postgres_url, world):
    async with node(postgres_url, world.app("here"), lease=1) as one:
        two = build_engine([world.app("there")], f"{postgres_url}&lease_seconds=1", options=EngineOptions(capacity=7))
        await two.boot()
        async with asyncio.timeout(PATIENCE):
            while not any(view.capacity == 7 for view in await nodes_of(one)):
                await asyncio.sleep(0.05)
        alive = {view.number: view for view in await nodes_of(one)}
        assert alive[one.store.boot].leads
        assert alive[one.store.boot].here
        assert not alive[two.store.boot].leads
        number = two.store.boot
        two.store.membership.stop()  # it renews no more
        async with asyncio.timeout(PATIENCE):
            while (view := {view.number: view for view in await nodes_of(one)}[number]).state != "dead":
                await asyncio.sleep(0.05)
        assert view.ended_at is not None
        assert view.ended_at >= view.seen_at
        kill(two)
        await reap(two)


async def test_a_node_that_hangs_in_a_transaction_holds_nobody_up_for_longer_than_its_lease(postgres_url, world):
    """As one that is stopped while it sends: the server waits for the rest, which no timeout of its own ends."""
    uri, schema = postgres_url.partition("&")[0], postgres_url.rpartition("=")[2]
    here = world.app("here")
    async with node(postgres_url, here, lease=1) as one:
        hung = build_engine([world.app("hung")], f"{postgres_url}&lease_seconds=1", options=EngineOptions(capacity=0))
        await hung.boot()
        await hung.apps["near"].send(Go(n=1))
        number, held = hung.store.boot, hung.store._groups.connection()
        hung.store.membership.stop()
        held.execute("SELECT set_config('idle_in_transaction_session_timeout', '0', false)")
        held.execute("BEGIN")
        held.execute(f"SELECT 1 FROM {schema}.nodes WHERE id = {number} FOR SHARE".encode())
        held.execute(f"LOCK TABLE {schema}.events IN EXCLUSIVE MODE".encode())
        handle = await asyncio.wait_for(here.start(here.functions["work"], Go(n=2)), PATIENCE)
        assert await handle.result(timeout=PATIENCE) == "here"
        async with asyncio.timeout(PATIENCE):
            while {view.number: view.state for view in await nodes_of(one)}[number] != "dead":
                await asyncio.sleep(0.05)
        with psycopg.connect(uri) as conn:
            assert conn.execute(f"SELECT dead FROM {schema}.nodes WHERE id = {number}").fetchone() == (True,)
        kill(hung)
        await reap(hung)
