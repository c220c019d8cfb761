"""`make dev` in the folders of catalogue, studio and inbox: everything with one command, and gone with Ctrl-C."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from ports import free_port

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[2] / "examples"
BESIDE = {"catalogue": ["OUTSIDE_PORT"], "studio": ["INBOX_PORT", "OUTSIDE_PORT"], "inbox": ["REDIS_PORT"]}


def answer(url: str, seconds: float = 60) -> httpx.Response:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return httpx.get(url)
        except httpx.TransportError:
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.05)


@pytest.mark.parametrize("app", sorted(BESIDE))
def test_it_runs_everything_and_ctrl_c_ends_everything(app, tmp_path):
    ports = {name: free_port() for name in ["PORT", "dashboard", *BESIDE[app]]}
    own = {
        "SMTP_PORT": str(free_port()),
        "DASHBOARD_ADDRESS": f"127.0.0.1:{ports['dashboard']}",
        "DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/app.db",
        "HOLDFAST_STORE": f"sqlite:///{tmp_path}/holdfast.db",
        "EXPORT_DIRECTORY": f"{tmp_path}/exports",
    }
    command = ["make", "dev", f"PYTHON={sys.executable}", *(f"{name}={port}" for name, port in ports.items() if name != "dashboard")]
    process = subprocess.Popen(
        command, cwd=EXAMPLES / app, env={**os.environ, **own}, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        assert answer(f"http://127.0.0.1:{ports['PORT']}/health").json() == {"status": "ok"}
        assert answer(f"http://127.0.0.1:{ports['dashboard']}/health").status_code == 200
        for name in BESIDE[app]:
            if name != "REDIS_PORT":
                answer(f"http://127.0.0.1:{ports[name]}/")
        os.killpg(process.pid, signal.SIGINT)
        output = process.communicate(timeout=60)[0]
        assert "Traceback" not in output
        assert f"127.0.0.1:{ports['PORT']}" in output
        for port in ports.values():
            with pytest.raises(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{port}/")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
        process.stdout.close()


@pytest.mark.parametrize("app", ["storefront", *sorted(BESIDE)])
def test_the_example_environment_can_be_read_by_make_dev(app, tmp_path):
    shutil.copy(EXAMPLES / app / ".env.example", tmp_path / ".env")
    done = subprocess.run(["sh", "-euc", "set -a; . ./.env; set +a; echo $APP_ENV"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("development\n", "")
