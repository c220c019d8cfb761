"""Lines of `ctx.logger` in a function that is called over HTTP: on the run's page, as if it had been executed there."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast import App, Context, Event, Secret, SyncContext
from holdfast.base.masks import MASKED
from holdfast.compose import build_engine
from holdfast.server.serve import serving
from holdfast.server.settings import ServerSettings
from holdfast.wire.metadata import LogValues, MAX_REPORT_BYTES, decode_metadata, encode_reports, lines_said, progress_said

pytestmark = pytest.mark.anyio
LINES = [
    ("info", "begin", None), ("info", "in one", "one"), ("info", "in a", "a"), ("info", "in b", "b"),
    ("warning", f"the token is {MASKED}", None), ("error", "100% done", None),
]  # fmt: skip


class Go(Event, name="far/go"):
    token: Secret = Secret("hidden-token")


def make_app(kind: str) -> App:
    app = App("far", retries=0)

    if kind == "async":

        @app.function(Go, id="work")
        async def work(ctx: Context[Go]) -> str:
            log = ctx.logger
            log.info("begin")
            await ctx.step.run("one", lambda: log.info("in one"))
            await ctx.step.sleep("nap", 0.1)
            await asyncio.gather(ctx.step.run("a", lambda: log.info("in %s", "a")), ctx.step.run("b", lambda: log.info("in b")))
            log.warning("the token is %s", ctx.event.data.token.get_secret_value())
            log.error("100% done")
            return "done"
    else:

        @app.function(Go, id="work")
        def work(ctx: SyncContext[Go]) -> str:
            log = ctx.logger
            log.info("begin")
            ctx.step.run("one", lambda: log.info("in one"))
            ctx.step.sleep("nap", 0.1)
            ctx.step.run("a", lambda: log.info("in %s", "a"))
            ctx.step.run("b", lambda: log.info("in b"))
            log.warning("the token is %s", ctx.event.data.token.get_secret_value())
            log.error("100% done")
            return "done"

    return app


async def lines_of(engine: Any, run_id: str) -> list[tuple[str, str, str | None]]:
    detail = await engine.reader.run(run_id)
    return [(line.level, line.message, line.step) for line in detail.logs]


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize("where", ["in process", "over http"])
async def test_each_line_is_on_the_page_once(kind, where, served_by, tmp_path):
    app, hub = make_app(kind), App("hub")
    here = where == "in process"
    engine = build_engine([hub, app] if here else [hub], f"sqlite:///{tmp_path / 'far.db'}")
    async with engine, serving(engine, ServerSettings(port=0)) as server:
        if not here:
            await asyncio.to_thread(served_by, app, f"http://127.0.0.1:{server.port}")
        sent = await hub.send({"name": "far/go", "data": {"token": "hidden-token"}})
        (handle,) = await hub.runs.of_event(sent.id)
        assert await handle.result(timeout=60) == "done"
        lines = await lines_of(engine, handle.id)
    assert sorted(lines[2:4]) == LINES[2:4]
    assert lines[:2] + lines[4:] == LINES[:2] + LINES[4:]


async def test_a_server_that_shows_no_lines_is_not_told_any(protocol, served):
    app = make_app("async")
    server = protocol()
    served(app, server)
    outcome = await asyncio.to_thread(server.run, app.functions["work"].slug, {"name": "far/go", "data": {"token": "t"}})
    assert outcome.status == "COMPLETED"
    assert not [path for _, path, _ in server.requests if path.endswith("/metadata")]


async def test_any_number_of_lines_of_any_length_fits():
    lines = [LogValues(n, 20, "\x00" * 10_000 if n % 5 == 0 else f"line {n}", "step") for n in range(100)]
    bodies = list(encode_reports((0.5, "half"), lines))
    assert len(bodies) > 10
    assert all(len(body) <= MAX_REPORT_BYTES for body in bodies)
    reports = [decode_metadata(body) for body in bodies]
    assert [line for report in reports for line in lines_said(report)] == lines
    assert [(said.fraction, said.text) for report in reports if (said := progress_said(report))] == [(0.5, "half")]
    assert list(encode_reports(None, [])) == []
