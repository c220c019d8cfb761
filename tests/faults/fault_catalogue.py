"""The catalogue's merchants and Salla, and what must be true of products, webhooks and tokens in the end."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from fault_siege import insist
from fault_world import World

from examples.catalogue.webhook import SIGNATURE_HEADER, sign
from examples.demo.salla import report

SECRET = "development"
NOURA = {"email": "noura@example.test", "password": "catalogue"}
NOURA_SALLA = 101
PAGES = {
    "/oud": ("IMPORTED", "349.00"), "/lamp": ("IMPORTED", "1299"), "/vase": ("IMPORTED", "89.50"), "/rug": ("IMPORTED", "1450.00"),
    "/photo": ("ENHANCED", "120"), "/busy": ("IMPORTED", "349.00"), "/about": ("FAILED", None),
}  # fmt: skip
"""Pages of the shop: what becomes of a product that is imported from there, and its price."""


@dataclass
class Reported:
    """A product of Salla's, as its reports have it: the last name, or None when it was deleted."""

    name: str | None = None
    reports: int = 0


class CatalogueSiege:
    """Merchants who import products, Salla that reports, tokens that expire. Whatever gets no answer is done again."""

    FAILING = ("this page has no product", "no product", "has to install the app again", "scrape-product")

    def __init__(self, world: World) -> None:
        self.world = world
        self.imports: dict[str, str] = {}
        self.reported: dict[int, Reported] = {}
        self.installed: set[int] = set()
        self._count = 0
        self._token: str | None = None
        self._logging_in = asyncio.Lock()
        self._began = datetime.now(UTC).replace(microsecond=0)

    async def act(self, customer: int) -> None:
        self._count += 1
        what = self.world.chosen.random()
        if what < 0.5:
            await self._import(self.world.chosen.choice(sorted(PAGES)))
        elif what < 0.8:
            await self._report_product(1000 * (customer + 1) + self.world.chosen.randrange(4))
        else:
            await self._install(500 + customer * 100 + self._count)

    # -- imports ---------------------------------------------------------------------------------------------------------

    async def _import(self, path: str) -> None:
        url = self.world.outside_url + path
        if self.world.over_http:
            # the row as the form writes it; the form's own event would go to the engine in the application
            product = f"product_{self._count}"
            now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
            self._execute(
                "INSERT INTO products (id, merchant_id, status, source_url, images, metadata, created_at, updated_at) "
                "SELECT ?, id, 'IMPORTING', ?, '[]', '{}', ?, ? FROM merchants WHERE salla_id = ?", product, url, now, now, NOURA_SALLA
            )  # fmt: skip
            (merchant,) = self.world.database.rows("SELECT id FROM merchants WHERE salla_id = 101")
            data = {"productId": product, "sourceUrl": url, "merchantId": merchant["id"]}
            await self.world.server.send("product/scrape.requested", f"import-{product}", data)
            self.imports[product] = path
            return
        async with self._logging_in:  # the customers share a session
            if self._token is None:
                await self._log_in()
        answer = await insist(lambda: self.world.client.post("/import", data={"url": url, "form": self._token}))
        self.imports[answer.headers["location"].removeprefix("/import/status/")] = path

    async def _log_in(self) -> None:
        page = await insist(lambda: self.world.client.get("/login"))
        await insist(lambda: self.world.client.post("/login", data={**NOURA, "form": _form(page)}))
        self._token = _form(await insist(lambda: self.world.client.get("/import")))

    def _execute(self, statement: str, *values: Any) -> None:
        with closing(sqlite3.connect(self.world.database.path, timeout=30)) as connection, connection:
            connection.execute(statement, values)

    # -- what Salla reports ----------------------------------------------------------------------------------------------

    async def _report_product(self, salla_id: int) -> None:
        """What has happened to a product; each report is a second later than the one before by Salla's clock."""
        known = self.reported.setdefault(salla_id, Reported())
        known.reports += 1
        gone = known.name is not None and self.world.chosen.random() < 0.3
        event = "product.deleted" if gone else "product.updated" if known.name else "product.created"
        known.name = None if gone else f"Name {salla_id} {known.reports}"
        data = {"id": salla_id, "name": known.name, "price": {"amount": known.reports, "currency": "SAR"}}
        moment = self._began + timedelta(seconds=known.reports)
        await self._webhook(report(event, NOURA_SALLA, data, moment.isoformat()))

    async def _install(self, salla_id: int) -> None:
        tokens = self.world.outside.salla.issue(60)
        await self._webhook(report("app.store.authorize", salla_id, tokens, datetime.now(UTC).isoformat()))
        self.installed.add(salla_id)

    async def _webhook(self, body: bytes) -> None:
        headers = {"Content-Type": "application/json", SIGNATURE_HEADER: sign(body, SECRET)}
        await insist(lambda: self.world.client.post("/api/webhooks/salla", content=body, headers=headers))

    # -- what must be true -----------------------------------------------------------------------------------------------

    async def settled(self) -> bool:
        if await self.world.unfinished() or self.world.database.rows("SELECT id FROM holdfast_outbox"):
            return False
        return not self.world.database.rows("SELECT id FROM webhook_history WHERE status = 'received'")

    async def broken(self) -> list[str]:
        rows = {row["id"]: row for row in self.world.database.rows("SELECT id, status, title, price, source_url, salla_id, metadata FROM products")}
        problems = [f"product {id_} is still being imported" for id_, row in rows.items() if row["status"] == "IMPORTING"]
        for id_, path in self.imports.items():
            row, (status, price) = rows.get(id_), PAGES[path]
            if row is None or (row["status"], row["price"]) != (status, price) or (status != "FAILED" and not row["title"]):
                problems.append(f"the product of {path} should be {status} for {price}: {row}")
            if row is not None and status == "FAILED" and "scrapeError" not in row["metadata"]:
                problems.append(f"the product of {path} doesn't say why it failed: {row}")
        problems += self._salla(rows)
        return problems + await self._told(rows) + self._tokens()

    def _salla(self, rows: dict[str, dict[str, Any]]) -> list[str]:
        problems = []
        for salla_id, known in self.reported.items():
            found = [row["title"] for row in rows.values() if row["salla_id"] == salla_id]
            if found != ([] if known.name is None else [known.name]):
                problems.append(f"Salla's product {salla_id} should be {known.name}: {found}")
        history = self.world.database.rows("SELECT id, event, status, error FROM webhook_history")
        problems += [f"a webhook was not processed: {row}" for row in history if row["status"] != "processed"]
        wanted = sum(known.reports for known in self.reported.values()) + len(self.installed)
        return problems if len(history) == wanted else [*problems, f"{len(history)} webhooks in the history of {wanted} that were sent"]

    async def _told(self, rows: dict[str, dict[str, Any]]) -> list[str]:
        """Each import that ended is announced once. Called over HTTP, it is at least once, and an import that failed because
        nobody could be reached has announced that, before it was redriven."""
        told: Counter[tuple[str, str]] = Counter()
        for name in ("product/scrape.completed", "product/scrape.failed"):
            for event in await self.world.all("/v1/events", name=name):
                told[event["data"]["productId"], name] += 1
        wanted = {
            (id_, f"product/scrape.{'failed' if row['status'] == 'FAILED' else 'completed'}")
            for id_, row in rows.items()
            if row["source_url"]
        }
        if self.world.over_http:
            return [f"no event {one}" for one in wanted if not told[one]]
        return [f"{told[one]} events {one}" for one in wanted | set(told) if told[one] != (one in wanted)]

    def _tokens(self) -> list[str]:
        """A merchant's refresh token is one that Salla takes."""
        rows = {row["merchant_id"]: row["refresh_token"] for row in self.world.database.rows("SELECT merchant_id, refresh_token FROM tokens")}
        merchants = {row["salla_id"]: row["id"] for row in self.world.database.rows("SELECT salla_id, id FROM merchants")}
        valid = self.world.outside.salla.valid
        return [f"the token of {n} is spent or missing" for n in self.installed if rows.get(merchants.get(n, "")) not in valid]


def _form(page: httpx.Response) -> str:
    found = re.search(r'name="form" value="([^"]+)"', page.text)
    assert found, page.text
    return found[1]
