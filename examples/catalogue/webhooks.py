"""The webhook history, and what each kind of webhook changes."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from holdfast import App, NonRetriableError

from .database import Sessions
from .events import WebhookReceived
from .merchants import merchant_id
from .models import IMPORTED, PROCESSED, RECEIVED, WEBHOOK_FAILED, Merchant, Product, Token, WebhookHistory
from .tokens import read_grant
from .webhook import Report, without_secrets


class Webhooks:
    """The table `webhook_history`."""

    def __init__(self, sessions: Sessions, app: App) -> None:
        self._sessions = sessions
        self._app = app

    async def receive(self, report: Report) -> str:
        """Keep a webhook, and the event that leads to its processing, in one transaction; gives the row's id.

        Salla delivers again what it got no answer for. The copy is the row there is.
        """
        row = WebhookHistory(
            id=_history_id(report),
            event=report.event,
            merchant_salla_id=report.merchant_salla_id,
            payload=report.payload,
            status=RECEIVED,
            received_at=datetime.now(UTC),
        )
        event = WebhookReceived(
            event=report.event,
            merchant_salla_id=report.merchant_salla_id,
            payload=without_secrets(report.payload),
            webhook_history_id=row.id,
        )
        try:
            async with self._sessions.begin() as session:
                session.add(row)
                await session.flush()
                await self._app.send(event, id=row.id, connection=session)
        except IntegrityError:
            async with self._sessions() as session:
                if await session.get(WebhookHistory, row.id) is None:
                    raise
        return row.id

    async def of(self, salla_id: int, limit: int = 100) -> Sequence[WebhookHistory]:
        """A merchant's webhooks, newest first."""
        query = select(WebhookHistory).where(WebhookHistory.merchant_salla_id == salla_id)
        async with self._sessions() as session:
            newest = query.order_by(WebhookHistory.received_at.desc(), WebhookHistory.id).limit(limit)
            return (await session.scalars(newest)).all()

    async def process(self, history_id: str) -> str:
        """Do what a webhook asks for, once; says what that was.

        Raises:
            NonRetriableError: there is no such row, or its content is unusable.
        """
        try:
            async with self._sessions.begin() as session:
                row = await session.get(WebhookHistory, history_id)
                if row is None:
                    raise NonRetriableError(f"there is no webhook {history_id}")
                if row.status == PROCESSED:
                    return "processed before"
                outcome = await _apply(session, row)
                row.status, row.processed_at, row.attempts = PROCESSED, datetime.now(UTC), row.attempts + 1
        except Exception as error:
            await self._failed_attempt(history_id, str(error) or type(error).__name__)
            raise
        return outcome

    async def give_up(self, history_id: str, error: str) -> None:
        """Note that a webhook will not be processed."""
        waiting = update(WebhookHistory).where(WebhookHistory.id == history_id, WebhookHistory.status == RECEIVED)
        async with self._sessions.begin() as session:
            await session.execute(waiting.values(status=WEBHOOK_FAILED, error=error, processed_at=datetime.now(UTC)))

    async def _failed_attempt(self, history_id: str, error: str) -> None:
        row = update(WebhookHistory).where(WebhookHistory.id == history_id)
        async with self._sessions.begin() as session:
            await session.execute(row.values(attempts=WebhookHistory.attempts + 1, error=error))


# -- what each kind changes ------------------------------------------------------------------------------------------


async def _apply(session: AsyncSession, row: WebhookHistory) -> str:
    change = _CHANGES.get(row.event)
    if change is None:
        return f"nothing to do for {row.event}"
    data = row.payload.get("data")
    if not isinstance(data, dict):
        raise NonRetriableError(f"webhook {row.id} ({row.event}) has no data")
    return await change(session, row, data)


async def _merchant(session: AsyncSession, row: WebhookHistory) -> Merchant:
    merchant = await session.scalar(select(Merchant).where(Merchant.salla_id == row.merchant_salla_id))
    if merchant is None:
        raise NonRetriableError(f"there is no merchant with Salla's id {row.merchant_salla_id}")
    return merchant


