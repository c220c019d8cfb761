"""R, B4: a preset as the retry policy of a durable function or step tries again what is transient, and nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast import App, Context, Event, RetryAfterError, RetryPresets, RunFailedError, StepTimeoutError
from holdfast.compose import build_engine
from holdfast.server.serve import serving
from holdfast.server.settings import ServerSettings
from holdfast.testing import Harness

pytestmark = pytest.mark.anyio
FAST = RetryPresets.ai_api.replace(first_delay=0.01, cap=0.02)


class Go(Event, name="test/go"):
    pass


class HttpError(Exception):
    """As HTTP clients raise it."""

    def __init__(self, status: int, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"the server answered {status}")
        self.status_code = status
        self.headers = headers or {}


TRANSIENT = [HttpError(503), HttpError(429), ConnectionResetError("reset"), StepTimeoutError("too long"), RetryAfterError("later", 1)]
LASTING = [HttpError(404), HttpError(401), ValueError("no price"), KeyError("title"), HttpError(503, {"Retry-After": "3600"})]


def failing(error: Exception, **settings: Any) -> tuple[App, Any, list[int]]:
    app, tries = App("t"), []
    step_retries = settings.pop("step_retries", None)

    @app.function(Go, **settings)
    async def work(ctx: Context[Go]) -> None:
        async def ask() -> None:
            tries.append(1)
            raise error

        step = ctx.step if step_retries is None else ctx.step.options(retries=step_retries)
        await step.run("ask", ask)

    return app, work, tries


async def tried(error: Exception, **settings: Any) -> int:
    """How often a step is tried that always fails so."""
    app, work, tries = failing(error, **settings)
    async with Harness(app) as h:
        run = await h.finish(await h.start(work, {}))
        assert run.status == "FAILED"
        assert run.error.name == type(error).__name__
    return len(tries)


@pytest.mark.parametrize("settings", [{"retries": RetryPresets.scraper}, {"step_retries": RetryPresets.scraper}], ids=["function", "step"])
class TestAPreset:
    @pytest.mark.parametrize("error", TRANSIENT, ids=repr)
    async def test_what_is_transient_is_tried_as_often_as_it_says(self, error: Exception, settings: dict[str, Any]):
        assert await tried(error, **settings) == RetryPresets.scraper.attempts

    @pytest.mark.parametrize("error", LASTING, ids=repr)
    async def test_anything_else_fails_at_once(self, error: Exception, settings: dict[str, Any]):
        assert await tried(error, **settings) == 1


async def test_all_errors_are_tried_again_where_that_is_wanted():
    assert await tried(ValueError("x"), retries=RetryPresets.scraper.replace(transient_only=False)) == 3


async def test_as_backoff_a_preset_is_only_delays():
    assert await tried(ValueError("x"), retries=2, backoff=RetryPresets.scraper) == 3


async def test_a_steps_own_number_or_preset_stands_before_the_functions():
    assert await tried(ValueError("x"), retries=RetryPresets.scraper, step_retries=3) == 1, "the function's preset still says what"
    assert await tried(ValueError("x"), retries=4, step_retries=RetryPresets.scraper) == 1
    assert await tried(HttpError(503), retries=0, step_retries=RetryPresets.scraper) == 3


async def test_retry_after_lengthens_the_wait():
    app, work, tries = failing(HttpError(503, {"Retry-After": "50"}), retries=RetryPresets.scraper)
    async with Harness(app) as h:
        began = h.clock.now()
        run = await h.finish(await h.start(work, {}))
        assert h.clock.now() - began >= 100_000
    assert (len(tries), run.status) == (3, "FAILED")


async def test_errors_of_the_function_itself_follow_it_too():
    app, tries = App("t"), []

    @app.function(Go, retries=RetryPresets.scraper)
    async def work(ctx: Context[Go]) -> None:
        tries.append(1)
        raise HttpError(503) if len(tries) < 2 else HttpError(404)

    async with Harness(app) as h:
        run = await h.finish(await h.start(work, {}))
    assert (run.status, len(tries)) == ("FAILED", 2)


@pytest.mark.parametrize("error", [HttpError(404), HttpError(503)], ids=repr)
async def test_it_is_the_same_over_http(error: Exception, served_by: Any, tmp_path: Any):
    app, _, tries = failing(error, retries=FAST)
    hub = App("hub")
    engine = build_engine([hub], f"sqlite:///{tmp_path / 'a.db'}")
    async with engine, serving(engine, ServerSettings(port=0)) as where:
        await asyncio.to_thread(served_by, app, f"http://127.0.0.1:{where.port}")
        sent = await hub.send({"name": "test/go", "data": {}})
        (handle,) = await hub.runs.of_event(sent.id)
        with pytest.raises(RunFailedError, match="at step 'ask': HttpError"):
            await handle.result(timeout=60)
    assert len(tries) == (1 if error.status_code == 404 else 3)
