"""The same workloads as a user would write them, on holdfast in process."""

from __future__ import annotations

import asyncio
import resource
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from holdfast import App, Context, Event
from holdfast.compose import build_engine
from holdfast.engine.engine import Engine, EngineOptions
from holdfast.engine.live import LiveRun
from holdfast.store.reads import RunFilter


class Job(Event, name="bench/job"):
    n: int


async def body(n: int) -> int:
    return n + 1


def app_with_steps(steps: int) -> App:
    """A function of so many trivial steps."""
    app = App("bench")

    @app.function(Job)
    async def work(ctx: Context[Job]) -> int:
        value = ctx.event.data.n
        for n in range(steps):
            value = await ctx.step.run(f"s{n}", body, value)
        return value

    return app


COMPLETED = RunFilter(status=("COMPLETED",))


class Ends:
    """Tells whoever sent an event when its run's end has been committed."""

    def __init__(self, engine: Engine, wanted: int) -> None:
        self.count = 0
        self.wanted = wanted
        self.done = asyncio.get_running_loop().create_future()
        self.waiting: dict[bytes, asyncio.Future[None]] = {}
        original = engine.run_ended

        def ended(live: LiveRun, *rest: Any) -> None:
            original(live, *rest)
            self.count += 1
            waiter = self.waiting.pop(live.run.event_id, None)
            if waiter is not None:
                waiter.set_result(None)
            if self.count == self.wanted:
                self.done.set_result(None)

        engine.run_ended = ended  # type: ignore[method-assign]


def url_of(where: Path | str) -> str:
    """The store: a file, or a URL as it is."""
    return where if isinstance(where, str) else f"sqlite:///{where}"


async def throughput(path: Path | str, runs: int, steps: int, in_flight: int, *, busy: bool = False) -> float:
    """Runs per second: real `await app.send(model)`, one at a time per task, until the last end is on disk."""
    app = app_with_steps(steps)
    stop = threading.Event()
    async with build_engine([app], url_of(path)) as engine:
        ends = Ends(engine, runs // in_flight * in_flight)
        if busy:
            threading.Thread(target=_spin, args=(stop,), daemon=True).start()

        async def sender(count: int) -> None:
            loop = asyncio.get_running_loop()
            for n in range(count):
                receipt = await app.send(Job(n=n))
                ended = ends.waiting[receipt.raw_id] = loop.create_future()
                await ended

        began = time.perf_counter()
        await asyncio.gather(*(sender(runs // in_flight) for _ in range(in_flight)))
        await ends.done
        took = time.perf_counter() - began
        stop.set()
    return ends.wanted / took


def _spin(stop: threading.Event) -> None:
    """A request handler that computes: it holds the interpreter whenever it may."""
    n = 0
    while not stop.is_set():
        n = (n * 31 + 7) % 1_000_003


async def latency(path: Path | str, count: int) -> list[float]:
    """Milliseconds from `send` to the first line of the function, one at a time."""
    app = App("bench")
    times: list[float] = []
    arrived: asyncio.Future[None]
    sent = 0.0

    @app.function(Job)
    async def first_line(ctx: Context[Job]) -> None:
        times.append((time.perf_counter() - sent) * 1000)
        arrived.set_result(None)

    async with build_engine([app], url_of(path)) as engine:
        for n in range(count + 50):
            arrived = asyncio.get_running_loop().create_future()
            sent = time.perf_counter()
            await app.send(Job(n=n))
            await arrived
            await engine.idle()
    return times[50:]


async def sleepers(path: Path, count: int, wakes: int) -> dict[str, float]:
    """So many runs put to sleep: memory they take in this process; then some are woken at once."""
    app = App("bench")
    wake_at = int(time.time() * 1000) + 86_400_000

    @app.function(Job)
    async def sleeps(ctx: Context[Job]) -> None:
        if ctx.event.data.n < 0:
            await ctx.step.wait_for_event("wake", "bench/wake", timeout=timedelta(days=30))
        else:
            await ctx.step.sleep_until("long", wake_at)

    out: dict[str, float] = {}
    async with build_engine([app], f"sqlite:///{path}", options=EngineOptions(linger_ms=0)) as engine:
        before = _rss()
        began = time.perf_counter()
        for start in range(0, count, 1000):
            await app.send_many([Job(n=n) for n in range(start, min(start + 1000, count))])
            while engine.in_flight > 500:
                await asyncio.sleep(0.001)
        while engine.in_flight or engine.store.lanes:
            await asyncio.sleep(0.01)
        out["to sleep per second"] = count / (time.perf_counter() - began)
        out["MB for all"] = _rss() - before
        ends = Ends(engine, wakes)
        await app.send_many([Job(n=-1) for _ in range(min(wakes, 5000))])
        for _ in range(wakes // 5000 - 1):
            await app.send_many([Job(n=-1) for _ in range(5000)])
        while engine.in_flight or engine.store.lanes:
            await asyncio.sleep(0.01)
        began = time.perf_counter()
        await app.send({"name": "bench/wake", "data": {}})
        await ends.done
        out["wake-ups per second"] = wakes / (time.perf_counter() - began)
    return out


async def idle(path: Path, seconds: float) -> dict[str, float]:
    """What a node costs that has nothing to do."""
    app = app_with_steps(1)
    async with build_engine([app], f"sqlite:///{path}") as engine:
        await asyncio.sleep(1)
        wal = path.with_name(path.name + "-wal")
        size, groups = wal.stat().st_size, engine.store.group.groups
        cpu = time.process_time()
        await asyncio.sleep(seconds)
        used = time.process_time() - cpu
        return {
            "% of a core": used / seconds * 100,
            "groups": float(engine.store.group.groups - groups),
            "bytes of log": float(wal.stat().st_size - size),
        }


def _rss() -> float:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize() / 1e6
