"""Runs that are executed by workers: what becomes of them when workers die. The processes themselves are in tests/cluster."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping

import pytest

from holdfast import App, Context, Event, RunFailedError
from holdfast.cli.worker_calls import Inline
from holdfast.compose import build_engine
from holdfast.engine.workers import WorkerDied

pytestmark = pytest.mark.anyio


class Go(Event, name="employed/go"):
    n: int = 0


class Mortal(Inline):
    """Executes in this process; so many calls of a function end with the death of their worker."""

    take_new = True

    def __init__(self, apps, engine, deaths: Mapping[str, int], *, late: bool = False) -> None:
        super().__init__(apps, engine)
        self.engine = engine
        self.deaths = dict(deaths)
        self.late = late
        """Whether workers die after the call was executed, and before its answer."""
        self.suspects: Counter[str] = Counter()

    async def execute(self, app, slug, target, headers, body, *, suspect=False):
        self.suspects[slug] += suspect
        answer = await super().execute(app, slug, target, headers, body) if self.late else None
        if self.deaths.get(slug, 0):
            self.deaths[slug] -= 1
            raise WorkerDied(4711)
        return answer or await super().execute(app, slug, target, headers, body)


def make_app(done: list[str]) -> App:
    app = App("employed", retries=0)

    @app.function(Go)
    async def two(ctx: Context[Go]) -> str:
        await ctx.step.run("first", done.append, "first")
        await ctx.step.run("second", done.append, "second")
        return "done"

    @app.function(Go)
    async def nothing(ctx: Context[Go]) -> str:
        return "nothing"

    return app


@pytest.fixture
async def employed(database):
    engines = []

    async def start(app: App, deaths: Mapping[str, int], **options) -> Mortal:
        engine = build_engine([app], f"sqlite:///{database}")
        workers = engine.driver.workers = Mortal([app], engine, deaths, **options)
        engines.append(engine)
        await engine.boot()
        return workers

    yield start
    for engine in engines:
        await engine.stop()


async def test_a_death_costs_no_attempt(employed):
    done: list[str] = []
    app = make_app(done)
    await employed(app, {"employed-two": 5})
    handle = await app.start(app.functions["two"], Go())
    assert await handle.result(timeout=20) == "done"
    assert (await handle.info()).attempt == 0
    assert done == ["first", "second"]


async def test_what_was_recorded_before_a_death_is_not_done_again(employed):
    done: list[str] = []
    app = make_app(done)
    await employed(app, {"employed-two": 1}, late=True)
    assert await (await app.start(app.functions["two"], Go())).result(timeout=20) == "done"
    assert done == ["first", "second"]


async def test_one_that_kills_its_workers_fails_for_good_and_becomes_a_suspect_first(employed):
    app = make_app([])
    workers = await employed(app, {"employed-two": 100})
    handle = await app.start(app.functions["two"], Go())
    with pytest.raises(RunFailedError, match="ProcessDiedError: 6 worker processes died one after the other"):
        await handle.result(timeout=20)
    assert workers.suspects == {"employed-two": 4}, "the third call and those after it"
    assert await (await app.start(app.functions["nothing"], Go())).result(timeout=20) == "nothing"


async def test_progress_is_told(employed):
    app = make_app([])

    @app.function(Go)
    async def told(ctx: Context[Go]) -> None:
        ctx.progress(0.5, "half")
        await ctx.step.wait_for_signal("bell", "bell", timeout="1h")

    await employed(app, {})
    handle = await app.start(app.functions["told"], Go())
    async with asyncio.timeout(20):
        async for info in handle.watch():
            if info.progress is not None:
                break
    assert (info.progress.fraction, info.progress.text) == (0.5, "half")


async def test_lines_are_told(employed):
    app = make_app([])

    @app.function(Go)
    async def logged(ctx: Context[Go]) -> None:
        ctx.logger.info("begin")
        await ctx.step.run("body", lambda: ctx.logger.warning("in the body"))

    engine = (await employed(app, {})).engine
    handle = await app.start(app.functions["logged"], Go())
    await handle.result(timeout=20)
    detail = await engine.reader.run(handle.id)
    assert [(line.level, line.message, line.step) for line in detail.logs] == [("info", "begin", None), ("warning", "in the body", "body")]


async def test_without_workers_their_runs_stay_and_the_log_says_why(employed, database, caplog):
    app = make_app([])

    @app.function(Go)
    async def wait(ctx: Context[Go]) -> str:
        await ctx.step.wait_for_signal("bell", "bell", timeout="1h")
        return "rung"

    await employed(app, {})
    engine = app._senders[-1]
    handle = await app.start(app.functions["wait"], Go())
    await engine.idle()
    await engine.stop()
    again = build_engine([app], f"sqlite:///{database}")
    async with again:
        assert await app.send_signal("bell", 1) == handle.id
        await again.idle()
        assert "began in a worker process" in caplog.text
    await employed(app, {})
    assert await handle.result(timeout=20) == "rung"
