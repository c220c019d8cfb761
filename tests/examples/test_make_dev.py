"""`make dev` in the storefront's folder: shop, dashboard and inbox with one command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from ports import free_port

pytestmark = pytest.mark.slow
STOREFRONT = Path(__file__).parents[2] / "examples" / "storefront"


@pytest.fixture
def start(tmp_path):
    started = []

    def make_dev(**environ: str) -> tuple[subprocess.Popen[str], dict[str, str]]:
        ports = {"shop": str(free_port()), "inbox": str(free_port()), "dashboard": str(free_port())}
        own = {
            "SMTP_PORT": str(free_port()),
            "DASHBOARD_ADDRESS": f"127.0.0.1:{ports['dashboard']}",
            "DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/shop.db",
            "HOLDFAST_STORE": f"sqlite:///{tmp_path}/holdfast.db",
        }
        command = ["make", "dev", f"PYTHON={sys.executable}", f"PORT={ports['shop']}", f"INBOX_PORT={ports['inbox']}"]
        process = subprocess.Popen(
            command, cwd=STOREFRONT, env={**os.environ, **own, **environ}, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        started.append(process)
        return process, ports

    yield make_dev
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
        process.stdout.close()


def answer(url: str, seconds: float = 60) -> httpx.Response:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return httpx.get(url)
        except httpx.TransportError:
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.05)


def test_it_runs_everything_and_ctrl_c_ends_everything(start):
    process, ports = start()
    assert answer(f"http://127.0.0.1:{ports['shop']}/health").json() == {"status": "ok"}
    assert answer(f"http://127.0.0.1:{ports['dashboard']}/health").status_code == 200
    answer(f"http://127.0.0.1:{ports['inbox']}/")
    # the README's request
    body = {"email": "ada@example.test", "name": "Ada"}
    assert httpx.post(f"http://127.0.0.1:{ports['shop']}/signup", json=body).status_code == 202
    deadline = time.monotonic() + 60
    while httpx.get(f"http://127.0.0.1:{ports['inbox']}/api/count").json()["count"] != 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert "Traceback" not in process.communicate(timeout=60)[0]
    for port in ports.values():
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/")


def test_what_is_wrong_with_the_environment_is_said_and_ends_it(start):
    process, _ports = start(MAIL_TRANSPORT="pigeon")
    output = process.communicate(timeout=60)[0]
    assert "MAIL_TRANSPORT must be smtp or resend, not 'pigeon'" in output
    assert process.returncode != 0
