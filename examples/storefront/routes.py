"""The shop over HTTP. Whatever leads to an e-mail answers as soon as the event is on disk."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from holdfast import EventInvalidError, Sent

from . import webhook
from .enqueue import enqueue_purchase_confirmation, enqueue_refund_notification, enqueue_welcome_email
from .events import Address
from .orders import PRODUCTS, OrderNotFoundError, Orders
from .payments import Payment, WebhookContentError, read_payment
from .settings import Settings

MAX_WEBHOOK_BYTES = 1_000_000

router = APIRouter()


class _Body(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class Line(_Body):
    sku: str
    quantity: Annotated[int, Field(ge=1, le=100)] = 1


class NewOrder(_Body):
    customer_email: Address
    items: Annotated[list[Line], Field(min_length=1, max_length=50)]


class SignUp(_Body):
    email: Address
    name: Annotated[str, Field(max_length=200)] | None = None


@router.post("/orders", status_code=201)
async def place_order(request: Request, body: NewOrder) -> dict[str, object]:
    """Write an order down. The customer then pays at the payment provider, which reports to the webhook."""
    unknown = [line.sku for line in body.items if line.sku not in PRODUCTS]
    if unknown:
        raise HTTPException(422, f"there is no product {unknown[0]!r}; there are: {', '.join(sorted(PRODUCTS))}")
    order = await _orders(request).place(body.customer_email, [(line.sku, line.quantity) for line in body.items])
    return {"orderId": order.id, "total": order.total, "currency": order.currency}


@router.get("/orders/{order_id}")
async def read_order(request: Request, order_id: str) -> dict[str, object]:
    """Where an order stands."""
    try:
        order = await _orders(request).row(order_id)
    except OrderNotFoundError as error:
        raise HTTPException(404, str(error)) from error
    return {
        "orderId": order.id,
        "status": order.status,
        "fulfilledAt": order.fulfilled_at,
        "refundedAt": order.refunded_at,
    }


@router.post("/signup", status_code=202)
async def sign_up(request: Request, body: SignUp) -> dict[str, object]:
    """Sign up.

    Doing it again changes nothing and is answered the same way, so that nobody learns who has an account.
    """
    user = await _orders(request).sign_up(body.email, body.name)
    await enqueue_welcome_email(user.id, user.email, user.name)
    return {"userId": user.id}


@router.post("/webhooks/payment")
async def payment_webhook(request: Request) -> dict[str, object]:
    """The payment provider reports. An answer other than 2xx makes it try again later."""
    payload = await _read_body(request)
    try:
        webhook.verify(payload, request.headers.get("stripe-signature"), _settings(request).webhook_secret, time.time())
    except webhook.SignatureError as error:
        raise HTTPException(400, str(error)) from error
    try:
        payment = read_payment(payload)
        if isinstance(payment, str):
            return {"ignored": payment}
        sent = await _enqueue(payment)
    except ValidationError as error:
        fields = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise HTTPException(422, f"the webhook does not fit {error.title}: {'; '.join(fields)}") from error
    except (WebhookContentError, EventInvalidError) as error:
        raise HTTPException(422, str(error)) from error
    return {"eventId": sent.id, "duplicate": sent.duplicate}


@router.get("/health")
async def health() -> dict[str, str]:
    """That the shop answers."""
    return {"status": "ok"}


async def _enqueue(payment: Payment) -> Sent:
    if payment.happening == "purchase":
        return await enqueue_purchase_confirmation(
            payment.order_id, payment.customer_email, provider_event_id=payment.provider_event_id
        )
    return await enqueue_refund_notification(
        payment.order_id, payment.customer_email, payment.refund_reason, provider_event_id=payment.provider_event_id
    )


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_WEBHOOK_BYTES:
            raise HTTPException(413, f"a webhook may have {MAX_WEBHOOK_BYTES} bytes")
    return bytes(body)


def _orders(request: Request) -> Orders:
    orders: Orders = request.app.state.orders
    return orders


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings
