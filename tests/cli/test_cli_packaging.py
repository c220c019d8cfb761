"""The wheel: built from the source tree and installed beside nothing but the dependencies, it is whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from commandline import environment

ROOT = Path(__file__).parents[2]

APP = """
from holdfast import App, Context, Event

app = App("shop")

class OrderPaid(Event, name="shop/order.paid"):
    order_id: str

@app.function(OrderPaid)
async def fulfil(ctx: Context[OrderPaid]) -> str:
    return await ctx.step.run("say", lambda: "done")
"""

SMOKE = """
import asyncio, json
import holdfast
from app import OrderPaid, app, fulfil

async def main():
    async with app.running(store="sqlite:///smoke.db", serve="127.0.0.1:0"):
        handle = await app.start(fulfil, OrderPaid(order_id="o1"))
        print(json.dumps({"file": holdfast.__file__, "version": holdfast.__version__, "result": await handle.result(timeout=20)}))

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_wheel_is_whole(tmp_path: Path) -> None:
    env = environment()
    del env["PYTHONPATH"]

    def run(*command: str | Path) -> str:
        done = subprocess.run([str(part) for part in command], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("holdfast-*.whl")
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])").strip())
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-compile", wheel)
    # the dependencies of this environment, but no holdfast of its source tree
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")

    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "smoke.py").write_text(SMOKE)
    smoke = json.loads(run(python, "smoke.py").splitlines()[-1])
    assert Path(smoke["file"]).is_relative_to(tmp_path / "venv")
    assert smoke["result"] == "done"

    command = tmp_path / "venv" / "bin" / "holdfast"
    assert os.access(command, os.X_OK)
    assert run(command, "--version") == f"holdfast {smoke['version']}\n"
    assert "shop from app.py: 1 function" in run(command, "doctor", "--store", "smoke.db", "--check")
    installed = {str(path.relative_to(site / "holdfast")) for path in (site / "holdfast").rglob("*") if path.is_file()}
    source = {
        str(path.relative_to(ROOT / "src" / "holdfast")) for path in (ROOT / "src" / "holdfast").rglob("*")
        if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in path.parts)
    }
    missing = {name for name in source if name not in installed}
    assert not missing, f"the wheel lacks {sorted(missing)}"
    plugins = run(python, "-c", "from importlib.metadata import entry_points as e; print([p.value for p in e(group='pytest11') if p.name == 'holdfast'])")
    assert plugins.strip() == "['holdfast.testing.pytest_plugin']"
