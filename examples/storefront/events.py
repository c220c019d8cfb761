"""The events of the shop. On the wire their fields are camelCase, in Python snake_case."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.alias_generators import to_camel

from holdfast import Event

Id = Annotated[str, Field(min_length=1, max_length=200)]
Address = Annotated[str, Field(pattern=r"^[^@\s<>,;]+@[^@\s<>,;]+$", max_length=254)]
"""An e-mail address: enough of a check to keep nonsense out; whether it exists, the mail server knows."""


class PurchaseConfirmation(Event, name="email/purchase-confirmation", alias_generator=to_camel):
    """A purchase was paid."""

    order_id: Id
    customer_email: Address


class RefundNotification(Event, name="email/refund-notification", alias_generator=to_camel):
    """A purchase was refunded."""

    order_id: Id
    customer_email: Address
    refund_reason: str | None = None


class Welcome(Event, name="email/welcome", alias_generator=to_camel):
    """Somebody signed up."""

    user_id: Id
    email: Address
    name: str | None = None


EVENTS: list[type[Event]] = [PurchaseConfirmation, RefundNotification, Welcome]
