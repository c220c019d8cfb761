"""The catalogue as the tests run it: its durable functions on the real engine, its database, and the world around it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text

from examples.catalogue import functions
from examples.catalogue.client import app
from examples.catalogue.database import Sessions, open_database
from examples.catalogue.merchants import Merchants
from examples.catalogue.models import Product, Token
from examples.catalogue.products import Products
from examples.catalogue.webhook import read_report
from examples.catalogue.webhooks import Webhooks
from examples.demo.outside import Outside
from examples.demo.salla import report
from examples.demo.serving import served
from holdfast import database_schema
from holdfast.testing import Harness

assert functions.functions
SALLA_ID = 101
MERCHANT = "merchant_101"
OTHER = "merchant_102"


@dataclass
class Catalogue:
    """Everything a test of the functions needs."""

    h: Any
    url: str
    """Where the shop to import from is."""
    outside: Outside
    sessions: Sessions
    products: Products
    webhooks: Webhooks

    async def start_import(self, path: str) -> str:
        """As the form does it; the product's id."""
        product_id = await self.products.start_import(MERCHANT, self.url + path)
        await self.deliver()
        return product_id

    async def deliver(self) -> None:
        """Let everything happen that needs no time to pass, with what transactions have sent."""
        await self.h.settle(within="0s")

    async def product(self, product_id: str) -> Product:
        found = await self.products.one(product_id, MERCHANT)
        assert found is not None
        return found

    async def import_page(self, path: str, within: str = "10m") -> Product:
        """Import a page, whatever time it takes; the product afterwards."""
        product_id = await self.start_import(path)
        await self.h.settle(within=within)
        return await self.product(product_id)

    async def report(self, event: str, data: dict[str, Any], salla_id: int = SALLA_ID, **more: Any) -> str:
        """Receive a webhook, and process it; the row's id."""
        history_id = await self.webhooks.receive(read_report(report(event, salla_id, data, **more)))
        await self.deliver()
        return history_id

    async def history(self, history_id: str):
        (row,) = [row for row in await self.webhooks.of(SALLA_ID) if row.id == history_id]
        return row

    async def salla_products(self) -> list[Product]:
        return [product for product in await self.products.of(MERCHANT) if product.salla_id is not None]

    async def token(self) -> Token | None:
        async with self.sessions() as session:
            return await session.get(Token, MERCHANT)

    async def sent(self, name: str) -> list[dict[str, Any]]:
        """The data of all events of a name."""
        events = await self.h.events(name)
        return [event.data if isinstance(event.data, dict) else json.loads(event.data) for event in events]


@asynccontextmanager
async def running_catalogue(folder: Any, monkeypatch: Any, *, harness: bool = True, **environ: str) -> AsyncIterator[Catalogue]:
    outside = Outside()
    async with served(outside.app()) as url:
        settings = {
            "DATABASE_URL": f"sqlite+aiosqlite:///{folder}/catalogue.db",
            "IMPORT_PLATFORMS": f"Local={url.removeprefix('http://')}, Salla=salla.sa",
            "SALLA_TOKEN_URL": f"{url}/oauth2/token",
            "TEXT_MODEL_URL": f"{url}/v1",
            "SCRAPE_TIMEOUT": "5",
            **environ,
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        async with open_database(settings["DATABASE_URL"]) as sessions:
            merchants = Merchants(sessions)
            await merchants.add(SALLA_ID, "Dar Al-Oud", "noura@example.test", "catalogue")
            await merchants.add(102, "Qahwa House", "faisal@example.test", "catalogue")
            where = {"start": datetime.now(UTC), "schedules": False, "patience": 60, "databases": [settings["DATABASE_URL"]]}
            engine = Harness(app, **where) if harness else nullcontext()
            if not harness:  # a start of the app, at some time before, has made holdfast's tables
                async with sessions.begin() as session:
                    for statement in database_schema("sqlite").split(";")[:-1]:
                        await session.execute(text(statement))
            async with engine as h:
                yield Catalogue(h, url, outside, sessions, Products(sessions, app), Webhooks(sessions, app))
