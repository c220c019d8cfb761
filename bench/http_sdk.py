"""An application on the official Python SDK, called over HTTP: `python -m bench.http_sdk [--quick] [--dir DIR]`.

The server and the application are processes of their own, started as their users start them. Both share the machine's cores
with each other and with what sends the events, so the SDK's own time is in every figure.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

_PATIENCE = 120.0
_BATCH = 100
_TICKS = os.sysconf("SC_CLK_TCK")


class Setup:
    """A server, and an application that has registered with it."""

    def __init__(self, http: httpx.Client, server: subprocess.Popen[bytes], app: httpx.Client) -> None:
        self._http = http
        self._server = server
        self._app = app

    def send(self, name: str, count: int = 1) -> None:
        """Send events in as few requests as are usual."""
        while count > 0:
            some = min(count, _BATCH)
            self._http.post("/e/bench", json=[{"name": f"bench/{name}"}] * some).raise_for_status()
            count -= some

    def ended(self, name: str) -> int:
        """How many runs of a function have completed."""
        text = self._http.get("/metrics").text
        found = re.search(rf'holdfast_runs_ended_total{{fn="bench-{name}",status="completed"}} (\d+)', text)
        return int(found[1]) if found else 0

    def calls(self) -> int:
        """How often the application was called."""
        return int(self._app.get("/seen").json()["calls"])

    def lines(self) -> tuple[int, float]:
        """How often functions have reached their first line, and when they did so last, in seconds."""
        seen = self._app.get("/seen").json()
        return int(seen["lines"]), float(seen["line_at"])

    def cpu(self) -> float:
        """Seconds of processor time that the server has used."""
        fields = Path(f"/proc/{self._server.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


@contextmanager
def setup(folder: Path) -> Iterator[Setup]:
    """Start both, and stop them afterwards."""
    url, app_url = (f"http://127.0.0.1:{_free_port()}" for _ in range(2))
    port, app_port = (one.rpartition(":")[2] for one in (url, app_url))
    serve = f"{app_url}/api/inngest"
    options = ["--no-reload", "--no-discovery", "--no-poll", "--log-level", "warning", "-u", serve]
    store = f"sqlite:///{folder / 'http.db'}"
    with ExitStack() as stack:
        app = _process(stack, "-m", "bench.sdk_app", app_port, url)
        server = _process(stack, "-m", "holdfast", "dev", "--port", port, "--store", store, *options)
        http = stack.enter_context(httpx.Client(base_url=url, timeout=30, trust_env=False))
        app_http = stack.enter_context(httpx.Client(base_url=app_url, timeout=30, trust_env=False))
        _until(lambda: _answers(app_http, "/seen"), f"the application answers ({app.poll()})")
        _until(lambda: _answers(http, "/health"), "the server answers")
        _until(lambda: len(http.get("/v1/functions").json()["data"]) == 3, "the application has registered")
        yield Setup(http, server, app_http)


def latency(at: Setup, count: int) -> tuple[float, float]:
    """Milliseconds from sending an event to the first line of its function, one at a time: median and 99th percentile."""
    times = []
    for number in range(count):
        began = time.time()
        at.send("line")
        _until(lambda wanted=number: at.lines()[0] > wanted, "the function runs", pause=0.001)
        times.append((at.lines()[1] - began) * 1000)
    times.sort()
    return times[len(times) // 2], times[int(len(times) * 0.99)]


def throughput(at: Setup, name: str, runs: int, steps: int) -> tuple[float, float]:
    """Runs per second from the first event to the last end, and microseconds of the server's processor time per call."""
    before, calls, cpu = at.ended(name), at.calls(), at.cpu()
    began = time.perf_counter()
    at.send(name, runs)
    # the application is asked, as asking the server for its metrics costs it more than a call does
    _until(lambda: at.calls() - calls >= runs * (steps + 1), f"all calls for {name} are made")
    _until(lambda: at.ended(name) - before >= runs, f"all runs of {name} end")
    seconds = time.perf_counter() - began
    return runs / seconds, (at.cpu() - cpu) / (at.calls() - calls) * 1e6


def report(folder: Path, *, quick: bool) -> None:
    """Measure, and print a line for each figure."""
    scale = 0.2 if quick else 1.0
    with setup(folder) as at:
        throughput(at, "one", 50, 1)  # both are warm from here on
        p50, p99 = latency(at, round(500 * scale))
        print(f"{'Python SDK over HTTP: event to first line':58} p50 {p50:.2f} ms   p99 {p99:.2f} ms   aim p50 10 ms")
        rate, cpu = throughput(at, "one", round(3000 * scale), 1)
        print(f"{'Python SDK over HTTP: one-step runs per second':58} {rate:12,.0f}   {cpu:,.0f} us of the server's CPU per call   aim 336")
        rate, cpu = throughput(at, "ten", round(600 * scale), 10)
        print(f"{'Python SDK over HTTP: steps per second':58} {10 * rate:12,.0f}   {cpu:,.0f} us of the server's CPU per call   aim 624")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.http_sdk", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fifth of the work")
    parser.add_argument("--dir", default=".", help="where the database is written (default: here, on a real disk)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.dir) as folder:
        report(Path(folder).resolve(), quick=options.quick)


def _process(stack: ExitStack, *args: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, *args], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return process


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _answers(http: httpx.Client, path: str) -> bool:
    try:
        return http.get(path).status_code == 200
    except httpx.TransportError:
        return False


def _until(reached: Callable[[], bool], what: str, pause: float = 0.05) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not reached():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {_PATIENCE:g} s: {what}")
        time.sleep(pause)


if __name__ == "__main__":
    main()
