"""Functions made at random: whatever their shape and whatever order their steps finish in, every call sees what the last one saw.

The handler is asked directly, by the scripted server, which takes what is due in an order of its own.
"""

from __future__ import annotations

import asyncio
import json
import random
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from protocol_server import Run

from holdfast import App, Backoff, Context, Event, StepError
from holdfast.base.ids import ulid_bytes
from holdfast.sdk.sender import Sent
from holdfast.serve.handler import ServeHandler
from holdfast.serve.http import Request
from holdfast.serve.settings import ServeSettings

URL = "http://x/api/inngest"
Program = list[Any]


class Go(Event, name="random/go"):
    seed: int


class Asked(Event, name="random/asked"):
    n: int


class Accepts:
    async def send(self, events):
        return [Sent(ulid_bytes("01JABCDEFGHJKMNPQRSTVWXYZ0")) for _ in events]


def program(rng: random.Random, depth: int = 0) -> Program:
    kinds = ["run", "fail", "flaky", "sleep", "wait", "invoke", "send", "now", "io"] + (["gather", "group", "race", "loop"] if depth < 2 else [])
    out: Program = []
    for _ in range(rng.randint(1, 3)):
        kind = rng.choice(kinds)
        if kind in {"gather", "group", "race"}:
            out.append((kind, [program(rng, depth + 1) for _ in range(rng.randint(2, 4))]))
        elif kind == "loop":
            out.append((kind, program(rng, depth + 1)))
        else:
            out.append((kind, rng.randint(0, 9)))
    return out


class Interpreter:
    """Executes a program; what it returns depends on the order in which things came back."""

    def __init__(self, ctx: Context[Go], callee: Any, tries: dict[str, int]) -> None:
        self.ctx = ctx
        self.callee = callee
        self.tries = tries
        self.trace: list[str] = []

    async def execute(self, actions: Program, path: str) -> None:
        for index, (kind, argument) in enumerate(actions):
            name = f"{path}.{index}{kind}"
            await getattr(self, kind)(name, argument)
            self.trace.append(name)

    async def run(self, name: str, n: int) -> None:
        async def body() -> int:
            for _ in range(n):
                await asyncio.sleep(0)
            self.tries[f"done {name}"] = self.tries.get(f"done {name}", 0) + 1
            return n

        self.trace.append(str(await self.ctx.step.run(name, body)))

    async def flaky(self, name: str, n: int) -> None:
        def body() -> int:
            self.tries[name] = self.tries.get(name, 0) + 1
            if self.tries[name] % 2:
                raise OSError("once")
            return n

        self.trace.append(str(await self.ctx.step.run(name, body)))

    async def fail(self, name: str, n: int) -> None:
        def body() -> None:
            raise LookupError(name)

        try:
            await self.ctx.step.options(retries=0).run(name, body)
        except StepError as error:
            self.trace.append(error.message)

    async def now(self, name: str, n: int) -> None:
        self.trace.append((await self.ctx.step.run(name, lambda: "moment")))

    async def io(self, name: str, n: int) -> None:
        for _ in range(n):
            await asyncio.sleep(0)

    async def sleep(self, name: str, n: int) -> None:
        await self.ctx.step.sleep(name, timedelta(seconds=n))

    async def wait(self, name: str, n: int) -> None:
        assert await self.ctx.step.wait_for_event(name, "random/never", timeout=timedelta(seconds=n + 1)) is None

    async def invoke(self, name: str, n: int) -> None:
        self.trace.append(str(await self.ctx.step.invoke(name, self.callee, Asked(n=n))))

    async def send(self, name: str, n: int) -> None:
        assert len(await self.ctx.step.send(name, [Asked(n=n)] * (n % 3 + 1))) == n % 3 + 1

    async def gather(self, name: str, branches: list[Program]) -> None:
        await asyncio.gather(*(self.execute(branch, f"{name}/{n}") for n, branch in enumerate(branches)))

    async def group(self, name: str, branches: list[Program]) -> None:
        async with asyncio.TaskGroup() as group:
            for n, branch in enumerate(branches):
                group.create_task(self.execute(branch, f"{name}/{n}"))

    async def race(self, name: str, branches: list[Program]) -> None:
        calls: list[Any] = [self.ctx.step.sleep(f"{name}/{n}", timedelta(seconds=3 * n)) for n in range(len(branches))]
        calls.append(self.ctx.step.run(f"{name}/body", lambda: "ran"))
        self.trace.append(str(await self.ctx.step.race(name, *calls)))

    async def loop(self, name: str, branch: Program) -> None:
        for turn in range(2):
            await self.execute(branch, f"{name}#{turn}")


