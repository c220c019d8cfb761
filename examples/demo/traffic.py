"""What customers and the payment provider send to the shop."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass
from typing import Any

import httpx

from examples.storefront.webhook import sign


@dataclass(frozen=True)
class Placed:
    """An order that was placed."""

    id: str
    email: str
    total: str
    """As an e-mail shows it."""


@dataclass(frozen=True)
class Answer:
    """What the shop answered."""

    status: int
    seconds: float
    body: dict[str, Any]

    @property
    def event_id(self) -> str:
        """The accepted event's internal id."""
        return str(self.body.get("eventId", ""))

    @property
    def duplicate(self) -> bool:
        """Whether the shop had seen the provider's event before."""
        return bool(self.body.get("duplicate"))


@dataclass
class Traffic:
    """Talks to the shop like its customers and its payment provider.

    Raises, from every method:
        httpx.TransportError: the shop does not answer.
    """

    client: httpx.AsyncClient
    secret: str
    slowest: float = 0.0
    """Seconds that the slowest webhook or sign-up took to be answered."""
    answered: int = 0
    """Webhooks and sign-ups answered so far."""

    async def place_order(self, email: str, sku: str = "mug", quantity: int = 1) -> Placed:
        """Order something; it is not paid yet."""
        body = {"customerEmail": email, "items": [{"sku": sku, "quantity": quantity}]}
        response = await self.client.post("/orders", json=body)
        response.raise_for_status()
        order = response.json()
        return Placed(order["orderId"], email, f"{order['total'] / 100:,.2f} {order['currency']}")

    async def sign_up(self, email: str, name: str) -> Answer:
        """Open an account."""
        return await self._post("/signup", json.dumps({"email": email, "name": name}).encode(), {})

    async def pay(self, order: Placed, event_id: str | None = None) -> Answer:
        """The provider reports that an order was paid."""
        session = {"object": "checkout.session", "metadata": {"orderId": order.id}, "payment_status": "paid"}
        return await self._report(
            "checkout.session.completed", {**session, "customer_details": {"email": order.email}}, event_id
        )

    async def refund(self, order: Placed, reason: str) -> Answer:
        """The provider reports that an order was refunded."""
        charge = {"object": "charge", "refunded": True, "metadata": {"orderId": order.id, "refundReason": reason}}
        return await self._report("charge.refunded", {**charge, "billing_details": {"email": order.email}}, None)

    async def forge(self, order: Placed, *, secret: str | None = None, age: int = 0, signed: bool = True) -> Answer:
        """Somebody reports a payment without the secret, sends an old report again, or doesn't sign at all."""
        payload = json.dumps(
            {
                "id": new_event_id(),
                "type": "checkout.session.completed",
                "data": {"object": {"metadata": {"orderId": order.id}, "customer_details": {"email": order.email}}},
            }
        ).encode()
        signature = sign(payload, secret or self.secret, int(time.time()) - age)
        return await self._post("/webhooks/payment", payload, {"Stripe-Signature": signature} if signed else {})

    async def _report(self, kind: str, subject: dict[str, Any], event_id: str | None) -> Answer:
        event = {"id": event_id or new_event_id(), "object": "event", "type": kind, "data": {"object": subject}}
        payload = json.dumps(event).encode()
        return await self._post(
            "/webhooks/payment", payload, {"Stripe-Signature": sign(payload, self.secret, int(time.time()))}
        )

    async def _post(self, path: str, payload: bytes, headers: dict[str, str]) -> Answer:
        started = time.perf_counter()
        response = await self.client.post(
            path, content=payload, headers={"Content-Type": "application/json", **headers}
        )
        seconds = time.perf_counter() - started
        self.slowest = max(self.slowest, seconds)
        self.answered += 1
        body = response.json()
        return Answer(response.status_code, seconds, body if isinstance(body, dict) else {})


def new_event_id() -> str:
    """An event id as the provider makes them."""
    return f"evt_{secrets.token_hex(12)}"
