"""A holdfast that was started as a user starts it, and what one sees of it from outside."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
from commandline import Cli, Running

T = TypeVar("T")
PATIENCE = 60.0
ENDED = frozenset({"Completed", "Failed", "Cancelled", "Skipped"})


def until(look: Callable[[], T | None], what: Callable[[], object] | str, patience: float = PATIENCE) -> T:
    """What `look` gives once it gives something; fails with `what` at the deadline."""
    deadline = time.monotonic() + patience
    while True:
        found = look()
        if found is not None and found is not False:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {patience} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.02)


@dataclass
class Server:
    """A running holdfast, seen through its public APIs."""

    url: str
    running: Running
    http: httpx.Client
    event_key: str

    def stop(self) -> None:
        self.http.close()
        if self.running.process.poll() is None:
            self.running.kill()

    def peak_memory(self) -> int:
        """The most bytes of memory that its largest process has had."""
        parent, peak = self.running.process.pid, 0
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
            except OSError:
                continue  # it has just ended
            if parent in {int(fields["Pid"]), int(fields["PPid"])} and "VmHWM" in fields:
                peak = max(peak, int(fields["VmHWM"].split()[0]) * 1024)
        assert peak
        return peak

    # -- events --------------------------------------------------------------------------------------------------------

    def send(self, name: str, data: Any = None, **fields: Any) -> str:
        """Send an event; its internal id."""
        return self.send_all([{"name": name, "data": data or {}, **fields}])[0]

    def send_all(self, events: list[dict[str, Any]]) -> list[str]:
        answer = self.http.post(f"/e/{self.event_key}", json=events)
        assert answer.status_code == 200, answer.text
        return answer.json()["ids"]

    # -- what has become of them ------------------------------------------------------------------------------------------

    def get(self, path: str, **params: Any) -> Any:
        """The data of a GET of the API."""
        answer = self.http.get(path, params=params)
        assert answer.status_code == 200, (path, answer.status_code, answer.text)
        return answer.json()["data"]

    def runs_of(self, event_id: str, function: str | None = None) -> list[dict[str, Any]]:
        runs = self.get(f"/v1/events/{event_id}/runs")
        return [run for run in runs if function is None or run["function"] == function]

    def run(self, run_id: str) -> dict[str, Any]:
        return self.get(f"/v1/runs/{run_id}")

    def steps(self, run_id: str) -> dict[str, dict[str, Any]]:
        """Its steps by name."""
        return {step["name"]: step for step in self.get(f"/v1/runs/{run_id}/steps")["steps"]}

    def started(self, event_id: str, function: str | None = None, patience: float = PATIENCE) -> str:
        """The id of the run that an event has started."""
        found = until(lambda: self.runs_of(event_id, function) or None, f"a run of event {event_id}", patience)
        return found[0]["run_id"]

    def ended(self, run_id: str, patience: float = PATIENCE) -> dict[str, Any]:
        """A run once it has ended."""

        def look() -> dict[str, Any] | None:
            run = self.run(run_id)
            return run if run["status"] in ENDED else None

        return until(look, lambda: f"{self.run(run_id)}\n{self.steps(run_id)}", patience)

    def finished(self, event_id: str, function: str | None = None, patience: float = PATIENCE) -> dict[str, Any]:
        """The run that an event has started, once it has ended."""
        return self.ended(self.started(event_id, function, patience), patience)

    def call(self, name: str, data: Any = None, function: str | None = None, **fields: Any) -> dict[str, Any]:
        """Send an event; the run it started, once it has ended."""
        return self.finished(self.send(name, data, **fields), function)

    def waiting(self, run_id: str, step: str, patience: float = PATIENCE) -> dict[str, Any]:
        """A step of a run once it is under way."""
        return until(lambda: self.steps(run_id).get(step), lambda: f"step {step!r}: {self.steps(run_id)}", patience)

    def wait_for_app(self, app: str, functions: int | None = None, patience: float = PATIENCE) -> dict[str, Any]:
        """An application once it has registered."""

        def look() -> dict[str, Any] | None:
            for found in self.get("/v1/apps"):
                if found["name"] == app and not found["error"] and functions in {None, found["functions"]}:
                    return found
            return None

        return until(look, lambda: f"app {app}: {self.get('/v1/apps')}", patience)


def start_server(
    directory: Path, *args: str, port: int, command: str = "dev", store: str = "sqlite://", headers: dict[str, str] | None = None,
    event_key: str = "any", **env: str,
) -> Server:
    """Start it and wait until it answers."""
    options = ["--no-reload", "--no-discovery"] if command == "dev" else ["--host", "127.0.0.1"]
    running = Cli(directory).start(command, *args, "--port", str(port), "--store", store, *options, **env)
    http = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60, trust_env=False)

    def healthy() -> bool:
        assert running.process.poll() is None, (running.wait(), running.lines)
        with contextlib.suppress(httpx.TransportError):
            return http.get("/health").status_code == 200
        return False

    until(healthy, "holdfast answers")
    return Server(f"http://127.0.0.1:{port}", running, http, event_key)


def output_of(run: dict[str, Any]) -> Any:
    """What a run returned, with the state it must be in."""
    assert run["status"] == "Completed", json.dumps(run, indent=1)
    return run["output"]


def error_of(run: dict[str, Any]) -> dict[str, Any]:
    """What a run failed with, with the state it must be in."""
    assert run["status"] == "Failed", json.dumps(run, indent=1)
    return run["output"]["error"] if "error" in run["output"] else run["output"]
