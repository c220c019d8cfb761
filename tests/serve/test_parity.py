"""The same functions give the same result in process and over HTTP: values, errors, what they did and what they sent."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from parity_functions import CASES, Case

from holdfast import App
from holdfast.testing import Harness

pytestmark = pytest.mark.anyio
EVENT = {"n": 7}


def check(case: Case, notes: list[Any], status: str, output: Any, error: tuple[str, str] | None, sent: list[dict[str, Any]]) -> None:
    if case.error is None:
        assert (status, output, error) == ("COMPLETED", case.output, None)
    else:
        assert status == "FAILED"
        assert error is not None
        assert error[0] == case.error[0]
        assert error[1].startswith(case.error[1])
    if case.notes is not None:
        assert notes == case.notes
    if case.sent:
        assert sent == case.sent


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_in_process(case: Case) -> None:
    app, notes = App("par"), []
    fn = case.define(app, notes)
    async with Harness(app, start=datetime(2030, 1, 1, tzinfo=UTC)) as h:
        run = await h.start(fn, EVENT)
        if case.replies:
            await h.settle(within="90m" if case.name == "plain_def" else 0)
        for reply in case.replies:
            await h.send(reply)
        run = await h.finish(run)
        error = None if run.error is None else (run.error.name, run.error.message)
        sent = [{"name": e.name, "data": e.data} for e in await h.events() if e.source_run == run.id and not e.name.startswith("inngest/")]
        check(case, notes, run.status, run.output_json if hasattr(run, "output_json") else run.output, error, sent)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_over_http(case: Case, protocol, served) -> None:
    app, notes = App("par"), []
    fn = case.define(app, notes)
    server = protocol(replies=case.replies)
    served(app, server)
    outcome = await asyncio.to_thread(server.run, fn.slug, {"name": "par/go", "data": EVENT})
    error = (outcome.output["name"], outcome.output["message"]) if outcome.status == "FAILED" else None
    check(case, notes, outcome.status, outcome.output, error, [{"name": e["name"], "data": e["data"]} for e in server.sent])
