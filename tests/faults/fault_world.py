"""An example application with the outside world it needs, as processes that can be killed."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fault_siege import HoldfastProcess, Server, Tripwire, Victim, WiredInbox, wired
from ports import free_port

from examples.demo.inbox import smtp_server
from examples.demo.observers import Database
from examples.demo.outside import Outside
from examples.demo.processes import AppProcess
from examples.demo.receiver import Receiver
from examples.demo.serving import served

WEBHOOK_SECRET = "siege"


@dataclass
class World:
    """An application that runs, everything it talks to, and the ways to look at it from outside."""

    folder: Path
    chosen: random.Random
    tripwire: Tripwire
    victims: list[Victim]
    client: httpx.AsyncClient
    """The application over HTTP."""
    own: Server
    """The server in its process."""
    server: Server
    """Where events go: the same, or the one of another process, which calls the functions over HTTP."""
    database: Database
    inbox: WiredInbox
    outside: Outside
    outside_url: str
    receiver: Receiver
    hooks: str
    redis: Any

    @property
    def over_http(self) -> bool:
        """Whether another process calls the functions. What they send goes to the engine in the application all the same."""
        return self.server is not self.own

    @property
    def servers(self) -> list[Server]:
        """All that there are."""
        return [self.own, self.server] if self.over_http else [self.own]

    async def all(self, path: str, **where: str) -> list[dict[str, Any]]:
        """A list as all servers have it."""
        return [row for server in self.servers for row in await server.all(path, **where)]

    async def unfinished(self) -> list[dict[str, Any]]:
        """The runs that are not over; what their functions have sent first is looked for last."""
        return [row for server in reversed(self.servers) for row in await server.all("/v1/runs", status="Queued,Running,Waiting")]


@asynccontextmanager
async def world(name: str, folder: Path, seed: int, redis: Any, redis_url: str, *, over_http: bool) -> AsyncIterator[World]:
    """Start an application; with `over_http`, a server of its own process calls its functions."""
    folder.mkdir(parents=True, exist_ok=True)
    tripwire = Tripwire()
    inbox, outside, receiver = WiredInbox(tripwire), Outside(), Receiver()
    async with AsyncExitStack() as stack:
        smtp = await stack.enter_async_context(smtp_server(inbox))
        outside_url = await stack.enter_async_context(served(wired(outside.app(), tripwire)))
        hooks = await stack.enter_async_context(served(wired(receiver.app(), tripwire))) + "/hooks"
        port, dashboard, other = free_port(), free_port(), free_port()
        environ = {
            "DATABASE_URL": f"sqlite+aiosqlite:///{folder}/app.db",
            "HOLDFAST_STORE": f"sqlite:///{folder}/holdfast.db",
            "SMTP_PORT": str(smtp), "MAIL_TIMEOUT": "15",
            "IMPORT_PLATFORMS": f"Local={outside_url.removeprefix('http://')}", "SALLA_TOKEN_URL": f"{outside_url}/oauth2/token",
            "TEXT_MODEL_URL": f"{outside_url}/v1", "EXPORT_DIRECTORY": f"{folder}/exports", "WEBHOOK_SECRET": WEBHOOK_SECRET,
            "REDIS_URL": redis_url, "RECOMPUTE_BUCKET_SECONDS": "1",
        }  # fmt: skip
        if name == "catalogue":
            del environ["WEBHOOK_SECRET"]  # Salla's is the one of development
        if over_http:
            environ["INNGEST_DEV"] = f"http://127.0.0.1:{other}"
        app = AppProcess(port=port, dashboard_port=dashboard, environ=environ, log=folder / "app.log", module=(f"examples.{name}",))
        await app.start()
        stack.push_async_callback(app.kill)
        victims: list[Victim] = [app]
        client = await stack.enter_async_context(_client(app.url))
        own = server = Server(await stack.enter_async_context(_client(app.dashboard_url)))
        if over_http:
            caller = HoldfastProcess(other, folder, f"{app.url}/api/inngest")
            await caller.start()
            stack.push_async_callback(caller.kill)
            victims.append(caller)
            server = Server(await stack.enter_async_context(_client(caller.url)))
        yield World(
            folder, random.Random(seed), tripwire, victims, client, own, server, Database(folder / "app.db"),
            inbox, outside, outside_url, receiver, hooks, redis,
        )  # fmt: skip


def _client(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=30, trust_env=False)
