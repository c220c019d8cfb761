"""Checkpointing: a chain of steps in one call, each recorded before the next, and what happens when the server refuses."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from protocol_server import START, Outcome

from holdfast import App, Backoff, ConfigurationError, Context, Event
from holdfast.serve.settings import ServeSettings

pytestmark = pytest.mark.anyio
KEY = "signkey-test-" + "0123456789abcdef" * 4


class Go(Event, name="k/go"):
    n: int = 0


async def run(server, fn) -> Outcome:
    return await asyncio.to_thread(server.run, fn.slug, {"name": "k/go", "data": {}})


def chain(app: App, notes: list[Any], *names: str, before: Any = None) -> Any:
    def note(name: str) -> str:
        if before is not None:
            before(name)
        notes.append(name)
        return name

    @app.function(Go, backoff=Backoff.constant("1s"))
    async def fn(ctx: Context[Go]) -> list[str]:
        return [await ctx.step.run(name, note, name) for name in names]

    return fn


def reported(server) -> list[list[str]]:
    return [[step["displayName"] for step in body["steps"]] for body in server.checkpoints]


async def test_a_chain_of_steps_is_one_call_and_each_is_recorded_before_the_next(protocol, served):
    app, notes = App("k"), []
    server = protocol()
    fn = chain(app, notes, "a", "b", "c", before=lambda name: notes.append([len(server.checkpoints), name]))
    served(app, server, checkpoint=True)
    outcome = await run(server, fn)
    assert (outcome.output, outcome.told) == (["a", "b", "c"], [["200"]])
    assert reported(server) == [["a"], ["b"], ["c"]]
    assert [note for note in notes if isinstance(note, list)] == [[0, "a"], [1, "b"], [2, "c"]]
    body = server.checkpoints[0]
    assert (body["qi_id"], body["request_id"], body["generation_id"], body["fn_id"]) == ("q1", "r1", 1, "f")
    assert server.functions[fn.slug]["checkpoint"] == {"batch_steps": 1}


async def test_reports_carry_the_signing_key(protocol, served):
    app = App("k")
    server = protocol(signing_key=KEY)
    fn = chain(app, [], "a", "b")
    served(app, server, checkpoint=True, dev=False, signing_key=KEY)
    assert (await run(server, fn)).told == [["200"]]
    assert reported(server) == [["a"], ["b"]]


async def test_batches(protocol, served):
    app = App("k")
    server = protocol()
    fn = chain(app, [], "a", "b", "c", "d", "e")
    served(app, server, checkpoint={"batch_steps": 2})
    assert (await run(server, fn)).told == [["200"]]
    assert reported(server) == [["a", "b"], ["c", "d"], ["e"]]


async def test_a_batch_does_not_wait_longer_than_its_interval(protocol, served):
    app = App("k")
    server = protocol()
    told = threading.Event()
    server.on_checkpoint = lambda body: told.set()
    fn = chain(app, [], "a", "b", before=lambda name: name == "a" or told.wait(20))
    served(app, server, checkpoint={"batch_steps": 10, "batch_interval": "10ms"})
    await run(server, fn)
    assert reported(server)[0] == ["a"]


async def test_what_comes_after_the_steps_is_reported_with_the_answer(protocol, served):
    app = App("k")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> str:
        await ctx.step.run("a", lambda: 1)
        await ctx.step.sleep("nap", "1h")
        await asyncio.gather(ctx.step.run("b", lambda: 1), ctx.step.run("c", lambda: 1))
        return await ctx.step.run("d", lambda: "d")

    server = protocol()
    served(app, server, checkpoint={"batch_steps": 5})
    outcome = await run(server, fn)
    assert outcome.output == "d"
    assert outcome.told == [["Sleep nap"], ["StepPlanned b", "StepPlanned c"], ["StepRun b"], ["StepRun c"], ["200"]]
    assert reported(server) == [["a"], ["d"]]


async def test_steps_the_server_does_not_take_come_with_the_answer(protocol, served, caplog):
    app, notes = App("k"), []
    server = protocol()
    server.on_checkpoint = lambda body: 400 if len(server.checkpoints) == 2 else None
    fn = chain(app, notes, "a", "b", "c")
    served(app, server, checkpoint=True)
    outcome = await run(server, fn)
    assert (outcome.output, outcome.told) == (["a", "b", "c"], [["StepRun b"], ["200"]])
    assert notes == ["a", "b", "c"]
    assert "the server refused 1 steps" in caplog.text


async def test_a_function_that_ends_with_unreported_steps_is_called_again(protocol, served):
    app, notes = App("k"), []
    server = protocol()
    server.on_checkpoint = lambda body: 413
    fn = chain(app, notes, "a", "b")
    served(app, server, checkpoint={"batch_steps": 5})
    outcome = await run(server, fn)
    assert (outcome.output, outcome.told) == (["a", "b"], [["StepRun a", "StepRun b"], ["200"]])
    assert notes == ["a", "b"]


async def test_a_call_whose_run_is_somebody_elses_stops(protocol, served):
    app, notes = App("k"), []
    server = protocol()
    server.on_checkpoint = lambda body: 409 if len(server.checkpoints) == 1 else None
    fn = chain(app, notes, "a", "b")
    served(app, server, checkpoint=True)
    outcome = await run(server, fn)
    assert outcome.told == [[], ["200"]]
    assert notes == ["a", "a", "b"]


async def test_a_long_call_is_followed_by_another(protocol, served):
    app, notes = App("k"), []
    server = protocol()
    fn = chain(app, notes, "a", "b", before=lambda name: time.sleep(0.01))
    served(app, server, checkpoint={"max_runtime": "5ms"})
    outcome = await run(server, fn)
    assert outcome.told == [["DiscoveryRequest"], ["DiscoveryRequest"], ["200"]]
    assert notes == ["a", "b"]


@pytest.mark.protocol("checkpoint.attempts")
async def test_attempts_are_counted_anew_after_a_recorded_step(protocol, served):
    app, tries = App("k"), []

    @app.function(Go, retries=1, backoff=Backoff.constant("1s"))
    async def fn(ctx: Context[Go]) -> str:
        def flaky(name: str) -> str:
            tries.append(name)
            if tries.count(name) == 1:
                raise ConnectionError("once")
            return name

        return await ctx.step.run("a", flaky, "a") + await ctx.step.run("b", flaky, "b")

    server = protocol()
    served(app, server, checkpoint=True)
    outcome = await run(server, fn)
    assert outcome.output == "ab"
    assert outcome.told == [["StepError a"], ["StepError b"], ["200"]]
    assert [(call.at - START) // 1000 for call in outcome.calls] == [0, 1, 2]


@pytest.mark.parametrize("bad", [{"batch": 1}, {"batch_steps": 0}, {"batch_steps": "3"}, {"max_runtime": "soon"}], ids=str)
def test_settings_that_can_not_be_used(bad):
    with pytest.raises(ConfigurationError):
        ServeSettings.of({}, checkpoint=bad)
