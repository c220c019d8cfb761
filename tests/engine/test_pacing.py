"""Bodies that compute make room for the loop while it has much to do, and never wait for long."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from holdfast import App, Context, Event, SyncContext
from holdfast.engine import pacing
from holdfast.engine.pacing import BUSY, Pace
from holdfast.testing import AsyncHarness

pytestmark = pytest.mark.anyio
PATIENCE = 60.0
HOUR = 3_600_000


class Processor:
    """What threads have computed, as the test has it: the loop's a part of the time, each body's always as much."""

    def __init__(self) -> None:
        self.busy = 0.0
        self.body = 0.1
        self.looks = 0
        self._bodies = self._loops = 0.0
        self._last = time.monotonic()
        self._loop = threading.get_ident()

    def __call__(self) -> float:
        if threading.get_ident() == self._loop:
            self.looks += 1
            now = time.monotonic()
            self._loops += self.busy * (now - self._last)
            self._last = now
            return self._loops
        self._bodies += self.body
        return self._bodies


async def until(fact: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not fact():
            await asyncio.sleep(0.001)


def share(pace: Pace) -> float:
    return pace.beside(asyncio.get_running_loop()).share


@pytest.fixture
def processor() -> Processor:
    return Processor()


@pytest.fixture
async def pace(processor: Processor, monkeypatch):
    """A pace whose pauses end by nothing but a calm loop, beside a body that has computed before and is at it again."""
    monkeypatch.setattr(pacing, "MAX_PAUSE_SECONDS", 10**6)
    monkeypatch.setattr(pacing, "PAUSE", 10**9)
    made = Pace(processor)
    done = threading.Event()
    await made.run(compute, compute, asyncio.to_thread, HOUR)
    other = asyncio.create_task(made.run(compute, partial(compute, done.wait), asyncio.to_thread, HOUR))
    yield made
    done.set()
    await other


def compute(body: Callable[[], object] = bool) -> str:
    body()
    return "computed"


def look(body: Callable[[], object] = bool) -> str:
    body()
    return "looked"


async def test_a_body_that_computes_waits_until_the_loop_is_calm(pace, processor):
    began = threading.Event()
    processor.busy = 1.0
    await until(lambda: share(pace) >= BUSY)
    body = asyncio.create_task(pace.run(compute, partial(compute, began.set), asyncio.to_thread, HOUR))
    looks = processor.looks
    await until(lambda: processor.looks > looks + 5)
    assert not began.is_set()
    processor.busy = 0.0
    assert await asyncio.wait_for(body, PATIENCE) == "computed"
    assert began.is_set()


async def test_a_calm_loop_keeps_nobody_waiting(pace, processor):
    looks = processor.looks
    await until(lambda: processor.looks > looks + 5)
    assert await asyncio.wait_for(pace.run(compute, compute, asyncio.to_thread, HOUR), PATIENCE) == "computed"


async def test_a_body_that_does_not_compute_never_waits(pace, processor):
    processor.busy, processor.body = 1.0, 0.0
    await until(lambda: share(pace) >= BUSY)
    for _ in range(3):
        assert await asyncio.wait_for(pace.run(look, look, asyncio.to_thread, HOUR), PATIENCE) == "looked"


async def test_what_has_the_same_code_is_known(pace, processor):
    """However it is wrapped: a step's arguments make another callable of it each time."""
    processor.busy = 1.0
    await until(lambda: share(pace) >= BUSY)
    body = asyncio.create_task(pace.run(partial(partial(compute, bool)), compute, asyncio.to_thread, HOUR))
    looks = processor.looks
    await until(lambda: processor.looks > looks + 5)
    assert not body.done()
    processor.busy = 0.0
    await asyncio.wait_for(body, PATIENCE)


async def test_a_body_whose_wait_is_cancelled_leaves_nothing_behind(pace, processor):
    processor.busy = 1.0
    await until(lambda: share(pace) >= BUSY)
    body = asyncio.create_task(pace.run(compute, compute, asyncio.to_thread, HOUR))
    await until(lambda: pace.beside(asyncio.get_running_loop()).bodies == 2)
    body.cancel()
    with pytest.raises(asyncio.CancelledError):
        await body
    assert pace.beside(asyncio.get_running_loop()).bodies == 1


async def test_a_loop_that_is_never_calm_is_waited_for_no_longer_than_the_bound(processor):
    pace, processor.busy = Pace(processor), 1.0
    done = threading.Event()
    await pace.run(compute, compute, asyncio.to_thread, HOUR)
    other = asyncio.create_task(pace.run(compute, partial(compute, done.wait), asyncio.to_thread, HOUR))
    await until(lambda: share(pace) >= BUSY)
    for _ in range(3):
        assert await asyncio.wait_for(pace.run(compute, compute, asyncio.to_thread, HOUR), PATIENCE) == "computed"
    assert share(pace) >= BUSY
    done.set()
    await other
    await until(lambda: not pace.beside(asyncio.get_running_loop()).looking)  # nobody computes, and nobody looks


async def test_each_loop_has_a_share_of_its_own(pace, processor):
    """A sync framework may have a loop for each request."""
    processor.busy = 1.0
    await until(lambda: share(pace) >= BUSY)
    for _ in range(2):
        there = asyncio.to_thread(asyncio.run, pace.run(compute, compute, asyncio.to_thread, HOUR))
        assert await asyncio.wait_for(there, PATIENCE) == "computed"
    assert len(pace._loops) == 2  # the one that runs, and the last that has ended


async def test_any_callable_can_be_a_body(processor):
    pace = Pace(processor)
    for body in (partial(int, "7"), [3, 7].pop, Called()):
        assert [await pace.run(body, body, asyncio.to_thread, HOUR) for _ in range(1)] == [7]


class Called:
    __code__ = ["no code"]

    def __call__(self) -> int:
        return 7


async def test_a_pause_takes_little_of_the_time_that_a_body_has(pace, processor):
    processor.busy = 1.0
    await until(lambda: share(pace) >= BUSY)
    async with asyncio.timeout(PATIENCE):
        assert await pace.run(compute, compute, asyncio.to_thread, 1000) == "computed"
    assert share(pace) >= BUSY


class Crunch(Event, name="pace/crunch"):
    n: int


async def test_steps_that_compute_beside_a_busy_loop_all_come_to_their_results():
    app = App("pace")

    @app.function(Crunch)
    async def crunch(ctx: Context[Crunch]) -> int:
        return sum([await ctx.step.run(f"part-{part}", burn, ctx.event.data.n) for part in range(4)])

    @app.function(Crunch)
    def crunch_in_a_thread(ctx: SyncContext[Crunch]) -> int:
        return ctx.step.run("part", burn, ctx.event.data.n) * 4

    hog = asyncio.create_task(hog_the_loop())
    async with AsyncHarness(app) as h:
        for n in range(6):
            await h.send(Crunch(n=n))
        await h.settle()
        runs = await h.runs()
    hog.cancel()
    assert sorted(run.output for run in runs) == sorted([n * 4 for n in range(6)] * 2)


def burn(n: int) -> int:
    until = time.thread_time() + 2 * pacing.COMPUTES_SECONDS
    while time.thread_time() < until:
        pass
    return n


async def hog_the_loop() -> None:
    while True:
        burn(0)
        await asyncio.sleep(0.001)
