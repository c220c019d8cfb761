"""The official Python SDK behind Flask and Django."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from live_server import error_of, output_of
from ports import free_port

FRAMEWORKS = ("flask", "django")


@pytest.fixture(scope="module")
def server(start_holdfast):
    port = free_port()
    processes, urls = [], []
    for framework in FRAMEWORKS:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("framework_app.py")), framework, f"http://127.0.0.1:{port}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        processes.append(process)
        urls += ["-u", f"http://127.0.0.1:{process.stdout.readline().split()[-1]}/api/inngest"]
    server = start_holdfast(*urls, "--retry-interval", "0.05", port=port)
    for framework in FRAMEWORKS:
        server.wait_for_app(framework, functions=10)
    yield server
    server.stop()
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.protocol("register.adapters")
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_ten_functions(server, framework):
    outputs = {
        "steps": [8, 9], "sleeps": "awake", "times-out": None, "sends": 1, "invokes": [8, 9], "parallel": ["a", "b"], "retries": 2, "handles": "bad",
    }  # fmt: skip
    ids = {name: server.send(f"{framework}/{name}", {"n": 4}) for name in (*outputs, "waits", "fails")}
    server.waiting(server.started(ids["waits"]), "reply")
    server.send(f"{framework}/reply", {"yes": True})
    assert {name: output_of(server.finished(ids[name])) for name in outputs} == outputs
    assert output_of(server.finished(ids["waits"])) == {"yes": True}
    assert error_of(server.finished(ids["fails"]))["message"] == "no use"
