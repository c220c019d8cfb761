"""What an application has beside its functions: their resources, and ids for what its steps send."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from holdfast import App, Context, Event, NotRunningError, SyncContext
from holdfast.testing import Harness

pytestmark = pytest.mark.anyio


class Go(Event, name="test/go"):
    n: int = 0


class Next(Event, name="test/next"):
    n: int = 0


async def test_the_web_application_shares_the_functions_resources(tmp_path):
    opened: list[str] = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[dict[str, str]]:
        opened.append("in")
        yield {"database": "the one"}
        opened.append("out")

    app = App("t", lifespan=lifespan)

    @app.function(Go)
    async def work(ctx: Context[Go]) -> bool:
        return ctx.resources is app.resources

    with pytest.raises(NotRunningError, match="app 't' has no resources here"):
        _ = app.resources
    async with app.running(store=f"sqlite:///{tmp_path / 'a.db'}"):
        assert app.resources == {"database": "the one"}
        assert await (await app.start(work, Go())).result(timeout=30)
    with pytest.raises(NotRunningError):
        _ = app.resources
    assert opened == ["in", "out"]


async def test_without_a_lifespan_there_are_none(tmp_path):
    app = App("t")
    async with app.running(store=f"sqlite:///{tmp_path / 'a.db'}"):
        with pytest.raises(NotRunningError):
            _ = app.resources


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_step_sends_a_typed_event_under_an_id(kind: str):
    app = App("t")
    seen: list[int] = []

    if kind == "async":

        @app.function(Go, id="work")
        async def work(ctx: Context[Go]) -> list[str]:
            return await ctx.step.send("tell", Next(n=ctx.event.data.n), id="next-7")
    else:

        @app.function(Go, id="work")
        def work(ctx: SyncContext[Go]) -> list[str]:
            return ctx.step.send("tell", Next(n=ctx.event.data.n), id="next-7")

    @app.function(Next, id="after")
    async def after(ctx: Context[Next]) -> None:
        seen.append(ctx.event.data.n)

    async with Harness(app) as h:
        for n in (1, 2):
            run = await h.finish(await h.start(work, {"n": n}))
            assert run.status == "COMPLETED"
        assert [run.id for run in await app.runs.of_event("next-7")]
    assert seen == [1], "the same id starts its function once"


@pytest.mark.parametrize(
    ("events", "event_id", "said"),
    [([Next(), Next()], "x", "sends 2 events with one id"), ([], "x", "sends 0 events"), (Next(), "", "an id is a non-empty string")],
)
async def test_an_id_that_can_not_be(events: Any, event_id: str, said: str):
    app = App("t")

    @app.function(Go)
    async def work(ctx: Context[Go]) -> None:
        await ctx.step.send("tell", events, id=event_id)

    async with Harness(app) as h:
        run = await h.finish(await h.start(work, {}))
    assert run.status == "FAILED"
    assert said in run.error.message
    assert "'tell'" in run.error.message
