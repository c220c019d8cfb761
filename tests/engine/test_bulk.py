"""Bulk operations on a real engine: what they do to runs, their pace, and that a crash anywhere changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast import App, ConfigurationError, Context, Event, NonRetriableError, RunNotFoundError
from holdfast.compose import build_engine
from holdfast.core.bulk import Slice
from holdfast.engine import bulk as bulk_module
from holdfast.engine.crash import kill, reap
from holdfast.engine.engine import Engine
from holdfast.testing.clock import VirtualClock


pytestmark = pytest.mark.anyio


class Go(Event, name="t/go"):
    n: int = 0


class Shop:
    """An app whose function fails, waits or passes as the test says."""

    def __init__(self) -> None:
        self.app = App("t")
        self.broken = True
        self.bodies: list[int] = []
        app = self.app

        async def work(n: int) -> int:
            self.bodies.append(n)
            if self.broken:
                raise NonRetriableError(f"number {n} is broken")
            return n

        @app.function(Go, retries=0)
        async def fn(ctx: Context[Go]) -> int:
            return await ctx.step.run("work", work, ctx.event.data.n)

        @app.function("t/nap")
        async def nap(ctx: Context[Any]) -> None:
            await ctx.step.sleep("long", "30d")


@pytest.fixture
def shop() -> Shop:
    return Shop()


async def ended(engine: Engine, bulk_id: str) -> Any:
    with engine.notices.subscribe() as notices:
        while (info := await engine.bulk_info(bulk_id)).state == "running":
            async with asyncio.timeout(60):
                await anext(aiter(notices))
    return info


async def test_cancelling_all_that_wait(engine_for, query, shop):
    async with engine_for(shop.app) as engine:
        await shop.app.send_many([{"name": "t/nap", "data": {"n": n}} for n in range(120)])
        handle = await shop.app.bulk("cancel", {"function": "nap"})
        info = await ended(engine, handle.id)
        assert (info.total, info.done, info.skipped, info.failed, info.state) == (120, 120, 0, 0, "done")
    assert query("SELECT status, count(*) FROM runs GROUP BY status") == [(4, 120)]
    assert query("SELECT count(*) FROM queue") == [(0,)]
    assert query("SELECT DISTINCT reason FROM runs") == [(f"cancelled by python, bulk operation {handle.id}",)]


async def test_only_runs_whose_event_the_expression_holds_for(engine_for, query, shop):
    async with engine_for(shop.app) as engine:
        await shop.app.send_many([{"name": "t/nap", "data": {"n": n}} for n in range(10)])
        handle = await shop.app.bulk("cancel", {"function": "nap", "if": "event.data.n >= 7"})
        info = await ended(engine, handle.id)
        assert (info.total, info.done, info.skipped) == (10, 3, 7)


async def test_rerunning_does_not_come_to_the_runs_it_makes(engine_for, query, shop):
    shop.broken = False
    async with engine_for(shop.app) as engine:
        await shop.app.send_many([Go(n=n) for n in range(130)])
        await engine.idle()
        info = await ended(engine, (await shop.app.bulk("rerun", {"function": "fn"})).id)
        assert (info.total, info.done) == (130, 130)
        await engine.idle()
    assert query("SELECT count(*), count(DISTINCT parent_id) FROM runs WHERE origin = 2") == [(130, 130)]
    assert sorted(shop.bodies) == sorted([*range(130), *range(130)])


async def test_redriving_one_error_and_discarding_the_rest(engine_for, query, shop):
    async with engine_for(shop.app) as engine:
        await shop.app.send_many([Go(n=n) for n in range(60)])
        await engine.idle()
        (group,) = await engine.reader.letter_groups()
        assert group.count == 60
        assert group.functions == (("t-fn", "fn", 60),)
        shop.broken = False
        keep = [run.id for run in (await engine.reader.runs(_all(), limit=10))[0]]
        info = await ended(engine, (await shop.app.bulk("discard", {"ids": keep})).id)
        assert (info.done, info.failed) == (10, 0)
        info = await ended(engine, (await shop.app.bulk("redrive", {"fingerprint": group.fingerprint})).id)
        assert (info.total, info.done) == (50, 50)
        await engine.idle()
        again = await ended(engine, (await shop.app.bulk("redrive", {"all": True})).id)
        assert (again.total, again.state) == (0, "done")
    assert sorted(query("SELECT state, count(*) FROM dead_letters GROUP BY state")) == [(1, 50), (2, 10)]
    assert query("SELECT count(*) FROM runs WHERE origin = 3 AND status = 2") == [(50,)]


def _all() -> Any:
    from holdfast.store.reads import RunFilter

    return RunFilter()


async def test_why_some_could_not_be_done_is_kept(engine_for, shop):
    shop.broken = False
    async with engine_for(shop.app) as engine:
        one = await shop.app.start(shop.app.functions["fn"], Go())
        await one.result(timeout=60)
        info = await ended(engine, (await shop.app.bulk("redrive", {"ids": [one.id]})).id)
        assert (info.total, info.done, info.failed) == (1, 0, 1)
        assert info.error == "the run is not a dead letter"


async def test_runs_of_a_function_that_is_gone_are_refused_and_the_others_go_on(engine_for, shop):
    shop.broken = False
    async with engine_for(shop.app) as engine:
        await shop.app.send_many([Go(n=1)])
        await engine.idle()
    other = App("t")

    @other.function("t/else")
    async def alone(ctx: Context[Any]) -> None: ...

    async with engine_for(other) as engine:
        info = await ended(engine, (await other.bulk("rerun", {"all": True})).id)
        assert info.failed == 1
        assert "'t-fn' is not part of the running app" in info.error


@pytest.mark.parametrize(
    ("action", "where", "said"),
    [
        ("explode", {"all": True}, "'explode' is nothing to do with runs"),
        ("cancel", {}, "matches every run"),
        ("cancel", {"status": []}, "matches every run"),
        ("cancel", {"colour": "red"}, "'colour' is nothing to choose runs by"),
        ("cancel", {"status": "COMPLETED"}, "no run can be cancelled that is COMPLETED"),
        ("rerun", {"status": ["waiting"]}, "no run can be rerun that is WAITING"),
        ("cancel", {"status": "sleepy"}, "status 'sleepy' is not known"),
        ("cancel", {"ids": ["nonsense"]}, "'nonsense' is not the id of a run"),
        ("cancel", {"since": "yesterday"}, "'yesterday' is not a duration"),
        ("cancel", {"function": 5}, "the filter: Expected `str | null`, got `int`"),
        ("cancel", {"if": "event.data."}, "is not a valid expression"),
    ],
)
async def test_what_can_not_be_understood_is_refused(engine_for, query, shop, action, where, said):
    async with engine_for(shop.app):
        with pytest.raises(ConfigurationError, match=said.replace("|", r"\|")):
            await shop.app.bulk(action, where)
        with pytest.raises(ConfigurationError, match="is not a rate"):
            await shop.app.bulk("cancel", {"all": True}, rate="fast")
    assert query("SELECT count(*) FROM bulk_operations") == [(0,)]


async def test_an_operation_that_is_not_there(engine_for, shop):
    async with engine_for(shop.app) as engine:
        for name in ("nonsense", "01ARZ3NDEKTSV4RRFFQ69G5FAV"):
            with pytest.raises(RunNotFoundError, match="bulk operation"):
                await engine.cancel_bulk(name)


# -- pace ------------------------------------------------------------------------------------------------------------


async def with_virtual_time(database: Path, shop: Shop, body: Callable[[Engine, VirtualClock], Awaitable[None]]) -> None:
    clock = VirtualClock()
    async with build_engine([shop.app], f"sqlite:///{database}", clock=clock) as engine:
        clock.watch(_Watch(engine))
        await body(engine, clock)


class _Watch:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def quiescent(self) -> bool:
        return self._engine.quiescent

    @property
    def next_due(self) -> int | None:
        return self._engine.next_due

    async def revive(self) -> bool:
        return False

    def activity(self) -> list[str]:
        return []


async def test_a_rate_is_kept_to(database, shop):
    async def body(engine: Engine, clock: VirtualClock) -> None:
        await shop.app.send_many([{"name": "t/nap", "data": {}} for _ in range(100)])
        begun = clock.now()
        handle = await shop.app.bulk("cancel", {"function": "nap"}, rate="10/s")
        await clock.advance("1s")
        info = await handle.info()
        assert 10 <= info.done <= 12
        await clock.advance("4s")
        assert 50 <= (await handle.info()).done <= 52
        await clock.advance("5s")
        info = await handle.info()
        assert (info.done, info.state) == (100, "done")
        assert clock.now() - begun == 10_000

    await with_virtual_time(database, shop, body)


async def test_cancelling_stops_it_where_it_is(database, shop, query):
    async def body(engine: Engine, clock: VirtualClock) -> None:
        await shop.app.send_many([{"name": "t/nap", "data": {}} for _ in range(40)])
        handle = await shop.app.bulk("cancel", {"function": "nap"}, rate="10/s")
        await clock.advance("1s")
        assert await handle.cancel() is True
        assert await handle.cancel() is False
        done = (await handle.info()).done
        await clock.advance("10s")
        info = await handle.info()
        assert (info.state, info.done) == ("cancelled", done)
        assert engine.next_due is not None, "the sleeping runs are still there"

    await with_virtual_time(database, shop, body)
    assert query("SELECT count(*) FROM runs WHERE status < 2")[0][0] >= 28


async def test_a_restart_goes_on_with_its_rate(database, shop):
    async def first(engine: Engine, clock: VirtualClock) -> None:
        await shop.app.send_many([{"name": "t/nap", "data": {}} for _ in range(40)])
        self.append(await shop.app.bulk("cancel", {"function": "nap"}, rate="10/s"))
        await clock.advance("1s")

    async def second(engine: Engine, clock: VirtualClock) -> None:
        before = (await engine.bulk_info(self[0].id)).done
        assert 10 <= before < 40
        await clock.advance("10s")
        info = await engine.bulk_info(self[0].id)
        assert (info.done, info.state) == (40, "done")

    self: list[Any] = []
    await with_virtual_time(database, shop, first)
    await with_virtual_time(database, shop, second)


async def test_while_the_node_is_full_new_runs_come_slowly(database, shop):
    shop.broken = False

    async def body(engine: Engine, clock: VirtualClock) -> None:
        await shop.app.send_many([Go(n=n) for n in range(100)])
        await clock.quiesce()
        engine.capacity = 0
        handle = await shop.app.bulk("rerun", {"function": "fn"})
        await clock.advance(0.24)
        assert (await handle.info()).done == bulk_module._CROWDED_SLICE
        engine.capacity = 1000
        engine.claim()
        await clock.advance(0.02)
        assert (await handle.info()).done == 100

    await with_virtual_time(database, shop, body)


# -- crashes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("action", ["cancel", "rerun", "redrive", "discard"])
async def test_a_crash_at_each_slice_acts_on_each_run_once(tmp_path, monkeypatch, action, side):
    monkeypatch.setattr(bulk_module, "SLICE", 4)
    for point in range(1, 6):
        await crash_at(tmp_path / f"{point}.db", action, side, point)


async def crash_at(path: Path, action: str, side: str, point: int) -> None:
    shop = Shop()
    shop.broken = action in {"redrive", "discard"}
    event = "t/nap" if action == "cancel" else "t/go"
    url = f"sqlite:///{path}"
    engine = build_engine([shop.app], url)
    await engine.boot()
    await shop.app.send_many([{"name": event, "data": {"n": n}} for n in range(18)])
    if action != "cancel":
        await engine.idle()
    shop.broken = False
    died = asyncio.Event()
    count = 0

    def look() -> None:
        nonlocal count
        if any(isinstance(plan, Slice) for plan in engine.store.group.committing):
            count += 1
            if count == point:
                kill(engine)
                died.set()

    setattr(engine.store.group, "before_commit" if side == "before" else "after_commit", look)
    bulk_id = await engine.bulk(action, {"event": event})
    async with asyncio.timeout(60):
        await died.wait()
    await reap(engine)

    async with build_engine([shop.app], url) as engine:
        info = await ended(engine, bulk_id)
        assert (info.total, info.done, info.skipped, info.failed, info.state) == (18, 18, 0, 0, "done")
        if action != "cancel":
            await engine.idle()
        runs = (await engine.reader.runs(_all(), limit=1000))[0]
        old = [run for run in runs if run.origin == "event"]
        made = [run for run in runs if run.origin in {"rerun", "redrive"}]
        letters = (await engine.reader.dead_letters(state=None, limit=100))[0]
    if action == "cancel":
        assert [run.status for run in old] == ["CANCELLED"] * 18
    elif action == "discard":
        assert [letter.state for letter in letters] == ["discarded"] * 18
    else:
        assert sorted(str(run.parent_id) for run in made) == sorted(run.id for run in old)
        assert all(run.status == "COMPLETED" for run in made)
