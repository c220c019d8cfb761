"""The catalogue as a process of its own, and merchants who use it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from examples.demo.observers import Api, Database
from examples.demo.outside import Outside
from examples.demo.processes import AppProcess
from examples.demo.serving import served
from examples.demo.waiting import until
from ports import free_port

NOORA = ("noura@example.test", "catalogue")
FAISAL = ("faisal@example.test", "catalogue")


@dataclass
class Merchant:
    """Somebody with a browser, or what is left of one."""

    client: httpx.AsyncClient
    shop_url: str

    async def token(self, path: str = "/login") -> str:
        """What the forms of a page carry."""
        found = re.search(r'name="form" value="([^"]+)"', (await self.client.get(path)).text)
        assert found
        return found[1]

    async def log_in(self, email: str, password: str) -> httpx.Response:
        return await self.client.post("/login", data={"email": email, "password": password, "form": await self.token()})

    async def submit(self, url: str) -> httpx.Response:
        return await self.client.post("/import", data={"url": url, "form": await self.token("/import")})

    async def start_import(self, path: str) -> str:
        """Import a page of the shop; the product's id."""
        answer = await self.submit(self.shop_url + path)
        assert answer.status_code == 303, answer.text
        return answer.headers["location"].removeprefix("/import/status/")

    async def status(self, product_id: str) -> dict[str, Any]:
        response = await self.client.get(f"/api/scrape-status/{product_id}")
        assert response.status_code == 200, response.text
        return response.json()

    async def becomes(self, product_id: str, status: str, seconds: float = 60) -> dict[str, Any]:
        """Wait until a product has a status."""
        seen: dict[str, Any] = {}

        async def there() -> bool:
            seen.update(await self.status(product_id))
            return seen["status"] == status

        assert await until(there, seconds), f"the product did not become {status}: {seen}"
        return seen


@dataclass
class RunningCatalogue:
    """The catalogue as a process, the world around it, and ways to look at both."""

    process: AppProcess
    outside: Outside
    shop_url: str
    api: Api
    database: Database
    server: httpx.AsyncClient
    stack: AsyncExitStack

    async def visitor(self) -> Merchant:
        """Somebody who is not logged in."""
        client = httpx.AsyncClient(base_url=self.process.url, timeout=60, follow_redirects=False)
        return Merchant(await self.stack.enter_async_context(client), self.shop_url)

    async def merchant(self, who: tuple[str, str] = NOORA) -> Merchant:
        """Somebody who is logged in."""
        visitor = await self.visitor()
        assert (await visitor.log_in(*who)).status_code == 303
        return visitor


@asynccontextmanager
async def running_catalogue_process(folder: Path, **environ: str) -> AsyncIterator[RunningCatalogue]:
    outside = Outside()
    async with served(outside.app()) as url, AsyncExitStack() as stack:
        process = AppProcess(
            port=free_port(),
            dashboard_port=free_port(),
            environ={
                "DATABASE_URL": f"sqlite+aiosqlite:///{folder}/catalogue.db",
                "HOLDFAST_STORE": f"sqlite:///{folder}/holdfast.db",
                "IMPORT_PLATFORMS": f"Local={url.removeprefix('http://')}, Salla=salla.sa",
                "SALLA_TOKEN_URL": f"{url}/oauth2/token",
                "TEXT_MODEL_URL": f"{url}/v1",
                **environ,
            },
            log=folder / "catalogue.log",
            module=("examples.catalogue",),
        )
        await process.start()
        stack.push_async_callback(process.stop)
        server = await stack.enter_async_context(httpx.AsyncClient(base_url=process.dashboard_url, timeout=60))
        database = Database(folder / "catalogue.db")
        yield RunningCatalogue(process, outside, url, Api(server), database, server, stack)