async def _save_product(session: AsyncSession, row: WebhookHistory, data: dict[str, Any]) -> str:
    merchant = await _merchant(session, row)
    salla_id, moment = _product_id(row, data), _moment(row)
    product = await _product(session, merchant, salla_id)
    if product is not None and product.salla_updated_at is not None and product.salla_updated_at > moment:
        return f"product {salla_id} has a newer report already"
    if product is None:
        if await _deleted_since(session, row, salla_id, moment):
            return f"product {salla_id} was deleted since"
        product = Product(
            id=f"product_{secrets.token_hex(8)}",
            merchant_id=merchant.id,
            salla_id=salla_id,
            status=IMPORTED,
            images=[],
            details={"provider": "salla"},
            created_at=datetime.now(UTC),
        )
        session.add(product)
    price = data.get("price")
    amount = price if isinstance(price, dict) else {"amount": price}
    product.title, product.description = _text(data.get("name")), _text(data.get("description"))
    product.price, product.currency = _text(amount.get("amount")), _text(amount.get("currency"))
    product.images = [
        image["url"]
        for image in data.get("images") or []
        if isinstance(image, dict) and isinstance(image.get("url"), str)
    ]
    product.salla_updated_at, product.updated_at = moment, datetime.now(UTC)
    return f"saved product {salla_id}"


async def _delete_product(session: AsyncSession, row: WebhookHistory, data: dict[str, Any]) -> str:
    merchant = await _merchant(session, row)
    salla_id = _product_id(row, data)
    await session.execute(delete(Product).where(Product.merchant_id == merchant.id, Product.salla_id == salla_id))
    return f"deleted product {salla_id}"


async def _save_token(session: AsyncSession, row: WebhookHistory, data: dict[str, Any]) -> str:
    now = datetime.now(UTC)
    grant = read_grant(data, now)
    merchant = await session.scalar(select(Merchant).where(Merchant.salla_id == row.merchant_salla_id))
    if merchant is None:
        merchant = Merchant(
            id=merchant_id(row.merchant_salla_id),
            salla_id=row.merchant_salla_id,
            name=f"Salla shop {row.merchant_salla_id}",
            created_at=now,
        )
        session.add(merchant)
        await session.flush()
    token = await session.get(Token, merchant.id) or Token(merchant_id=merchant.id)
    token.access_token, token.refresh_token = grant.access_token, grant.refresh_token
    token.expires_at, token.refreshed_at = grant.expires_at, now
    session.add(token)
    return f"stored the token of merchant {merchant.id}"


async def _delete_token(session: AsyncSession, row: WebhookHistory, data: dict[str, Any]) -> str:
    merchant = await _merchant(session, row)
    await session.execute(delete(Token).where(Token.merchant_id == merchant.id))
    return f"deleted the token of merchant {merchant.id}"


_CHANGES: dict[str, Callable[[AsyncSession, WebhookHistory, dict[str, Any]], Awaitable[str]]] = {
    "product.created": _save_product,
    "product.updated": _save_product,
    "product.deleted": _delete_product,
    "app.store.authorize": _save_token,
    "app.uninstalled": _delete_token,
}


async def _product(session: AsyncSession, merchant: Merchant, salla_id: int) -> Product | None:
    query = select(Product).where(Product.merchant_id == merchant.id, Product.salla_id == salla_id)
    return await session.scalar(query)


async def _deleted_since(session: AsyncSession, row: WebhookHistory, salla_id: int, moment: datetime) -> bool:
    """Whether a later report has deleted a product: this one comes late, and must not bring it back."""
    deletions = select(WebhookHistory).where(
        WebhookHistory.merchant_salla_id == row.merchant_salla_id,
        WebhookHistory.event == "product.deleted",
        WebhookHistory.status == PROCESSED,
        WebhookHistory.payload["data"]["id"].as_integer() == salla_id,
    )
    return any(_moment(deletion) >= moment for deletion in await session.scalars(deletions))


def _product_id(row: WebhookHistory, data: dict[str, Any]) -> int:
    found = data.get("id")
    if isinstance(found, bool) or not isinstance(found, int):
        raise NonRetriableError(f"webhook {row.id} ({row.event}) has no data.id, a number")
    return found


def _history_id(report: Report) -> str:
    """The same for each delivery of a report. One that doesn't say when it happened can't be told from another like it."""
    if not isinstance(report.payload.get("created_at"), str):
        return f"webhook_{secrets.token_hex(16)}"
    text = json.dumps(report.payload, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return f"webhook_{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _moment(row: WebhookHistory) -> datetime:
    """When it happened, by Salla's clock if the webhook says so."""
    try:
        moment = datetime.fromisoformat(str(row.payload.get("created_at")))
    except ValueError:
        return row.received_at
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _text(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int | float) and value != "" else None
