"""Functions made at random: whatever their shape, a run that leaves memory at every chance ends as one that never does."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import Any

import pytest

from holdfast import App, Backoff, Context, Event, StepError
from holdfast.compose import build_engine
from holdfast.engine.engine import EngineOptions

pytestmark = pytest.mark.anyio


class Go(Event, name="random/go"):
    seed: int


class Answer(Event, name="random/answer"):
    key: str


class Asked(Event, name="random/asked"):
    n: int


Program = list[Any]


def program(rng: random.Random, depth: int = 0) -> Program:
    """A tree of actions."""
    kinds = ["run", "fail", "flaky", "sleep", "wait", "invoke", "send", "catch"] + (["gather", "race", "loop"] if depth < 2 else [])
    out: Program = []
    for _ in range(rng.randint(1, 3)):
        kind = rng.choice(kinds)
        if kind in {"gather", "race"}:
            out.append((kind, [program(rng, depth + 1) for _ in range(rng.randint(2, 4))]))
        elif kind == "loop":
            out.append((kind, program(rng, depth + 1)))
        else:
            out.append((kind, rng.randint(0, 9)))
    return out


class Interpreter:
    """Executes a program on a context; what it returns depends on the order in which things came back."""

    def __init__(self, ctx: Context[Go], app: App, callee: Any, tries: dict[str, int]) -> None:
        self.ctx = ctx
        self.app = app
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
            await asyncio.sleep(n / 2000)
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
        if n > 1:
            return

        def body() -> None:
            raise LookupError(name)

        try:
            await self.ctx.step.options(retries=0).run(name, body)
        except StepError as error:
            self.trace.append(error.message)

    async def catch(self, name: str, n: int) -> None:
        await self.run(name, n)

    async def sleep(self, name: str, n: int) -> None:
        await self.ctx.step.sleep(name, timedelta(milliseconds=5 * n))

    async def wait(self, name: str, n: int) -> None:
        async def tell() -> None:
            await self.app.send(Answer(key=f"{self.ctx.run_id}{name}"))

        if n % 2:
            got = await self.ctx.step.wait_for_event(name, Answer, where={"key": "never"}, timeout=0.01)
            assert got is None
        else:
            await self.ctx.step.run(f"{name}-tell", tell)
            got = await self.ctx.step.wait_for_event(
                name, Answer, where={"key": f"{self.ctx.run_id}{name}"}, timeout=timedelta(days=1), since="run"
            )
            assert got is not None

    async def invoke(self, name: str, n: int) -> None:
        self.trace.append(str(await self.ctx.step.invoke(name, self.callee, Asked(n=n))))

    async def send(self, name: str, n: int) -> None:
        assert len(await self.ctx.step.send(name, [Asked(n=n)] * (n % 3))) == n % 3

    async def gather(self, name: str, branches: list[Program]) -> None:
        await asyncio.gather(*(self.execute(branch, f"{name}/{n}") for n, branch in enumerate(branches)))

    async def race(self, name: str, branches: list[Program]) -> None:
        calls = [self.ctx.step.sleep(f"{name}/{n}", timedelta(milliseconds=3 * n)) for n in range(len(branches))]
        await self.ctx.step.race(name, *calls)

    async def loop(self, name: str, branch: Program) -> None:
        for turn in range(2):
            await self.execute(branch, f"{name}#{turn}")


def app_of_programs() -> tuple[App, Any, list[tuple[int, list[str]]]]:
    app = App("random")
    executions: list[tuple[int, list[str]]] = []
    tries: dict[str, dict[str, int]] = {}

    @app.function(Asked)
    async def callee(ctx: Context[Asked]) -> int:
        await ctx.step.sleep("nap", timedelta(milliseconds=ctx.event.data.n))
        return ctx.event.data.n + 1

    @app.function(Go, retries=3, backoff=Backoff.constant(0.003))
    async def fn(ctx: Context[Go]) -> list[str]:
        seed = ctx.event.data.seed
        interpreter = Interpreter(ctx, app, callee, tries.setdefault(ctx.run_id, {}))
        executions.append((seed, interpreter.trace))
        await interpreter.execute(program(random.Random(seed)), "p")
        return interpreter.trace

    return app, fn, executions


async def play(path: Any, seeds: range, **options: Any) -> None:
    app, fn, executions = app_of_programs()
    async with build_engine([app], f"sqlite:///{path}", options=EngineOptions(**options)):
        handles = {seed: await app.start(fn, Go(seed=seed)) for seed in seeds}
        for seed, handle in handles.items():
            try:
                result = await handle.result(timeout=60)
            except Exception as error:
                raise AssertionError(f"seed {seed}: {program(random.Random(seed))}") from error
            for executed, trace in executions:
                if executed == seed:
                    # what an earlier life of the run saw, each later one sees again, in the same order
                    assert result[: len(trace)] == trace, f"seed {seed}: {program(random.Random(seed))}"


@pytest.mark.parametrize("first", range(0, 60, 20))
async def test_a_run_sees_the_same_in_every_life(tmp_path, first):
    await play(tmp_path / "parked.db", range(first, first + 20), linger_ms=0)


async def test_with_little_room_all_of_them_end(tmp_path):
    await play(tmp_path / "small.db", range(100, 140), linger_ms=0, capacity=3)


@pytest.mark.long
@pytest.mark.parametrize("first", range(1000, 3000, 100))
async def test_many_seeds(tmp_path, first):
    await play(tmp_path / "many.db", range(first, first + 100), linger_ms=0, capacity=50)
