"""What the dashboard's tests share: an app whose steps the test lets go, and an engine and server on a thread of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
from holdfast import App, Backoff, Context, Cron, CronTick, Event, NonRetriableError
from holdfast.compose import build_engine
from holdfast.engine.engine import Engine
from holdfast.server.serve import serving
from holdfast.server.settings import ServerSettings
from holdfast.store.reads import RunDetail, RunView, StepView

T = TypeVar("T")

LONG_ID = "a" * 190 + "-to-the-end"
LONG_EVENT = "long/" + "x" * 195
LONG_STEP = "s" * 200
EVIL = "<script>document.title='owned'</script>"
BIG_NUMBER = 123456789012345678901234567890


class OrderPaid(Event, name="shop/order.paid"):
    order_id: str
    amount: int = 5


class OrderShipped(Event, name="shop/order.shipped"):
    order_id: str


class World:
    """What step bodies look at, so that a test decides how they go."""

    def __init__(self) -> None:
        self.gates: dict[str, asyncio.Event] = {}
        self.tries: dict[str, int] = {}
        self.healed = False

    def gate(self, name: str) -> asyncio.Event:
        return self.gates.setdefault(name, asyncio.Event())


def make_app(world: World) -> App:
    app = App("shop")

    async def held(name: str) -> str:
        await world.gate(name).wait()
        return f"let go: {name}"

    async def numbered(i: int) -> dict[str, Any]:
        return {"i": i, "text": "lorem ipsum " * 20}

    async def charge(order_id: str) -> dict[str, Any]:
        world.tries[order_id] = world.tries.get(order_id, 0) + 1
        if order_id.startswith("flaky") and world.tries[order_id] < 3:
            raise ConnectionError("the payment provider reset the connection")
        if order_id == "declined" and not world.healed:
            raise NonRetriableError("card declined")
        if order_id == "later":
            raise TimeoutError("the payment provider did not answer")
        return {"charge": f"charge-{order_id}", "big": BIG_NUMBER}

    @app.function("shop/receipt.wanted", id="make-receipt")
    async def make_receipt(ctx: Context[Any]) -> str:
        return f"receipt for {ctx.event.data.get('order_id')}"

    @app.function(OrderPaid, id="fulfil", name="Fulfil order", retries=2, backoff=Backoff.exponential(base=0.02, factor=1, jitter="none"))
    async def fulfil(ctx: Context[OrderPaid]) -> str:
        order = ctx.event.data
        ctx.logger.info("fulfilling %s", order.order_id)
        step = ctx.step.options(backoff=Backoff.constant(3600)) if order.order_id == "later" else ctx.step
        await ctx.step.run("reserve", numbered, 1)
        await step.run("charge", charge, order.order_id)
        shipped = await ctx.step.wait_for_event("shipped", OrderShipped, where={"order_id": order.order_id}, timeout="7d")
        if shipped is None:
            return "never shipped"
        return await ctx.step.invoke("receipt", make_receipt, {"order_id": order.order_id})

    @app.function("test/hello", id="greet")
    async def greet(ctx: Context[Any]) -> dict[str, Any]:
        await ctx.step.run("say", numbered, 0)
        return {"greeting": "hello", "big": BIG_NUMBER}

    @app.function("test/hold", id="hold-on")
    async def hold_on(ctx: Context[Any]) -> str:
        return await ctx.step.run("held step", held, ctx.event.data["gate"])

    @app.function("test/tell", id="telling")
    async def telling(ctx: Context[Any]) -> str:
        async def body(gate: str) -> str:
            ctx.progress(0.4, "images <b>")
            return await held(gate)

        return await ctx.step.run("told step", body, ctx.event.data["gate"])

    @app.function("test/sleep", id="sleeper")
    async def sleeper(ctx: Context[Any]) -> None:
        await ctx.step.sleep("thirty days", "30d")

    @app.function("test/many", id="many-steps")
    async def many_steps(ctx: Context[Any]) -> int:
        for i in range(1000):
            await ctx.step.run(f"step-{i:04d}", numbered, i)
        return 1000

    @app.function(LONG_EVENT, id=LONG_ID, name=LONG_ID)
    async def long_named(ctx: Context[Any]) -> None:
        await ctx.step.run(LONG_STEP, numbered, 1)
        raise NonRetriableError("e" * 600)

    @app.function(EVIL, id="evil", name=EVIL)
    async def evil(ctx: Context[Any]) -> str:
        ctx.logger.warning("%s", EVIL)
        return await ctx.step.run(EVIL, held_markup)

    async def held_markup() -> str:
        return EVIL

    @app.function(Cron("0 9 * * mon-fri", tz="Europe/Paris"), id="report", name="Morning report")
    async def report(ctx: Context[CronTick]) -> str:
        return ctx.event.data.cron

    return app


class Shop:
    """The app running behind a real server, for tests that are not async themselves."""

    def __init__(self, world: World, loop: asyncio.AbstractEventLoop, engine: Engine, app: App, url: str) -> None:
        self.world = world
        self.engine = engine
        self.app = app
        self.url = url
        self._loop = loop
        self.http = httpx.Client(base_url=url, timeout=60)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Await something on the engine's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def send(self, name: str, data: dict[str, Any] | None = None, event_id: str | None = None) -> str:
        """Send an event; the id of the run it started, or of the event when it started none."""
        return self.call(self._send(name, data or {}, event_id))

    async def _send(self, name: str, data: dict[str, Any], event_id: str | None) -> str:
        sent = await self.app.send({"name": name, "data": data}, id=event_id)
        runs = await self.engine.reader.event_runs(sent.id)
        return runs[0].id if runs else sent.id

    def send_later(self, name: str, seconds: int = 3600) -> str:
        """Send an event whose run starts later; the run's id."""

        async def send() -> str:
            sent = await self.app.send({"name": name, "data": {}}, ts=self.engine.clock.now() + seconds * 1000)
            return (await self.engine.reader.event_runs(sent.id))[0].id

        return self.call(send())

    def end(self, run_id: str) -> None:
        """Wait until a run has ended, however."""
        self.call(_ended(self.engine, run_id))

    def until(self, run_id: str, fact: Callable[[RunDetail], bool]) -> RunDetail:
        """Wait until something is recorded of a run."""
        return self.call(_until(self.engine, run_id, fact))

    def let_go(self, name: str) -> None:
        """Let held steps go on."""
        self._loop.call_soon_threadsafe(self.world.gate(name).set)

    def token(self, path: str = "/events/send") -> str:
        """The session's token, as a form of a page has it."""
        return self.http.get(path).text.partition('name="csrf_token" value="')[2].partition('"')[0]

    def post(self, path: str, **fields: Any) -> httpx.Response:
        """Post a form as the page would."""
        return self.http.post(path, data={"csrf_token": self.token(), **fields})


