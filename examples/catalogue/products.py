"""Products: what pages show of them, and the changes that imports make.

An import belongs to the event that asked for it, whose id is in the row. Every change is conditional on it, so that a
run which is late or repeated changes nothing that isn't its own.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import and_, or_, select, update

from holdfast import App

from .database import Sessions
from .events import ScrapeRequested
from .models import ENHANCED, FAILED, IMPORTED, IMPORTING, Product
from .scraping import Scraped


@dataclass(frozen=True)
class Source:
    """What there is to import."""

    product_id: str
    url: str


@dataclass(frozen=True)
class Gap:
    """A product without all of its text."""

    title: str | None
    description: str | None
    price: str | None
    currency: str | None
    url: str | None
    images: list[str]


class Products:
    """The table `products`."""

    def __init__(self, sessions: Sessions, app: App) -> None:
        self._sessions = sessions
        self._app = app

    # -- what merchants see and do -----------------------------------------------------------------------------------

    async def of(self, merchant_id: str, limit: int = 100) -> Sequence[Product]:
        """A merchant's products, newest first."""
        query = select(Product).where(Product.merchant_id == merchant_id)
        async with self._sessions() as session:
            return (await session.scalars(query.order_by(Product.created_at.desc(), Product.id).limit(limit))).all()

    async def one(self, product_id: str, merchant_id: str) -> Product | None:
        """A merchant's product; None for another merchant's as for one that doesn't exist."""
        query = select(Product).where(Product.id == product_id, Product.merchant_id == merchant_id)
        async with self._sessions() as session:
            return await session.scalar(query)

    async def start_import(self, merchant_id: str, url: str) -> str:
        """A new product with status IMPORTING, and the event that leads to its import, in one transaction."""
        now = datetime.now(UTC)
        product = Product(
            id=f"product_{secrets.token_hex(8)}",
            merchant_id=merchant_id,
            status=IMPORTING,
            source_url=url,
            images=[],
            details={},
            import_id=_new_import(),
            created_at=now,
            updated_at=now,
        )
        async with self._sessions.begin() as session:
            session.add(product)
            await self._app.send(_requested(product.id, url, merchant_id), id=product.import_id, connection=session)
        return product.id

    async def retry_import(self, product_id: str, merchant_id: str) -> bool:
        """Import a product again whose import failed, under a new event; False when that is not where it stands.

        However often and at once this is called, one import starts: the row changes from FAILED once.
        """
        import_id = _new_import()
        failed = update(Product).where(
            Product.id == product_id, Product.merchant_id == merchant_id, Product.status == FAILED
        )
        changes = failed.values(status=IMPORTING, details={}, import_id=import_id, updated_at=datetime.now(UTC))
        async with self._sessions.begin() as session:
            url = await session.scalar(changes.returning(Product.source_url))
            if url is None:
                return False
            await self._app.send(_requested(product_id, url, merchant_id), id=import_id, connection=session)
        return True

    # -- what imports do ---------------------------------------------------------------------------------------------

    async def begin_import(self, product_id: str, merchant_id: str, import_id: str) -> Source | None:
        """Make an import the product's current one; None when there is nothing to import.

        An import that failed before it came this far is begun again: its dead letter was redriven.
        """
        redriven = and_(Product.status == FAILED, Product.import_id == import_id)
        wanted = update(Product).where(
            Product.id == product_id,
            Product.merchant_id == merchant_id,
            or_(Product.status == IMPORTING, redriven),
            Product.source_url.is_not(None),
        )
        begun = wanted.values(status=IMPORTING, details={}, import_id=import_id)
        async with self._sessions.begin() as session:
            url = await session.scalar(begun.returning(Product.source_url))
        return None if url is None else Source(product_id, url)

    async def finish_import(self, product_id: str, import_id: str, scraped: Scraped) -> bool:
        """Store what was found; False when another import has taken over.

        A failed import is finished too: its dead letter was redriven.
        """
        details: dict[str, Any] = {
            "provider": scraped.provider,
            "durationMs": scraped.duration_ms,
            "providersTried": scraped.providers_tried,
        }
        details |= {name: True for name in ("partial", "truncated") if getattr(scraped, name)}
        found = scraped.found
        return await self._change(
            product_id,
            Product.import_id == import_id,
            status=IMPORTED,
            title=found.title,
            description=found.description,
            price=found.price,
            currency=found.currency,
            images=found.images,
            details=details,
        )

    async def fail_import(self, product_id: str, import_id: str, error: str) -> bool:
        """Note that an import failed for good; False when it isn't the product's current one, or has succeeded."""
        return await self._change(
            product_id,
            Product.import_id == import_id,
            # a repetition of this, after a crash, says yes again
            Product.status.in_((IMPORTING, FAILED)),
            status=FAILED,
            details={"scrapeError": error},
        )

    async def gap(self, product_id: str) -> Gap | None:
        """What is known of a product that lacks text; None for any other."""
        async with self._sessions() as session:
            row = await session.get(Product, product_id)
        if row is None or row.status != IMPORTED or not row.details.get("partial"):
            return None
        return Gap(row.title, row.description, row.price, row.currency, row.source_url, row.images)

    async def enhance(self, product_id: str, title: str, description: str) -> bool:
        """Give a product the text it lacked; False when it has changed meanwhile."""
        return await self._change(
            product_id, Product.status.in_((IMPORTED, ENHANCED)), status=ENHANCED, title=title, description=description
        )

    async def _change(self, product_id: str, *conditions: Any, **values: Any) -> bool:
        changes = update(Product).where(Product.id == product_id, *conditions)
        async with self._sessions.begin() as session:
            done = await session.execute(changes.values(**values, updated_at=datetime.now(UTC)).returning(Product.id))
            return done.first() is not None


def _new_import() -> str:
    return f"import_{secrets.token_hex(10)}"


def _requested(product_id: str, url: str, merchant_id: str) -> ScrapeRequested:
    return ScrapeRequested(product_id=product_id, source_url=url, merchant_id=merchant_id)
