"""What makes twice the same into once.

Two things may happen twice: the provider delivers one webhook again, or reports one payment under two ids. The first
is caught when the event is sent, by its id; the second when the e-mail is sent, by order and kind.
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import quote

Kind = Literal["purchase-confirmation", "refund-notification", "welcome"]


def event_id(kind: Kind, subject: str, provider_event_id: str | None = None) -> str | None:
    """The id an event is sent under. holdfast starts a function once for all events of one id within 24 hours.

    Args:
        kind: Which e-mail.
        subject: The order's or the user's id.
        provider_event_id: The payment provider's id of what happened, when it reported it.
    """
    return provider_event_id or f"{kind}:{subject}"


def message_id(kind: Kind, subject: str, domain: str) -> str:
    """The Message-ID of an e-mail: the same on each try, so that a mailbox that knows it can drop a second copy."""
    return f"<{kind}.{quote(subject, safe='')}@{domain}>"
