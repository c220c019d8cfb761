"""The catalogue in the demo: a merchant imports products, Salla reports, and the process is killed on the way."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx

from examples.catalogue.webhook import sign

from .expectations import Row
from .neighbours import Neighbour
from .salla import report
from .waiting import until

PAGES = ("/oud", "/vase", "/rug", "/photo", "/shaky")
MERCHANT = 101
MERCHANT_LOGIN = ("noura@example.test", "catalogue")
NO_PRODUCTS = ("not an address", "https://example.com/oud")


@dataclass
class CatalogueScene:
    """What a merchant and Salla do."""

    app: Neighbour
    imports: dict[str, str] = field(default_factory=dict)
    """Product ids by the path of their page."""
    forged: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)

    async def play(self) -> None:
        """Everything, one after the other."""
        await self.app.play("imports", self._import)
        await self.app.play("addresses that can't be imported", self._refuse)
        await self.app.play("a page that fails, mended, tried again with a double click", self._retry)
        await self.app.play("webhooks", self._webhooks)
        await self.app.play("kill -9 during an import", self._kill)

    async def trickle(self, _number: int) -> None:
        """A little of it."""
        await self._start(random.choice([*PAGES, "/about"]))

    async def rows(self) -> list[Row]:
        """What should have come of it."""
        row = self.app.row
        return [
            await row("B1", "the import's event", "API", "merchantId, productId, sourceUrl", self._event),
            await row("B3", "no URL, and a shop it can't read", "answers, API", "400, 400, 0 events", self._refusals),
            await row(
                "B4 B8", f"{len(PAGES)} pages are imported", "status JSON", "4 IMPORTED, 1 ENHANCED", self._statuses
            ),
            await row("B4", "each says who read it, and how long it took", "database", "5 of 5", self._metadata),
            await row(
                "B5", "a page without text is written by the model", "database", "ENHANCED, was partial", self._partial
            ),
            await row(
                "B6", "a stranger, an unknown product, another method", "status JSON", "401, 404, 405", self._access
            ),
            await row(
                "B7", "one page fails, and a double click tries again", "API", "1 Failed, 1 Completed", self._retries
            ),
            await row("B2", "a forged webhook", "answer, database", "401, 1 row", self._forgeries),
            await row("B2", "Salla reports a product", "database", "Oud oil, 25 SAR", self._reported),
            await row("B2", "5 requests to refresh a token", "Salla", "1 refreshed, 0 spent twice", self._tokens),
            await row("B4 B8", "kill -9 during an import", "status JSON", "IMPORTED", self._killed),
            await self.app.played("B"),
        ]

    # -- scenes ------------------------------------------------------------------------------------------------------

    async def _form(self, path: str) -> str:
        found = re.search(r'name="form" value="([^"]+)"', (await self.app.client.get(path)).text)
        return found[1] if found else ""

    async def _start(self, path: str) -> str:
        token = await self._form("/import")
        answer = await self.app.client.post("/import", data={"url": self.app.outside_url + path, "form": token})
        return str(answer.headers.get("location", "")).removeprefix("/import/status/")

    async def _status(self, product_id: str) -> str:
        answer = await self.app.client.get(f"/api/scrape-status/{product_id}")
        answer.raise_for_status()
        return str(answer.json()["status"])

    async def _becomes(self, product_id: str, *statuses: str) -> bool:
        async def there() -> bool:
            return await self._status(product_id) in statuses

        return await until(there, 30, every=0.2)

    async def _import(self) -> None:
        self.app.client.follow_redirects = False
        form = {"email": MERCHANT_LOGIN[0], "password": MERCHANT_LOGIN[1], "form": await self._form("/login")}
        await self.app.client.post("/login", data=form)
        for path in PAGES:
            self.imports[path] = await self._start(path)

    async def _refuse(self) -> None:
        token = await self._form("/import")
        for address in NO_PRODUCTS:
            answer = await self.app.client.post("/import", data={"url": address, "form": token})
            self.refused.append(answer.status_code)

    async def _retry(self) -> None:
        self.app.outside.shop.gone.add("/lamp")
        product = self.imports["/lamp"] = await self._start("/lamp")
        await self._becomes(product, "FAILED")
        self.app.outside.shop.gone.clear()
        token = await self._form(f"/import/status/{product}")
        click = {"form": token}
        await asyncio.gather(*(self.app.client.post(f"/import/{product}/retry", data=click) for _ in range(2)))
        await self._becomes(product, "IMPORTED")

    async def _webhooks(self) -> None:
        data = {"id": 7, "name": "Oud oil", "price": {"amount": 25, "currency": "SAR"}, "images": []}
        created = report("product.created", MERCHANT, data)
        installed = report("app.store.authorize", MERCHANT, self.app.outside.salla.issue(3600))
        for body, secret in ((created, "guessed"), (created, "development"), (installed, "development")):
            headers = {"X-Salla-Signature": sign(body, secret)}
            answer = await self.app.client.post("/api/webhooks/salla", content=body, headers=headers)
            if secret == "guessed":  # noqa: S105 - a wrong one
                self.forged.append(answer.status_code)
        await until(lambda: bool(self.app.database.rows("SELECT merchant_id FROM tokens")), 20)
        needed = {"merchantId": f"merchant_{MERCHANT}"}
        await asyncio.gather(*(self.app.post_event("app/token.refresh-needed", needed) for _ in range(5)))

    async def _kill(self) -> None:
        shop = self.app.outside.shop
        shop.slow_seconds = 3
        asked = shop.requests["/slow"]
        self.imports["/slow"] = await self._start("/slow")
        await until(lambda: shop.requests["/slow"] > asked, 10)
        await self.app.process.kill()
        await self.app.process.start()
        await asyncio.gather(*(self._becomes(p, "IMPORTED", "ENHANCED", "FAILED") for p in self.imports.values()))
        await self._becomes(self.imports["/photo"], "ENHANCED")

    # -- what came of them -------------------------------------------------------------------------------------------

    async def _statuses(self) -> str:
        counts = Counter([await self._status(self.imports[path]) for path in PAGES])
        return ", ".join(
            f"{counts[status]} {status}" for status in ("IMPORTED", "ENHANCED", "FAILED") if counts[status]
        )

    async def _event(self) -> str:
        events = await self.app.api.events("product/scrape.requested")
        return "; ".join(sorted({", ".join(sorted(event["data"])) for event in events}))

    async def _refusals(self) -> str:
        events = await self.app.api.events("product/scrape.requested")
        sent = sum(event["data"]["sourceUrl"] in NO_PRODUCTS for event in events)
        return f"{', '.join(map(str, self.refused))}, {sent} events"

    def _product(self, path: str) -> dict[str, Any]:
        (row,) = self.app.database.rows("SELECT status, metadata FROM products WHERE id = ?", self.imports[path])
        return {**row, "metadata": json.loads(row["metadata"])}

    async def _metadata(self) -> str:
        wanted = {"provider", "durationMs", "providersTried"}
        return f"{sum(wanted <= set(self._product(path)['metadata']) for path in PAGES)} of {len(PAGES)}"

    async def _partial(self) -> str:
        product = self._product("/photo")
        return f"{product['status']}, was {'partial' if product['metadata'].get('partial') else 'whole'}"

    async def _access(self) -> str:
        mine = f"/api/scrape-status/{self.imports['/oud']}"
        async with httpx.AsyncClient(base_url=self.app.process.url, timeout=20) as stranger:
            answers = [
                await stranger.get(mine),
                await self.app.client.get(f"{mine}x"),
                await self.app.client.post(mine),
            ]
        return ", ".join(str(answer.status_code) for answer in answers)

    async def _retries(self) -> str:
        events = await self.app.api.events("product/scrape.requested")
        mine = [event for event in events if event["data"]["productId"] == self.imports["/lamp"]]
        runs = [await self.app.api.runs_of_event_id(event["id"]) for event in mine]
        counts = Counter(run["status"] for found in runs for run in found)
        return f"{counts['Failed']} Failed, {counts['Completed']} Completed"

    async def _forgeries(self) -> str:
        rows = self.app.database.rows("SELECT id FROM webhook_history WHERE event = 'product.created'")
        return f"{', '.join(map(str, self.forged))}, {len(rows)} row"

    async def _reported(self) -> str:
        (row,) = self.app.database.rows("SELECT title, price, currency FROM products WHERE salla_id = 7")
        return f"{row['title']}, {row['price']} {row['currency']}"

    async def _tokens(self) -> str:
        salla = self.app.outside.salla
        return f"{salla.refreshed} refreshed, {salla.spent_twice} spent twice"

    async def _killed(self) -> str:
        return await self._status(self.imports["/slow"])