class Local:
    """The scripted server's surroundings, with the handler asked directly."""

    replies: list[Any] = []
    use_api = False
    signing_key = None

    def __init__(self, app: App, rng: random.Random, checkpoint: Any) -> None:
        self.handler = ServeHandler(app, ServeSettings.of({}, dev=True, checkpoint=checkpoint), "local")
        self.loop = asyncio.new_event_loop()
        self.rng = rng
        self.runs: dict[str, Run] = {}
        self.state: dict[str, Any] = {}
        self.functions = {f["id"]: f for f in self.ask("PUT", URL, headers={"x-inngest-sync-kind": "in_band"})[2]["functions"]}
        self.handler.client.post = self.checkpoint  # type: ignore[method-assign]

    async def checkpoint(self, path: str, body: bytes) -> Any:
        from holdfast.serve.client import ServerAnswer

        report = json.loads(body)
        if self.rng.random() < 0.1:
            return ServerAnswer(413, b"{}")
        self.runs[report["run_id"]].checkpoint(report["steps"])
        return ServerAnswer(200, b"{}")

    def ask(self, method: str, url: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], Any]:
        raw = b"" if body is None else json.dumps(body).encode()
        query = dict(parse_qsl(urlsplit(url).query))
        sent = {name.lower(): value for name, value in (headers or {}).items()}
        answer = self.loop.run_until_complete(self.handler.handle(Request(method, URL, query, sent, raw)))
        return answer.status, answer.headers, json.loads(answer.body)

    def run(self, slug: str, event: dict[str, Any]) -> Any:
        run = Run(self, slug, event)  # type: ignore[arg-type]
        run.order = iter(self.rng.random, None)  # type: ignore[assignment]
        run.limit = 3000
        return run.drive()

    def close(self) -> None:
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


def play(seed: int, checkpoint: Any) -> None:
    app = App("random")
    app.bind(Accepts())
    executions: list[list[str]] = []
    tries: dict[str, int] = {}

    @app.function(Asked)
    async def callee(ctx: Context[Asked]) -> int:
        await ctx.step.sleep("nap", timedelta(seconds=ctx.event.data.n))
        return ctx.event.data.n + 1

    @app.function(Go, retries=3, backoff=Backoff.constant(1))
    async def fn(ctx: Context[Go]) -> list[str]:
        interpreter = Interpreter(ctx, callee, tries)
        executions.append(interpreter.trace)
        await interpreter.execute(program(random.Random(seed)), "p")
        return interpreter.trace

    local = Local(app, random.Random(seed), checkpoint)
    try:
        outcome = local.run(fn.slug, {"name": "random/go", "data": {"seed": seed}})
    finally:
        local.close()
    about = f"seed {seed}: {program(random.Random(seed))}"
    assert outcome.status == "COMPLETED", f"{about}\n{outcome.output}"
    for trace in executions:
        assert outcome.output[: len(trace)] == trace, about
    assert all(count == 1 for name, count in tries.items() if name.startswith("done ")), about


@pytest.mark.parametrize("checkpoint", [False, True, {"batch_steps": 3}], ids=["a step a call", "checkpoints", "batches"])
@pytest.mark.parametrize("first", [0, pytest.param(20, marks=pytest.mark.slow), pytest.param(40, marks=pytest.mark.slow)])
def test_every_call_sees_what_the_last_one_saw(first: int, checkpoint: Any) -> None:
    for seed in range(first, first + 20):
        play(seed, checkpoint)


@pytest.mark.long
@pytest.mark.parametrize("first", range(1000, 3000, 100))
def test_many_seeds(first: int) -> None:
    for seed in range(first, first + 100):
        play(seed, [False, True, {"batch_steps": 3}][seed % 3])
