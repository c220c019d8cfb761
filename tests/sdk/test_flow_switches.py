"""Flow control from Python: `app.pause`, `resume`, `set_limit` and `flush`."""

from __future__ import annotations

import pytest

from holdfast import App, ConfigurationError, Context, Debounce, NotRunningError, Throttle
from holdfast.testing import Harness

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


def make_app():
    app, seen = App("t"), []

    @app.function("t/job", throttle=Throttle(1, "1h"))
    async def work_hard(ctx: Context) -> None:
        seen.append(ctx.event.data["n"])

    @app.function("t/quiet", debounce=Debounce("1h", key="event.data.k"))
    async def quiet(ctx: Context) -> None:
        seen.append(ctx.event.data["k"])

    return app, seen, work_hard, quiet


@pytest.mark.parametrize("name", ["the function", "work-hard", "t-work-hard"])
async def test_a_function_is_named_by_itself_its_id_or_its_slug(name):
    app, seen, work_hard, _ = make_app()
    function = work_hard if name == "the function" else name
    async with Harness(app) as h:
        await app.pause(function)
        await app.send({"name": "t/job", "data": {"n": 1}})
        await h.settle()
        assert seen == []
        await app.resume(function)
        await h.settle()
        assert seen == [1]
        await app.pause(function, mode="skip")
        await app.send({"name": "t/job", "data": {"n": 2}})
        await h.settle()
        assert [run.reason async for run in app.runs(status="SKIPPED")] == ["the function is paused"]


async def test_a_limit_is_changed_at_once_and_given_back():
    app, seen, work_hard, _ = make_app()

    async def limit(h):
        (view,) = await h.engine.reader.flow("t-work-hard")
        return view.rules[0].limit

    async with Harness(app) as h:
        await app.set_limit(work_hard, "throttle", 3600)
        assert await limit(h) == 3600
        for n in range(3):
            await app.send({"name": "t/job", "data": {"n": n}})
        await h.advance("3s")
        assert seen == [0, 1, 2]
        await app.set_limit(work_hard, "throttle", None)
        assert await limit(h) == 1


async def test_what_gathers_is_flushed_by_key_or_all_together():
    app, seen, _, quiet = make_app()
    async with Harness(app) as h:
        for key in "abc":
            await app.send({"name": "t/quiet", "data": {"k": key}})
        assert await app.flush(quiet, key="b") == 1
        await h.clock.quiesce()
        assert seen == ["b"]
        assert await app.flush("quiet") == 2
        await h.clock.quiesce()
        assert sorted(seen) == ["a", "b", "c"]


async def test_what_is_not_there_is_refused():
    app, _, work_hard, _ = make_app()
    with pytest.raises(NotRunningError):
        await app.pause(work_hard)
    async with Harness(app):
        with pytest.raises(ConfigurationError, match="no function 'nobody'"):
            await app.pause("nobody")
        with pytest.raises(ConfigurationError, match="'hold' or 'skip', not 'softly'"):
            await app.pause(work_hard, mode="softly")
        with pytest.raises(ConfigurationError, match="has no limit 'concurrency'; it has throttle"):
            await app.set_limit(work_hard, "concurrency", 3)
        with pytest.raises(ConfigurationError, match="1 or more"):
            await app.set_limit(work_hard, "throttle", 0)
