"""Functions that kill, hang, flood or can't be written down: each ends as a dead letter after a bounded number of tries."""

from __future__ import annotations

import asyncio
import json
import math
import sqlite3
import threading
import time
from typing import Any

import pytest
from fault_poison import GOOD, KINDS
from holdfast import App, Backoff, Context, Event, RunFailedError, SyncContext
from holdfast.compose import build_engine

pytestmark = pytest.mark.anyio

MAX_CRASHES = 3


def rows(database, statement: str) -> list[tuple[Any, ...]]:
    conn = sqlite3.connect(database)
    try:
        return conn.execute(statement).fetchall()
    finally:
        conn.close()


@pytest.mark.slow
@pytest.mark.parametrize("in_step", [True, False], ids=["in a step", "outside steps"])
@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_a_function_that_takes_the_process_down_condemns_only_itself(nursery, make_case, kind, in_step):
    case = make_case(main="fault_poison:main", kind=kind, in_step=in_step)
    deaths = 0
    while await asyncio.to_thread(nursery.run, case.config) != 0:
        deaths += 1
        assert deaths <= MAX_CRASHES + 2, f"it goes on dying:\n{case.words}"
    poisoned = [line["run"] for line in case.ledger.lines() if line["what"] == "poisoned"]
    assert len(set(poisoned)) == 1
    assert len(poisoned) <= 2 * (MAX_CRASHES + 1)
    if kind != "out_of_memory":
        assert deaths == MAX_CRASHES + 1
    letters = rows(case.database, "SELECT error FROM dead_letters")
    assert len(letters) == 1, letters
    assert ("ProcessDiedError" if deaths else "MemoryError") in letters[0][0]
    good = rows(
        case.database,
        "SELECT r.status, count(*) FROM runs r JOIN functions f ON f.id = r.function_id WHERE f.slug = 'poison-good' GROUP BY 1",
    )
    sent = GOOD * (1 + case.ledger.has("sent more"))
    assert good in ([(2, sent)], [(2, 2 * GOOD)]), good
    assert rows(case.database, "SELECT count(*) FROM queue") == [(0,)]


# -- what doesn't kill ------------------------------------------------------------------------------------------------


class Go(Event, name="poison/go"):
    pass


class Fine(Event, name="poison/fine"):
    n: int


class Huge(Exception):
    def __str__(self) -> str:
        return "x" * 10_000_000

    __repr__ = __str__


class Wordless(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")

    __repr__ = __str__


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def cyclic() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


def raises(error: Exception) -> Any:
    def body() -> None:
        raise error

    return body


BODIES = {
    "a 10 MB message": (raises(Huge()), "Huge"),
    "no message": (raises(Wordless()), "Wordless"),
    "a surrogate": (raises(ValueError("\ud800 half")), "ValueError"),
    "an object": (lambda: object(), "NotSerializableError"),
    "NaN": (lambda: math.nan, "NotSerializableError"),
    "an infinity deep inside": (lambda: {"a": [{"b": -math.inf}]}, "NotSerializableError"),
    "100,000 levels": (lambda: nested(100_000), "NotSerializableError"),
    "itself": (cyclic, "NotSerializableError"),
    "50 MB": (lambda: "x" * 50_000_000, "NotSerializableError"),
    "a lone surrogate": (lambda: "\udc80", "NotSerializableError"),
    "an exit": (lambda: (_ for _ in ()).throw(SystemExit(3)), "NonRetriableError"),
    "deep recursion": (lambda: (lambda f: f(f))(lambda f: f(f)), "RecursionError"),
    "a generator": (lambda: (n for n in range(3)), "NotSerializableError"),
}


@pytest.mark.parametrize("where", ["step", "function", "sync function"])
@pytest.mark.parametrize("what", sorted(BODIES))
async def test_what_cannot_be_recorded_is_a_dead_letter(tmp_path, what, where):
    body, error = BODIES[what]
    tries: list[int] = []
    app = App("poison", retries=2, backoff=Backoff.constant(0.005))

    def counted() -> Any:
        tries.append(1)
        return body()

    if where == "sync function":

        @app.function(Go, id="bad")
        def bad_sync(ctx: SyncContext[Go]) -> Any:
            return ctx.step.run("bad", counted)
    else:

        @app.function(Go, id="bad")
        async def bad(ctx: Context[Go]) -> Any:
            if where == "step":
                return await ctx.step.run("bad", counted)
            return counted()

    @app.function(Fine)
    async def fine(ctx: Context[Fine]) -> int:
        return await ctx.step.run("fine", int, ctx.event.data.n)

    database = tmp_path / "a.db"
    async with build_engine([app], f"sqlite:///{database}") as engine:
        handle = await app.start(app.functions["bad"], Go())
        others = [await app.start(fine, Fine(n=n)) for n in range(20)]
        with pytest.raises(RunFailedError) as failure:
            await handle.result(timeout=60)
        assert [await other.result(timeout=60) for other in others] == list(range(20))
        await engine.idle()
    assert failure.value.name == error, failure.value
    assert len(failure.value.message) < 20_000
    assert 1 <= len(tries) <= 3
    ((letter,),) = rows(database, "SELECT error FROM dead_letters")
    assert letter.startswith(error)
    for (recorded,) in rows(
        database, "SELECT error FROM attempts UNION ALL SELECT error FROM steps WHERE error IS NOT NULL"
    ):
        assert len(recorded) < 200_000
        json.loads(recorded)


async def test_a_sync_body_that_never_ends_is_timed_out_and_others_go_on(tmp_path):
    app = App("poison", retries=1, backoff=Backoff.constant(0.005))
    let_go = threading.Event()
    entered: list[int] = []

    def for_ever() -> None:
        entered.append(1)
        let_go.wait(60)

    @app.function(Go)
    async def bad(ctx: Context[Go]) -> None:
        await ctx.step.options(timeout=0.1).run("hang", for_ever)

    @app.function(Go, step_timeout=0.2)
    def bad_sync(ctx: SyncContext[Go]) -> None:
        ctx.step.run("hang", for_ever)

    @app.function(Fine)
    async def fine(ctx: Context[Fine]) -> int:
        return await ctx.step.run("fine", int, ctx.event.data.n)

    try:
        async with build_engine([app], f"sqlite:///{tmp_path / 'a.db'}") as engine:
            handles = [await app.start(bad, Go()), await app.start(bad_sync, Go())]
            assert await (await app.start(fine, Fine(n=4))).result(timeout=60) == 4
            for handle in handles:
                with pytest.raises(RunFailedError, match="StepTimeoutError"):
                    await handle.result(timeout=60)
            await engine.idle()
            assert len(entered) == 4, "two tries each"
    finally:
        let_go.set()


async def test_a_body_that_blocks_the_loop_is_named_in_the_log(tmp_path, caplog):
    app = App("poison")

    def blocks_the_loop_here() -> None:
        time.sleep(6.5)

    @app.function(Go)
    async def bad(ctx: Context[Go]) -> str:
        async def body() -> str:
            blocks_the_loop_here()
            return "after all"

        return await ctx.step.run("block", body)

    async with build_engine([app], f"sqlite:///{tmp_path / 'a.db'}"):
        handle = await app.start(bad, Go())
        assert await handle.result(timeout=60) == "after all"
    assert "blocks_the_loop_here" in caplog.text
    assert "blocked" in caplog.text
