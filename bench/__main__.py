"""`make bench`: every row of the speed table, with the ceiling measured beside it in pairs.

Options: `--quick` for a fifth of the work, `--million` for the full million of sleeping runs, `--nodes` for PostgreSQL with one
and two nodes only, `--profile` to write bench/profile.txt.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import statistics
import tempfile
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from bench import ceiling, nodes, postgres, rules, workloads

T = TypeVar("T")
PAIRS = 5
IN_FLIGHT = 200


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fifth of the work")
    parser.add_argument("--million", action="store_true", help="a million sleeping runs instead of 100,000")
    parser.add_argument("--nodes", action="store_true", help="only PostgreSQL: its ceiling, and one and two nodes")
    parser.add_argument("--profile", action="store_true", help="profile one-step runs into bench/profile.txt and stop")
    parser.add_argument("--dir", default=".", help="where the databases are written (default: here, on a real disk)")
    options = parser.parse_args()
    scale = 0.2 if options.quick else 1.0
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.dir) as folder:
        where = Path(folder)
        if options.profile:
            profile(where)
            return
        if options.nodes:
            several_nodes(where, round(20_000 * scale), round(2000 * scale))
            return
        print(
            "SQLite, synchronous=FULL, in process, 200 in flight, server metrics and retention on; five pairs, median (spread)\n"
        )
        pairs("one-step runs per second", where, round(20_000 * scale), 1, per_run=1, bar=8000, aim=12_000)
        pairs("steps per second, ten-step runs", where, round(5000 * scale), 10, per_run=10, bar=24_000, aim=40_000)
        busy(where, round(5000 * scale))
        latencies(where, round(2000 * scale))
        beside_postgres(where, round(5000 * scale), round(2000 * scale))
        cost_of_rules(where, round(20_000 * scale))
        for name, value in run(
            lambda: workloads.sleepers(where / "sleep.db", 1_000_000 if options.million else 100_000, 10_000)
        ).items():
            print(
                f"{'sleeping runs (' + ('1,000,000' if options.million else '100,000') + '): ' + name:58} {value:12,.0f}"
            )
        for name, value in run(lambda: workloads.idle(where / "idle.db", 10)).items():
            print(f"{'idle node for 10 s: ' + name:58} {value:12,.2f}")


def run(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(make())


def pairs(name: str, where: Path, runs: int, steps: int, *, per_run: int, bar: int, aim: int) -> None:
    tops, ours = [], []
    for n in range(PAIRS):
        tops.append(per_run * run(partial(ceiling.throughput, where / f"c{steps}-{n}.db", runs, steps, IN_FLIGHT)))
        ours.append(per_run * run(partial(workloads.throughput, where / f"h{steps}-{n}.db", runs, steps, IN_FLIGHT)))
    ratio = statistics.median(mine / top for mine, top in zip(ours, tops, strict=True))
    print(f"{name:58} {spread(ours)}   ceiling {spread(tops)}   ratio {ratio:.0%}   bar {bar:,}, aim {aim:,}")


def busy(where: Path, runs: int) -> None:
    work = partial(workloads.throughput, runs=runs, steps=1, in_flight=IN_FLIGHT, busy=True)
    figures = [run(partial(work, where / f"busy{n}.db")) for n in range(3)]
    print(f"{'one-step runs per second beside a CPU-bound thread':58} {spread(figures)}")


def beside_postgres(where: Path, runs: int, count: int) -> None:
    """SQLite and PostgreSQL in turn, on this machine, every commit synced by both."""
    with postgres.server() as new_schema:
        for name, steps in (("one-step runs per second", 1), ("steps per second, ten-step runs", 10)):
            mine, theirs = [], []
            for n in range(3):
                amount = max(IN_FLIGHT, runs // steps)
                mine.append(
                    steps * run(partial(workloads.throughput, where / f"p{steps}-{n}.db", amount, steps, IN_FLIGHT))
                )
                theirs.append(steps * run(partial(workloads.throughput, new_schema(), amount, steps, IN_FLIGHT)))
            ratio = statistics.median(theirs) / statistics.median(mine)
            print(f"{name + ', PostgreSQL':58} {spread(theirs)}   SQLite {spread(mine)}   ratio {ratio:.0%}   bar 50%")
        times = sorted(run(lambda: workloads.latency(new_schema(), count)))
        p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
        print(
            f"{'event to first line, PostgreSQL, one at a time':58} p50 {p50:.2f} ms   p99 {p99:.2f} ms   bar p50 4 ms"
        )


def several_nodes(where: Path, runs: int, count: int) -> None:
    """PostgreSQL beside SQLite and beside its own ceiling, then what nodes of their own processes cost, and how soon they hear."""
    beside_postgres(where, runs // 4, count)
    with postgres.server() as new_schema:
        for name, steps in (("one-step runs per second", 1), ("steps per second, ten-step runs", 10)):
            amount = max(IN_FLIGHT, runs // steps // 2)
            both = [nodes.beside_its_ceiling(run, new_schema, amount, steps, IN_FLIGHT) for _ in range(3)]
            ratio = statistics.median(mine / top for mine, top in both)
            mine, tops = ([steps * pair[n] for pair in both] for n in (0, 1))
            print(f"{name + ', PostgreSQL':58} {spread(mine)}   ceiling {spread(tops)}   ratio {ratio:.0%}")
        for many in (1, 2):
            used = [
                run(partial(nodes.cpu_per_thousand, new_schema(), nodes.server_pid(), many, runs // 4)) for _ in range(3)
            ]
            on_nodes, on_server = (statistics.median(pair[n] for pair in used) for n in (0, 1))
            label = f"CPU seconds per 1,000 one-step runs, {many} {'node' if many == 1 else 'nodes'}"
            print(f"{label:58} {on_nodes + on_server:9.2f}   nodes {on_nodes:.2f}   server {on_server:.2f}")
        times = sorted(run(partial(nodes.to_another_node, new_schema(), count // 4)))
        p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
        print(f"{'event at one node to first line at another':58} p50 {p50:.2f} ms   p99 {p99:.2f} ms")


def cost_of_rules(where: Path, runs: int) -> None:
    plain = None
    for name, settings in rules.RULES.items():
        figures = [
            run(partial(rules.rule, where / f"rule-{abs(hash(name))}-{n}.db", settings, runs, IN_FLIGHT))
            for n in range(3)
        ]
        rate = statistics.median(one.per_second for one in figures)
        cpu = statistics.median(one.cpu_us for one in figures)
        plain = plain or (rate, cpu)
        share, more = rate / plain[0], cpu - plain[1]
        label = "one-step runs per second: " + name
        print(f"{label:66} {rate:9,.0f}   {share:5.0%} of plain   {cpu:6.0f} us of CPU ({more:+.0f})")


def latencies(where: Path, count: int) -> None:
    times = sorted(run(lambda: workloads.latency(where / "latency.db", count)))
    p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
    print(
        f"{'event to first line of the function, one at a time':58} p50 {p50:.2f} ms   p99 {p99:.2f} ms   bar 1 and 5 ms, aim p50 0.6 ms"
    )


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):9,.0f} ({min(values):,.0f}-{max(values):,.0f})"


def profile(where: Path) -> None:
    profiler = cProfile.Profile()
    profiler.enable()
    asyncio.run(workloads.throughput(where / "profile.db", 20_000, 1, IN_FLIGHT))
    profiler.disable()
    target = Path(__file__).with_name("profile.txt")
    with target.open("w", encoding="utf-8") as out:
        stats = pstats.Stats(profiler, stream=out)
        stats.strip_dirs().sort_stats("tottime").print_stats(40)
    print(f"written to {target}")


if __name__ == "__main__":
    main()
