"""Runs of durable endpoints, as the store keeps them: on every store there is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast import App
from holdfast.base.ids import step_hash, ulid_text
from holdfast.core.plan import DUPLICATE
from holdfast.engine.engine import Engine
from holdfast.wire.endpoints import NewRun, decode_new_run
from holdfast.wire.opcodes import Op, Opcode

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def new_run(engine: Engine, *, event_id: str | None = None) -> tuple[NewRun, bytes]:
    run_id = engine.ids.new(engine.clock.now())
    data = {"domain": "http://127.0.0.1:9", "path": "/pay", "method": "GET"}
    body = {"run_id": ulid_text(run_id), "event": {"data": data}, "idempotency": event_id, "request_version": 2, "retries": 0}
    return decode_new_run(json.dumps(body).encode()), run_id


def step(op: Op, name: str, data: Any = None, **opts: Any) -> Opcode:
    from msgspec import Raw, json as raw

    return Opcode(op, step_hash(name), name, opts or None, Raw(raw.encode(data)), display_name=name)


async def test_steps_are_recorded_until_the_run_completes(engine_for):
    async with engine_for(App("shop")) as engine:
        new, run_id = new_run(engine, event_id="one")
        await engine.endpoints.begin(new, run_id, "js:v4")
        assert await engine.endpoints.report(run_id, [step(Op.STEP_RUN, "a", 1)], goes_on=False)
        assert await engine.endpoints.report(run_id, [step(Op.STEP_RUN, "a", 2), step(Op.STEP_RUN, "b", 3)], goes_on=False)
        again, other_id = new_run(engine, event_id="one")
        assert await engine.endpoints.begin(again, other_id, "js:v4") == DUPLICATE
        assert await engine.endpoints.begin(new, run_id, "js:v4") == DUPLICATE
        assert await engine.endpoints.report(run_id, [Opcode(Op.RUN_COMPLETE, step_hash("complete"), data=b'"over"')], goes_on=False)
        assert await engine.control.result(ulid_text(run_id), 30) == b'"over"'
        detail = await engine.reader.run(ulid_text(run_id))
        assert [(one.name, one.data) for one in detail.steps if one.name] == [("a", b"1"), ("b", b"3")]
        assert not await engine.endpoints.report(run_id, [step(Op.STEP_RUN, "late")], goes_on=False)


async def test_a_run_that_left_its_request_takes_no_reports(engine_for):
    async with engine_for(App("shop")) as engine:
        new, run_id = new_run(engine)
        await engine.endpoints.begin(new, run_id, "js:v4")
        sleep = step(Op.SLEEP, "nap", duration="1h")
        assert await engine.endpoints.report(run_id, [step(Op.STEP_RUN, "a", 1), sleep], goes_on=False)
        await engine.endpoints.report(run_id, [step(Op.STEP_RUN, "late", 1)], goes_on=False)
        detail = await engine.reader.run(ulid_text(run_id))
        assert [one.name for one in detail.steps if one.name] == ["a", "nap"]
        assert await engine.cancel(ulid_text(run_id))


async def test_a_run_outlives_its_server(engine_for):
    async with engine_for(App("shop")) as engine:
        new, run_id = new_run(engine)
        await engine.endpoints.begin(new, run_id, "js:v4")
        await engine.endpoints.report(run_id, [step(Op.STEP_RUN, "a", 1)], goes_on=False)
    async with engine_for(App("shop")) as engine:
        assert await engine.endpoints.report(run_id, [step(Op.STEP_RUN, "b", 2)], goes_on=False)
        await engine.endpoints.report(run_id, [Opcode(Op.RUN_COMPLETE, step_hash("complete"), data=b"2")], goes_on=False)
        assert await engine.control.result(ulid_text(run_id), 30) == b"2"