async def _ended(engine: Engine, run_id: str) -> None:
    await _until(engine, run_id, lambda detail: detail.run.ended_at is not None)


async def _until(engine: Engine, run_id: str, fact: Callable[[RunDetail], bool]) -> RunDetail:
    with engine.notices.subscribe() as notices:
        while True:
            detail = await engine.reader.run(run_id)
            assert detail is not None, f"there is no run {run_id}"
            if fact(detail):
                return detail
            try:
                async with asyncio.timeout(0.5):
                    await anext(aiter(notices))
            except TimeoutError:
                continue  # nothing was said; look again, the test's own time limit ends it


@contextmanager
def shop(store: Path, make: Callable[[World], App] = make_app, **settings: Any) -> Iterator[Shop]:
    """Start engine and server on a thread; stop both in the end."""
    world = World()
    app = make(world)
    ready: list[Shop | BaseException] = []
    started = threading.Event()
    stop: list[Callable[[], Any]] = []

    async def main() -> None:
        leave = asyncio.Event()
        loop = asyncio.get_running_loop()
        engine = build_engine([app], f"sqlite:///{store}")
        async with engine, serving(engine, ServerSettings(port=0, **settings)) as server:
            stop.append(lambda: loop.call_soon_threadsafe(leave.set))
            url = f"http://127.0.0.1:{server.port}{server.app.state.prefix}"
            ready.append(Shop(world, loop, engine, app, url))
            started.set()
            await leave.wait()

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            ready.append(error)
            started.set()
            raise

    thread = threading.Thread(target=run, name="holdfast-under-test")
    thread.start()
    started.wait(30)
    first = ready[0]
    if isinstance(first, BaseException):
        raise first
    try:
        yield first
    finally:
        first.http.close()
        for gate in list(world.gates):
            first.let_go(gate)
        stop[0]()
        thread.join(30)
    assert not thread.is_alive(), "the server did not stop"


# -- views of runs, for the pure parts -------------------------------------------------------------------------------

START = 1_700_000_000_000


def run_view(**changes: Any) -> RunView:
    values: dict[str, Any] = dict(
        id="01HF7YAT000000000000000000", function_id=1, function="shop-fulfil", function_name="Fulfil order", app="shop",
        event_id="01HF7YAT000000000000000001", event_name="shop/order.paid", status="COMPLETED", queued_at=START,
        started_at=START + 10, ended_at=START + 1000, attempt=0, steps=1, error=None, parent_id=None, origin="event", key=None,
    )
    return RunView(**{**values, **changes})


def step_view(key: str, start: int, end: int | None, **changes: Any) -> StepView:
    values: dict[str, Any] = dict(
        key=key, name=key, kind="run", state="done" if end is not None else "pending", seq=1, started_at=START + start,
        ended_at=None if end is None else START + end, attempt=0, due=None, data=None, error=None, attempts=(),
    )
    return StepView(**{**values, **changes})


def run_detail(*steps: StepView, **changes: Any) -> RunDetail:
    run_changes = {key: changes.pop(key) for key in list(changes) if key in RunView.__struct_fields__}
    values: dict[str, Any] = dict(
        event=None, function_attempts=(), logs=(), queue=None, output=None, error=None, children=(), notes=(),
    )
    return RunDetail(run=run_view(**run_changes), steps=steps, **{**values, **changes})
