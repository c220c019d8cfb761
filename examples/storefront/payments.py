"""What the payment provider's webhooks say, in the shop's words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

_TYPES: dict[str, Literal["purchase", "refund"]] = {
    "checkout.session.completed": "purchase",
    "charge.refunded": "refund",
}


class WebhookContentError(Exception):
    """A genuine webhook lacks something the shop needs; the message names it."""


@dataclass(frozen=True)
class Payment:
    """A purchase that was paid, or refunded."""

    happening: Literal["purchase", "refund"]
    provider_event_id: str
    order_id: str
    customer_email: str
    refund_reason: str | None


def read_payment(payload: bytes) -> Payment | str:
    """What a genuine webhook reports; for a type that the shop has no use for, that type.

    Raises:
        WebhookContentError: it is no JSON, or lacks something.
    """
    try:
        event = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise WebhookContentError(f"the body is not JSON: {error}") from error
    kind = _text(event, "type")
    if kind is None:
        raise WebhookContentError("the event has no type")
    happening = _TYPES.get(kind)
    if happening is None:
        return kind
    subject = _at(event, "data", "object")
    return Payment(
        happening=happening,
        provider_event_id=_required(_text(event, "id"), "id"),
        order_id=_required(
            _text(subject, "metadata", "orderId") or _text(subject, "client_reference_id"),
            "data.object.metadata.orderId",
        ),
        customer_email=_required(_email(subject), "an e-mail address in data.object"),
        refund_reason=_refund_reason(subject),
    )


def _email(subject: Any) -> str | None:
    paths = (("customer_details", "email"), ("customer_email",), ("billing_details", "email"), ("receipt_email",))
    return next((found for path in paths if (found := _text(subject, *path))), None)


def _refund_reason(subject: Any) -> str | None:
    refunds = _at(subject, "refunds", "data")
    latest = refunds[0] if isinstance(refunds, list) and refunds else None
    return _text(subject, "metadata", "refundReason") or _text(latest, "reason")


def _at(value: Any, *path: str) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _text(value: Any, *path: str) -> str | None:
    found = _at(value, *path)
    return found if isinstance(found, str) and found else None


def _required(value: str | None, what: str) -> str:
    if value is None:
        raise WebhookContentError(f"the event lacks {what}")
    return value
