"""Steps that an SDK reports while its call goes on: what is recorded of them, and what is refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from scripted_sdk import ScriptedSdk, op, scripted_sdk, step_hash
from server_kit import Running, Start

pytestmark = pytest.mark.anyio


@dataclass
class Held:
    """A function whose first call is held until the test lets it go."""

    called: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    calls: list[dict[str, Any]] = field(default_factory=list)
    answer: Any = None

    def __call__(self, call: dict[str, Any], step: str) -> Any:
        self.calls.append(call)
        if len(self.calls) == 1:
            self.called.set()
            assert self.go_on.wait(60)
        return self.answer(call) if callable(self.answer) else self.answer


@pytest.fixture
def held() -> Iterator[Held]:
    made = Held()
    yield made
    made.go_on.set()


async def begun(server: Running, sdk: ScriptedSdk, held: Held) -> dict[str, Any]:
    """A run whose call is under way; the call."""
    sdk.server_url = str(server.http.base_url).rstrip("/")
    assert (await server.http.post("/fn/register", json=sdk.document())).status_code == 200
    await server.http.post("/e/k", json={"name": "remote/work"})
    assert await asyncio.to_thread(held.called.wait, 60)
    return held.calls[0]


async def report(server: Running, call: dict[str, Any], *steps: dict[str, Any], **fields: Any) -> Any:
    ctx = call["ctx"]
    body = {"run_id": ctx["run_id"], "fn_id": ctx["fn_id"], "qi_id": ctx["qi_id"], "steps": steps, "ts": 1, **fields}
    return await server.http.post(f"/v1/checkpoint/{ctx['run_id']}/async", json=body)


async def steps_of(server: Running, call: dict[str, Any]) -> dict[str, str]:
    answer = await server.http.get(f"/v1/runs/{call['ctx']['run_id']}/steps")
    return {one["name"]: one["state"] for one in answer.json()["data"]["steps"]}


@pytest.mark.protocol("checkpoint.async")
async def test_a_step_that_takes_long_is_shown_while_it_is_executed(start: Start, held: Held):
    held.answer = "over"
    async with start() as server:
        with scripted_sdk("remote", {"work": held}) as sdk:
            call = await begun(server, sdk, held)
            assert (await report(server, call, op("StepPlanned", "slow"))).status_code == 200
            assert await steps_of(server, call) == {"slow": "pending"}
            assert (await report(server, call, op("StepRun", "slow", data=1))).status_code == 200
            assert (await report(server, call, op("StepPlanned", "slow"))).status_code == 200, "late, and of no effect"
            assert await steps_of(server, call) == {"slow": "done"}
            held.go_on.set()
            assert await server.ended(call["ctx"]["run_id"]) == "Completed"
            assert len(held.calls) == 1


@pytest.mark.protocol("checkpoint.async")
async def test_what_was_reported_is_not_executed_again(start: Start, held: Held):
    """The SDK didn't hear that its report was taken, and answers with the same steps."""
    held.answer = lambda call: [op("StepRun", "a", data="again")] if not call["steps"] else "over"
    async with start() as server:
        with scripted_sdk("remote", {"work": held}) as sdk:
            call = await begun(server, sdk, held)
            for _ in range(3):
                assert (await report(server, call, op("StepRun", "a", data="first"))).status_code == 200
            held.go_on.set()
            assert await server.ended(call["ctx"]["run_id"]) == "Completed"
            assert held.calls[1]["steps"] == {step_hash("a"): {"data": "first"}}
            assert len(held.calls) == 2


@pytest.mark.protocol("checkpoint.stale")
async def test_a_call_that_does_not_count_any_more_is_told_so(start: Start, held: Held):
    held.answer = "over"
    async with start() as server:
        with scripted_sdk("remote", {"work": held}) as sdk:
            call = await begun(server, sdk, held)
            for wrong in ({"generation_id": 7}, {"qi_id": "00" * 16}, {"qi_id": "no hex"}):
                refused = await report(server, call, op("StepRun", "a", data=1), **wrong)
                assert (refused.status_code, refused.json()["code"]) == (409, "stale_dispatch")
            assert await steps_of(server, call) == {}
            held.go_on.set()
            assert await server.ended(call["ctx"]["run_id"]) == "Completed"
            late = await report(server, call, op("StepRun", "a", data=1))
            assert late.status_code == 409


@pytest.mark.protocol("checkpoint.async")
async def test_what_moves_a_run_elsewhere_is_no_report(start: Start, held: Held):
    held.answer = "over"
    async with start() as server:
        with scripted_sdk("remote", {"work": held}) as sdk:
            call = await begun(server, sdk, held)
            for strange in (op("Sleep", "nap", opts={"duration": "1s"}), op("Nonsense", "x"), {"op": "RunComplete", "id": step_hash("complete")}):
                refused = await report(server, call, strange)
                assert (refused.status_code, refused.json()["code"]) == (400, "checkpoint_invalid"), strange
            held.go_on.set()
            assert await server.ended(call["ctx"]["run_id"]) == "Completed"


async def test_a_call_that_outlasts_the_stop_is_broken_off(start: Start, held: Held):
    held.answer = "over"
    async with start() as server:
        with scripted_sdk("remote", {"work": held}) as sdk:
            await begun(server, sdk, held)
            await server.engine.stop(drain_seconds=0.1)
            driver = server.engine.driver
            assert (driver.in_flight, driver._session.closed) == (0, True)
            held.go_on.set()
