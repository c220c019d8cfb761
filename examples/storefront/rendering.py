"""E-mails from templates: text and HTML of each kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from . import idempotency
from .idempotency import Kind
from .mail import Mail
from .orders import PlacedOrder

_MINOR_UNITS = {"JPY": 0, "KRW": 0, "KWD": 3, "BHD": 3}
"""Decimal places of a currency's smallest unit, where they are not two."""


def money(amount: int, currency: str) -> str:
    """An amount in the currency's smallest unit, as people read it: 1250 EUR is `12.50 EUR`."""
    places = _MINOR_UNITS.get(currency, 2)
    return f"{amount / 10**places:,.{places}f} {currency}"


_templates = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=select_autoescape(["html"], default=False),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
)
_templates.filters["money"] = money


def purchase_confirmation(order: PlacedOrder, recipient: str, domain: str) -> Mail:
    """The confirmation of a paid order."""
    subject = f"Your order {order.id}"
    return _mail("purchase-confirmation", recipient, subject, domain, order_id=order.id, order=order)


def refund_notification(order: PlacedOrder, recipient: str, reason: str | None, domain: str) -> Mail:
    """The notice of a refund."""
    subject = f"Refund of your order {order.id}"
    return _mail("refund-notification", recipient, subject, domain, order_id=order.id, order=order, reason=reason)


def welcome(user_id: str, recipient: str, name: str | None, domain: str) -> Mail:
    """The greeting after a sign-up."""
    return _mail("welcome", recipient, "Welcome to Riqle", domain, user_id=user_id, name=name)


def _mail(
    kind: Kind,
    recipient: str,
    subject: str,
    domain: str,
    *,
    order_id: str | None = None,
    user_id: str | None = None,
    **values: Any,
) -> Mail:
    return Mail(
        kind=kind,
        recipient=recipient,
        subject=subject,
        text=_templates.get_template(f"{kind}.txt").render(subject=subject, **values),
        html=_templates.get_template(f"{kind}.html").render(subject=subject, **values),
        message_id=idempotency.message_id(kind, order_id or user_id or "", domain),
        order_id=order_id,
        user_id=user_id,
    )
