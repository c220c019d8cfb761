"""What the server's tests share: an app, keys, and a server that runs."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from holdfast import App, Context, Cron, CronTick, Event, NonRetriableError
from holdfast.base.clock import SystemClock
from holdfast.compose import build_engine
from holdfast.engine.engine import Engine, EngineOptions
from holdfast.server.serve import Serving, serving
from holdfast.server.settings import ServerSettings
from starlette.routing import BaseRoute, Mount, Route

EVENT_KEY = "event-canary-0f6e2d1c9b"
OTHER_EVENT_KEY = "event-canary-second-77"
SIGNING_KEY = "signkey-test-" + "c0ffee11" * 8
FALLBACK_KEY = "signkey-test-" + "0ddba115" * 8
PASSWORD = "password-canary-örtlich"
PRODUCTION = {
    "mode": "start",
    "event_keys": (EVENT_KEY, OTHER_EVENT_KEY),
    "signing_key": SIGNING_KEY,
    "signing_key_fallback": FALLBACK_KEY,
}


class OrderPaid(Event, name="shop/order.paid"):
    order_id: str
    amount: int


class OrderShipped(Event, name="shop/order.shipped"):
    order_id: str


class Doomed(Event, name="shop/doomed"):
    message: str = "it is broken"


class MovableClock(SystemClock):
    """The wall clock, which a test can set forward."""

    __slots__ = ("offset",)

    def __init__(self) -> None:
        self.offset = 0

    def now(self) -> int:
        return super().now() + self.offset


def make_app() -> App:
    app = App("shop")

    @app.function(OrderPaid)
    async def fulfil(ctx: Context[OrderPaid]) -> str:
        async def charge() -> str:
            return f"charge-{ctx.event.data.order_id}"

        return await ctx.step.run("charge", charge)

    @app.function(OrderShipped)
    async def follow_up(ctx: Context[OrderShipped]) -> str:
        paid = await ctx.step.wait_for_event(
            "paid", OrderPaid, where={"order_id": ctx.event.data.order_id}, timeout="1d"
        )
        return "nothing" if paid is None else "paid"

    @app.function(Cron("0 3 1 1 *", tz="Europe/Paris"))
    async def new_year(ctx: Context[CronTick]) -> str:
        return "happy"

    @app.function(Doomed, retries=0)
    async def doomed(ctx: Context[Doomed]) -> None:
        raise NonRetriableError(ctx.event.data.message)

    return app


@dataclass
class Running:
    """A server and a client that talks to it."""

    engine: Engine
    serving: Serving
    http: httpx.AsyncClient
    clock: MovableClock

    @property
    def port(self) -> int:
        return self.serving.port

    async def send(self, name: str, **data: Any) -> str:
        """Send an event and wait until what it starts is done or waits; its internal id."""
        response = await self.http.post(f"/e/{EVENT_KEY}", json={"name": name, "data": data})
        assert response.status_code == 200, response.text
        await self.engine.store.group.drain()
        return response.json()["ids"][0]

    async def run_of(self, event_id: str) -> str:
        """The run that an event started."""
        return (await self.engine.reader.event_runs(event_id))[0].id

    async def ended(self, run_id: str) -> str:
        """Follow a run over HTTP until it has ended; its status."""
        status = ""
        async with self.http.stream("GET", f"/v1/runs/{run_id}/stream", timeout=20) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    status = line.partition('"status":"')[2].partition('"')[0]
        return status


Start = Callable[..., AbstractAsyncContextManager[Running]]


@asynccontextmanager
async def running(store: Path, headers: dict[str, str] | None, **settings: Any) -> AsyncIterator[Running]:
    """A real engine over a real database, served on a real port."""
    clock = MovableClock()
    apps = settings.pop("apps", None) or [make_app()]
    interval = settings.pop("retry_interval_ms", None)
    given = ServerSettings(**{"port": 0, **settings})
    options = EngineOptions(retry_interval_ms=interval, private_networks=given.private_networks)
    async with build_engine(apps, f"sqlite:///{store}", clock=clock, options=options) as engine:
        async with serving(engine, given) as where:
            base = f"http://127.0.0.1:{where.port}{settings.get('prefix', '')}"
            async with httpx.AsyncClient(base_url=base, headers=headers, trust_env=False, timeout=20) as http:
                yield Running(engine, where, http, clock)


def bearer(key: str = SIGNING_KEY) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


class Values(dict[str, str]):
    """What stands for the parameters of routes; of those that are not given, anything."""

    def __missing__(self, name: str) -> str:
        return "anything"


def every_route(routes: list[BaseRoute], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Method and path of every route of a router, with the names of its parameters in braces."""
    for route in routes:
        if isinstance(route, Mount):
            yield "GET", f"{prefix}{route.path}/anything"
            yield from every_route(list(route.routes or []), prefix + route.path)
        else:
            assert isinstance(route, Route), f"a kind of route that this test does not know: {route}"
            for method in sorted((route.methods or {"GET", "POST"}) - {"HEAD"}):
                yield method, prefix + re.sub(r":\w+\}", "}", route.path)
