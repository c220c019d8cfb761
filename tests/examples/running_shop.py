"""The storefront as the tests run it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from examples.demo.inbox import Inbox, smtp_server
from examples.demo.observers import Api, Database
from examples.demo.processes import AppProcess
from examples.demo.traffic import Traffic
from examples.demo.waiting import until
from ports import free_port


@dataclass
class RunningShop:
    """The storefront as a process, its inbox, and ways to look at both."""

    storefront: AppProcess
    inbox: Inbox
    traffic: Traffic
    api: Api
    database: Database
    server: httpx.AsyncClient
    """The event API, REST and dashboard."""

    async def ended(self, event_id: str, *, seconds: float = 60) -> dict[str, Any]:
        """The history of the one run that an event started, once it has ended."""
        histories: list[dict[str, Any]] = []

        async def over() -> bool:
            run = await self.api.run_of_event(event_id)
            histories[:] = [await self.api.history(run)] if run else []
            return bool(histories) and histories[0]["run"]["ended_at"] is not None

        assert await until(over, seconds), f"the run did not end within {seconds} s: {histories}"
        return histories[0]


@asynccontextmanager
async def running_shop(folder: Path, handler: Inbox | None = None, **environ: str) -> AsyncIterator[RunningShop]:
    inbox = handler or Inbox()
    async with smtp_server(inbox) as smtp_port, AsyncExitStack() as stack:
        storefront = AppProcess(
            port=free_port(),
            dashboard_port=free_port(),
            environ={
                "DATABASE_URL": f"sqlite+aiosqlite:///{folder}/shop.db",
                "HOLDFAST_STORE": f"sqlite:///{folder}/holdfast.db",
                "SMTP_PORT": str(smtp_port),
                "MAIL_FROM": "Riqle <shop@riqle.example>",
                "MAIL_TIMEOUT": "5",
                **environ,
            },
            log=folder / "shop.log",
        )
        await storefront.start()
        stack.push_async_callback(storefront.stop)
        shop = await stack.enter_async_context(httpx.AsyncClient(base_url=storefront.url, timeout=60))
        server = await stack.enter_async_context(httpx.AsyncClient(base_url=storefront.dashboard_url, timeout=60))
        traffic = Traffic(shop, "whsec_development")
        yield RunningShop(storefront, inbox, traffic, Api(server), Database(folder / "shop.db"), server)
