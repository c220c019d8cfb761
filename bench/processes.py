"""`python -m bench.processes`: what worker processes add, and what working through another process costs.

Starts `holdfast start` on an SQLite file with each number of workers, and gives it one-step runs: with a body that computes for so many
milliseconds, and with one that does nothing. The load comes from this process, which works through the server's.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from holdfast import App, Context, Event

IN_FLIGHT = 100
KEYS = {"INNGEST_EVENT_KEY": "bench" * 6, "INNGEST_SIGNING_KEY": "signkey-prod-" + "be" * 32}


class Compute(Event, name="bench/compute"):
    ms: float


app = App("bench-processes", retries=0)


def compute(ms: float) -> int:
    """Keeps a core busy, or with `--asleep` the interpreter alone."""
    if os.environ.get("BENCH_ASLEEP"):
        ctypes.PyDLL(None).usleep(round(ms * 1000))  # called without letting the interpreter go
        return os.getpid()
    until = time.thread_time() + ms / 1000
    while time.thread_time() < until:
        pass
    return os.getpid()


@app.function(Compute)
async def step(ctx: Context[Compute]) -> int:
    return await ctx.step.run("compute", compute, ctx.event.data.ms)


async def runs_per_second(runs: int, ms: float) -> float:
    left = iter(range(runs))

    async def customer() -> None:
        for _ in left:
            await (await app.start(step, Compute(ms=ms))).result()

    began = time.perf_counter()
    await asyncio.gather(*(customer() for _ in range(IN_FLIGHT)))
    return runs / (time.perf_counter() - began)


async def sends_per_second(count: int) -> float:
    left = iter(range(count))

    async def customer() -> None:
        for _ in left:
            await app.send({"name": "bench/nobody", "data": {}})

    began = time.perf_counter()
    await asyncio.gather(*(customer() for _ in range(IN_FLIGHT)))
    return count / (time.perf_counter() - began)


async def load(store: str, ms: float, scale: float) -> tuple[list[float], list[float], list[float]]:
    async with app.running(store=store):
        await runs_per_second(50, 0)
        busy = [await runs_per_second(round(400 * scale), ms) for _ in range(3)]
        idle = [await runs_per_second(round(1000 * scale), 0) for _ in range(3)]
        return busy, idle, [await sends_per_second(round(5000 * scale)) for _ in range(3)]


def measure(folder: Path, workers: int, ms: float, scale: float) -> None:
    store = f"sqlite:///{folder / f'workers-{workers}.db'}"
    server = subprocess.Popen(
        [
            sys.executable, "-m", "holdfast", "start", "bench.processes:app", "--host", "127.0.0.1", "--port", "0",
            "--store", store, "--workers", str(workers), "--log-level", "warning",
        ],
        env={**os.environ, **KEYS}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        next(line for line in server.stdout or () if "Dashboard" in line)
        busy, idle, sends = asyncio.run(load(store, ms, scale))
    finally:
        server.terminate()
        server.wait(60)
    name = "in the server's process" if workers == 0 else f"{workers} worker{'s' if workers > 1 else ''}"
    print(f"{name:26} {_spread(busy):>24} {_spread(idle):>24} {_spread(sends):>28}", flush=True)


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):,.0f} ({min(values):,.0f}-{max(values):,.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.processes", description=__doc__)
    parser.add_argument("--workers", type=int, nargs="*", default=sorted({0, 1, 2, os.cpu_count() or 1}))
    parser.add_argument("--ms", type=float, default=10.0, help="milliseconds that a body computes")
    parser.add_argument("--quick", action="store_true", help="a fifth of the work")
    parser.add_argument("--dir", default=".", help="where the databases are written (default: here, on a real disk)")
    parser.add_argument(
        "--asleep", action="store_true", help="bodies hold their interpreter asleep: shows the scaling on a machine without idle cores"
    )
    options = parser.parse_args()
    if options.asleep:
        os.environ["BENCH_ASLEEP"] = "1"
    print(f"One-step runs per second on SQLite, {os.cpu_count()} cores, {IN_FLIGHT} in flight; median of three (spread)\n")
    print(f"{'':26} {f'body of {options.ms:g} ms':>24} {'empty body':>24} {'sends from another process':>28}")
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.dir) as folder:
        for workers in options.workers:
            measure(Path(folder), workers, options.ms, 0.2 if options.quick else 1.0)


if __name__ == "__main__":
    main()
