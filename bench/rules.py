"""What each rule of flow control costs a run: one-step runs with one rule, beside the same runs with none."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from holdfast import (
    App,
    Batch,
    CancelOn,
    Concurrency,
    Context,
    Event,
    Idempotency,
    RateLimit,
    Singleton,
    Throttle,
    Timeouts,
)
from holdfast.compose import build_engine

KEYS = 10_000


class Job(Event, name="bench/job"):
    n: int
    key: int


async def body(n: int) -> int:
    return n + 1


def by_key(job: Job) -> int:
    return job.key


RULES: dict[str, dict[str, Any]] = {
    "no rule": {},
    "concurrency, no key": {"concurrency": 1_000_000},
    "concurrency, 10,000 keys (a function)": {"concurrency": Concurrency(5, key=by_key)},
    "concurrency, 10,000 keys (an expression)": {"concurrency": Concurrency(5, key="event.data.key")},
    "run concurrency, 10,000 keys": {"run_concurrency": Concurrency(5, key=by_key)},
    "throttle, 10,000 keys": {"throttle": Throttle(1_000_000, "1s", key=by_key)},
    "rate limit, 10,000 keys": {"rate_limit": RateLimit(1_000_000, "1h", key=by_key)},
    "priority": {"priority": by_key},
    "singleton, a key each": {"singleton": Singleton("skip", key="string(event.data.n)")},
    "idempotency, a key each": {"idempotency": Idempotency("string(event.data.n)")},
    "cancel on event": {"cancel_on": CancelOn("bench/cancel", match="data.n")},
    "timeouts": {"timeouts": Timeouts(start="1h", finish="1h")},
    "batch of 100, by event": {"batch": Batch(100, "1s")},
}


class Figures:
    """What a workload took."""

    def __init__(self, per_second: float, cpu_us: float) -> None:
        self.per_second = per_second
        self.cpu_us = cpu_us


async def rule(path: Path, settings: dict[str, Any], events: int, in_flight: int) -> Figures:
    """Events a second, and processor time each, until the run of the last one is on disk."""
    app = App("bench")
    done = asyncio.Event()
    left = events

    @app.function(Job, **settings)
    async def work(ctx: Context[Job]) -> int:
        return await ctx.step.run("step", body, ctx.event.data.n)

    async with build_engine([app], f"sqlite:///{path}") as engine:
        original = engine.run_ended

        def ended(live: Any, *rest: Any) -> None:
            nonlocal left
            original(live, *rest)
            left -= max(1, live.run.batch)
            if left <= 0:
                done.set()

        engine.run_ended = ended  # type: ignore[method-assign]

        async def sender(first: int) -> None:
            for n in range(first, events, in_flight):
                await app.send(Job(n=n, key=n % KEYS))

        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(sender(first) for first in range(in_flight)))
        await done.wait()
        return Figures(events / (time.perf_counter() - began), (time.process_time() - cpu) / events * 1_000_000)
