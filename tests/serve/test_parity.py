"""P10: the same functions give the same result in process and over HTTP: values, errors, what they did and what they sent."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from parity_functions import CASES, Case

from holdfast import App
from holdfast.base.ids import ulid_bytes
from holdfast.cli.worker_calls import Inline
from holdfast.core.rows import RunRow
from holdfast.server.serve import serving
from holdfast.server.settings import ServerSettings
from holdfast.testing import Harness

pytestmark = pytest.mark.anyio
EVENT = {"n": 7}
BEFORE_REPLIES = {"plain_def": "90m"}
"""How long a function takes until it waits for what is to come in."""


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
        # events of one moment have no order of their own
        assert sorted(sent, key=repr) == sorted(case.sent, key=repr)


async def tell(h: Harness, app: App, case: Case) -> None:
    for reply in case.replies:
        await h.send(reply)
    for name, data in case.signals:
        await app.send_signal(name, data)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_in_process(case: Case) -> None:
    app, notes = App("par"), []
    fn = case.define(app, notes)
    async with Harness(app, start=datetime(2030, 1, 1, tzinfo=UTC)) as h:
        run = await h.start(fn, EVENT)
        if case.replies:
            await h.settle(within=BEFORE_REPLIES.get(case.name, 0))
        await tell(h, app, case)
        run = await h.finish(run)
        error = None if run.error is None else (run.error.name, run.error.message)
        sent = [{"name": e.name, "data": e.data} for e in await h.events() if e.source_run == run.id and not e.name.startswith("inngest/")]
        check(case, notes, run.status, run.output_json if hasattr(run, "output_json") else run.output, error, sent)


@pytest.mark.parametrize(
    "checkpoint",
    [False, pytest.param(True, marks=pytest.mark.slow), pytest.param({"batch_steps": 3}, marks=pytest.mark.slow)],
    ids=["a step a call", "checkpoints", "batches"],
)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_over_http(case: Case, checkpoint: Any, protocol, served) -> None:
    app, notes = App("par"), []
    fn = case.define(app, notes)
    server = protocol(replies=case.replies, signals=case.signals)
    served(app, server, checkpoint=checkpoint)
    outcome = await asyncio.to_thread(server.run, fn.slug, {"name": "par/go", "data": EVENT})
    error = (outcome.output["name"], outcome.output["message"]) if outcome.status == "FAILED" else None
    check(case, notes, outcome.status, outcome.output, error, [{"name": e["name"], "data": e["data"]} for e in server.sent])


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_over_http_by_holdfasts_own_server(case: Case, served_by) -> None:
    app, notes = App("par"), []
    fn = case.define(app, notes)
    hub = App("hub")
    async with (
        Harness(hub, start=datetime(2030, 1, 1, tzinfo=UTC)) as h,
        serving(h.engine, ServerSettings(port=0)) as where,
    ):
        await asyncio.to_thread(served_by, app, f"http://127.0.0.1:{where.port}")
        sent = await h.send({"name": fn.triggers[0].event, "data": EVENT})
        runs = await h.engine.reader.event_runs(sent.id)
        run_id = next(run.id for run in runs if run.function == fn.slug)
        if case.replies:
            await h.settle(within=BEFORE_REPLIES.get(case.name, 0))
        await tell(h, hub, case)
        run = await h.finish(await h._read(run_id))
        error = None if run.error is None else (run.error.name, run.error.message)
        posted = [{"name": e.name, "data": e.data} for e in await h.events() if e.id != sent.id and not e.name.startswith("inngest/")]
        check(case, notes, run.status, run.output, error, [e for e in posted if e not in case.replies])


class Employed(Inline):
    take_new = True


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_by_a_worker(case: Case) -> None:
    """As `--workers` has it: the node's own functions, executed by calls. Where the executor's process is makes no difference."""
    app, notes = App("par"), []
    fn = case.define(app, notes)
    async with Harness(app, start=datetime(2030, 1, 1, tzinfo=UTC)) as h:
        workers = h.engine.driver.workers = Employed([app], h.engine)
        h.engine.intake.remote.update(one.id for one in h.engine.functions.values())
        run = await h.start(fn, EVENT)
        if case.replies:
            await h.settle(within=BEFORE_REPLIES.get(case.name, 0))
        await tell(h, app, case)
        run = await h.finish(run)
        assert (await h.engine.store.read([(RunRow, ulid_bytes(run.id))])).get(RunRow, ulid_bytes(run.id)).remote is not None
        error = None if run.error is None else (run.error.name, run.error.message)
        sent = [{"name": e.name, "data": e.data} for e in await h.events() if e.source_run == run.id and not e.name.startswith("inngest/")]
        await workers.close()
        posted = [{"name": e.name, "data": e.data} for e in await h.events() if not e.name.startswith(("inngest/", "par/go"))]
        check(case, notes, run.status, run.output, error, sent or [e for e in posted if e not in case.replies])
