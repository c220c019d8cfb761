"""The same thing twice, at once, late or out of order: once is what counts."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_http import Client
from ports import free_port
from holdfast import App, Context, Event, RunCancelledError
from holdfast.base.ids import ulid_bytes
from holdfast.compose import build_engine
from holdfast.core.machine import Lease, Park, Record
from holdfast.core.plan import DUPLICATE, STALE
from holdfast.core.claiming import Claim
from holdfast.core.rows import StepKind, StepRow, StepState
from holdfast.engine.engine import Engine, EngineOptions
from holdfast.server.serve import serving
from holdfast.server.settings import ServerSettings

pytestmark = pytest.mark.anyio


class Paid(Event, name="dup/paid"):
    n: int = 0


class Answered(Event, name="dup/answered"):
    n: int = 0


def rows(database: Path, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    conn = sqlite3.connect(database)
    try:
        return conn.execute(statement, parameters).fetchall()
    finally:
        conn.close()


def runs_of_each(database: Path, name: str) -> Counter[str]:
    """How many runs the events of a name have, by function."""
    found = rows(
        database,
        "SELECT f.slug, count(*) FROM runs r JOIN functions f ON f.id = r.function_id JOIN events e ON e.id = r.event_id "
        "WHERE e.name = ? GROUP BY 1",
        name,
    )
    return Counter(dict(found))


def two_functions(calls: list[str]) -> App:
    app = App("dup")

    @app.function(Paid)
    async def ship(ctx: Context[Paid]) -> None:
        await ctx.step.run("ship", calls.append, "ship")

    @app.function(Paid)
    async def thank(ctx: Context[Paid]) -> None:
        await ctx.step.run("thank", calls.append, "thank")

    return app


async def test_one_id_a_thousand_times_at_once(tmp_path):
    """From tasks, threads and HTTP clients together."""
    calls: list[str] = []
    app = two_functions(calls)
    database = tmp_path / "a.db"
    port = free_port()

    def over_http() -> None:
        client = Client(port)
        for _ in range(25):
            assert client.send("dup/paid", "payment-1", n=1)[0] == 200

    def in_a_thread() -> None:
        for _ in range(25):
            app.send_sync(Paid(n=1), id="payment-1")

    async with build_engine([app], f"sqlite:///{database}") as engine:
        async with serving(engine, ServerSettings(host="127.0.0.1", port=port)):
            others = [asyncio.to_thread(work) for work in (over_http,) * 4 + (in_a_thread,) * 4]
            sent, *_ = await asyncio.gather(
                asyncio.gather(*(app.send(Paid(n=1), id="payment-1") for _ in range(800))), *others
            )
            await engine.idle()
    assert sorted(calls) == ["ship", "thank"]
    assert runs_of_each(database, "dup/paid") == {"dup-ship": 1, "dup-thank": 1}
    assert sum(not one.duplicate for one in sent) <= 1
    assert rows(database, "SELECT count(*) FROM events") == [(1000,)], "every delivery is on record"
    assert rows(database, "SELECT reason, count(*) FROM skips GROUP BY 1") == [("duplicate event id", 2 * 999)]


async def test_the_first_of_many_at_once_is_told_so(tmp_path):
    app = two_functions([])
    async with build_engine([app], f"sqlite:///{tmp_path / 'a.db'}") as engine:
        sent = await asyncio.gather(*(app.send(Paid(), id="p") for _ in range(100)))
        await engine.idle()
    assert [one.duplicate for one in sent].count(False) == 1


async def test_a_client_that_had_no_answer_sends_again(tmp_path):
    """The commit is done and the answer lost: the seed header and the id both make the second try harmless."""
    calls: list[str] = []
    app = two_functions(calls)
    database = tmp_path / "a.db"
    port = free_port()
    cut = threading.Event()
    async with build_engine([app], f"sqlite:///{database}") as engine:
        async with serving(engine, ServerSettings(host="127.0.0.1", port=port)):
            engine.store.group.after_commit = cut.set
            seed = {"x-inngest-event-id-seed": "1767225600000,YWJjZGVmZ2hpag=="}
            hasty = Client(port, timeout=5)
            status, first = await asyncio.to_thread(hasty.send, "dup/paid", "", seed, n=1)
            assert status == 200
            assert cut.is_set()
            status, again = await asyncio.to_thread(hasty.send, "dup/paid", "", seed, n=1)
            assert status == 200
            assert again["ids"] == first["ids"]
            for _ in range(3):
                assert (await asyncio.to_thread(hasty.send, "dup/paid", "payment-7", None, n=7))[0] == 200
            await engine.idle()
    assert sorted(calls) == ["ship", "ship", "thank", "thank"]
    assert rows(database, "SELECT count(*) FROM events WHERE key IS NULL") == [(1,)]


# -- reports that come late ------------------------------------------------------------------------------------------


def waiting_app(entered: asyncio.Event, go_on: asyncio.Event) -> App:
    app = App("dup")

    @app.function(Paid, retries=0)
    async def work(ctx: Context[Paid]) -> str:
        return await ctx.step.run("slow", slow)

    async def slow() -> str:
        entered.set()
        while not go_on.is_set():
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                continue  # a body that doesn't let itself be stopped
        return "too late"

    return app


async def test_a_result_after_cancellation_is_refused(tmp_path):
    entered, go_on = asyncio.Event(), asyncio.Event()
    app = waiting_app(entered, go_on)
    database = tmp_path / "a.db"
    async with build_engine([app], f"sqlite:///{database}") as engine:
        handle = await app.start(app.functions["work"], Paid())
        await entered.wait()
        assert await handle.cancel() is True
        go_on.set()
        with pytest.raises(RunCancelledError):
            await handle.result(timeout=60)
        await engine.idle()
    assert rows(database, "SELECT status FROM runs") == [(4,)]
    assert rows(database, "SELECT key FROM steps") == []
    assert rows(database, "SELECT count(*) FROM queue") == [(0,)]


@contextlib.contextmanager
def letting_go(go_on: asyncio.Event) -> Iterator[None]:
    """Release the body that can't be cancelled, also when the test fails: it would hold the loop's end up."""
    try:
        yield
    finally:
        go_on.set()


def report(run: bytes, value: str, key: str = "step") -> StepRow:
    return StepRow(run, key, 0, StepState.DONE, StepKind.RUN, 1, 2, 0, None, f'"{value}"'.encode())


async def leased_run(engine: Engine, app: App, entered: asyncio.Event) -> Lease:
    """A run in progress, and the proof of the right to report on it."""
    handle = await app.start(app.functions["work"], Paid())
    await entered.wait()
    run = ulid_bytes(handle.id)
    item = engine.store.cached_item(run)
    return Lease(item.id, run, item.owner, item.epoch)


async def test_a_result_under_an_old_lease_is_refused(tmp_path):
    """The epoch predicate: whoever held the run before may have a result, and may not write it."""
    entered, go_on = asyncio.Event(), asyncio.Event()
    app = waiting_app(entered, go_on)
    database = tmp_path / "a.db"
    async with build_engine([app], f"sqlite:///{database}") as engine:
        with letting_go(go_on):
            old = await leased_run(engine, app, entered)
            # the run is given back and leased again, by the same node: only the epoch tells the leases apart
            assert await engine.submit(Park(old, engine.clock.now(), engine.woken(old))) is True
            while not (again := await engine.submit(Claim(10, frozenset(engine._by_id), suspect=True))):
                await asyncio.sleep(0.001)
            new = Lease(again[0].item.id, old.run_id, again[0].item.owner, again[0].item.epoch)
            assert (new.owner, new.item_id) == (old.owner, old.item_id)
            assert await engine.submit(Record(old, report(old.run_id, "of the old lease"))) is STALE
            assert await engine.submit(Park(old, None, engine.woken(old))) is STALE
            recorded = await engine.submit(Record(new, report(old.run_id, "of the new lease")))
            assert recorded.data == b'"of the new lease"'
            go_on.set()  # the body under the old lease ends as well; its result is refused
            await asyncio.sleep(0.05)
    assert rows(database, "SELECT key, data FROM steps") == [("step", b'"of the new lease"')]


@pytest.mark.parametrize("same_group", [True, False])
async def test_two_results_of_one_step_are_one_record(tmp_path, same_group):
    """The unique key on steps: the second fence, should two reports carry the same lease."""
    entered, go_on = asyncio.Event(), asyncio.Event()
    app = waiting_app(entered, go_on)
    database = tmp_path / "a.db"
    async with build_engine([app], f"sqlite:///{database}", options=EngineOptions(drain_seconds=0.1)) as engine:
        with letting_go(go_on):
            lease = await leased_run(engine, app, entered)
            first = engine.submit(Record(lease, report(lease.run_id, "first")))
            if not same_group:
                await first
            second = engine.submit(Record(lease, report(lease.run_id, "second")))
            assert (await first).data == b'"first"'
            assert await second is DUPLICATE
            go_on.set()
            await engine.idle()
    assert rows(database, "SELECT data FROM steps WHERE key = 'step'") == [(b'"first"',)]


# -- events and waits in one group -----------------------------------------------------------------------------------


@pytest.mark.parametrize("event_first", [True, False])
async def test_an_event_in_the_same_group_as_the_wait_for_it(tmp_path, event_first):
    """Whichever of the two is decided first, a wait that looks back finds the event."""
    app = App("dup")

    @app.function(Paid)
    async def ask(ctx: Context[Paid]) -> int:
        async def answer() -> None:
            await app.send(Answered(n=7))

        sending = asyncio.ensure_future(answer()) if event_first else None
        waiting = ctx.step.wait_for_event("answer", Answered, where={"n": 7}, since="run", timeout="5s")
        if sending is None:
            asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(answer()))
        answered = await waiting
        return -1 if answered is None else answered.data.n

    async with build_engine([app], f"sqlite:///{tmp_path / 'a.db'}") as engine:
        handle = await app.start(ask, Paid())
        assert await handle.result(timeout=60) == 7
