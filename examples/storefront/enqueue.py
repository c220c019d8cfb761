"""How the rest of the shop asks for an e-mail: it returns once the event is on disk, whatever the mail server does."""

from __future__ import annotations

from holdfast import Sent

from . import idempotency
from .client import app
from .events import PurchaseConfirmation, RefundNotification, Welcome


async def enqueue_purchase_confirmation(
    order_id: str, customer_email: str, *, provider_event_id: str | None = None
) -> Sent:
    """Have a purchase confirmed by e-mail.

    Args:
        order_id: The paid order.
        customer_email: Whom to tell.
        provider_event_id: The payment provider's id of what happened; the same one twice is one confirmation.

    Raises:
        pydantic.ValidationError: an argument does not fit the event's schema.
        OverloadedError, StoreError: nothing was accepted; try again.
    """
    event = PurchaseConfirmation(order_id=order_id, customer_email=customer_email)
    return await app.send(event, id=idempotency.event_id("purchase-confirmation", order_id, provider_event_id))


async def enqueue_refund_notification(
    order_id: str, customer_email: str, refund_reason: str | None = None, *, provider_event_id: str | None = None
) -> Sent:
    """Tell a customer of a refund. Arguments and errors as for a purchase confirmation."""
    event = RefundNotification(order_id=order_id, customer_email=customer_email, refund_reason=refund_reason)
    return await app.send(event, id=idempotency.event_id("refund-notification", order_id, provider_event_id))


async def enqueue_welcome_email(user_id: str, email: str, name: str | None = None) -> Sent:
    """Greet a new user. Errors as for a purchase confirmation."""
    event = Welcome(user_id=user_id, email=email, name=name)
    return await app.send(event, id=idempotency.event_id("welcome", user_id))
