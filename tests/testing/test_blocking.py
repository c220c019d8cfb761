"""The harness and the fixture in tests that aren't async, on uvloop, and in a pytest of their own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from holdfast import App, Context, Event, NotRunningError, SyncContext
from holdfast.testing import Harness, NotQuietError

ROOT = Path(__file__).parents[2]
START = datetime(2030, 1, 1, tzinfo=UTC)


class Go(Event, name="kit/go"):
    n: int = 0


class Reply(Event, name="kit/reply"):
    n: int


def make_app() -> App:
    app = App("t")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> str:
        await ctx.step.sleep("month", timedelta(days=30))
        reply = await ctx.step.wait_for_event("reply", Reply, timeout="1d")
        return "none" if reply is None else f"reply {reply.data.n}"

    return app


def harness_threads() -> list[str]:
    """Those that this test has left; a serve route of another keeps its own for as long as the process."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("holdfast") and thread not in BEFORE]


BEFORE: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def threads_of_others():
    BEFORE.clear()
    BEFORE.update(threading.enumerate())


def test_every_call_of_the_harness_is_there_without_await():
    app = make_app()
    fn = app.functions["fn"]
    with Harness(app, start=START) as h:
        assert h.run(fn, Go()).output == "none"
        run = h.start(fn, Go())
        h.advance("30d")
        h.restart()
        h.send(Reply(n=1))
        assert h.read(run).output == "reply 1"
        other = h.start(fn, Go())
        assert h.cancel(other)
        assert [one.status for one in h.runs(status="CANCELLED")] == ["CANCELLED"]
        h.settle()
        assert h.finish(run).output == "reply 1"
        assert [event.data for event in h.events("kit/reply")] == [{"n": 1}]
        assert h.clock.time == START + timedelta(days=61)
    with pytest.raises(NotRunningError, match="the harness is closed"):
        h.settle()
    assert harness_threads() == []


def test_code_that_sends_without_async_works_beside_it():
    app = make_app()
    with Harness(app, start=START) as h:
        app.send_sync(Go())  # as a Flask view would
        h.advance("30d")
        app.send_sync(Reply(n=7))
        h.settle()
        (run,) = h.runs()
        assert run.output == "reply 7"


def test_errors_pass_and_nothing_is_left_behind():
    app = App("t")
    stop = threading.Event()

    @app.function(Go)
    def fn(ctx: SyncContext[Go]) -> None:
        ctx.step.run("hang", stop.wait, 5)

    with pytest.raises(NotQuietError, match="step 'hang' of t-fn is executing"), Harness(app, patience=0.1) as h:
        try:
            h.run(fn, Go())
        finally:
            stop.set()
    assert harness_threads() == []


def test_on_uvloop_too():
    uvloop = pytest.importorskip("uvloop")
    app = make_app()

    async def main() -> str | None:
        async with Harness(app, start=START) as h:
            run = await h.start(app.functions["fn"], Go())
            await h.advance("30d")
            await h.restart()
            await h.send(Reply(n=1))
            return (await h.read(run)).output

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) == "reply 1"


SUITE = '''
import pytest
from holdfast import App, Context, Event

app = App("t")


class Go(Event, name="kit/go"):
    pass


@app.function(Go)
async def fn(ctx: Context[Go]) -> str:
    await ctx.step.sleep("month", "30d")
    return "done"


def test_plain(holdfast_harness):
    with holdfast_harness(app) as h:
        assert h.run(fn, Go()).output == "done"


def test_left_open(holdfast_harness):
    h = holdfast_harness(app).__enter__()
    assert h.run(fn, Go()).output == "done"


def test_nothing_is_left():
    import threading
    assert [thread.name for thread in threading.enumerate() if "holdfast" in thread.name] == []


@pytest.mark.anyio
async def test_async(holdfast_harness):
    async with holdfast_harness(app) as h:
        assert (await h.run(fn, Go())).output == "done"
'''


def pytest_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(
        "import pytest\n\n\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
    )
    installed = any(entry.value == "holdfast.testing.pytest_plugin" for entry in entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "holdfast.testing.pytest_plugin"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", *plugin, *arguments],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, timeout=60,
    )


def test_the_fixture_serves_both_kinds_of_test(tmp_path: Path):
    (tmp_path / "test_suite.py").write_text(SUITE)
    done = pytest_in(tmp_path)
    assert "4 passed" in done.stdout, done.stdout + done.stderr


def test_the_fixture_needs_no_plugin_for_async_tests(tmp_path: Path):
    (tmp_path / "test_suite.py").write_text(SUITE)
    done = pytest_in(tmp_path, "-p", "no:anyio", "-p", "no:asyncio", "-k", "not async", "-W", "ignore::pytest.PytestUnknownMarkWarning")
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_the_plugin_alone_loads_no_engine():
    ours = "('holdfast.engine', 'holdfast.store.sqlite', 'holdfast.store.postgres', 'holdfast.store.group', 'holdfast.server', 'anyio')"
    code = f"import sys, holdfast.testing.pytest_plugin; print([m for m in sys.modules if m.startswith({ours})])"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_every_public_name_can_be_imported():
    import holdfast.testing

    for name in holdfast.testing.__all__:
        assert getattr(holdfast.testing, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = holdfast.testing.Nothing
