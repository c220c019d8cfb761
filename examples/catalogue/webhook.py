"""Salla's webhooks: the signature, and what is taken from the body before it is stored."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Any

SIGNATURE_HEADER = "X-Salla-Signature"
HIDDEN = "[not shown]"
_SECRETS = frozenset({"access_token", "refresh_token", "client_secret", "id_token"})


class SignatureError(Exception):
    """The webhook does not come from Salla."""


class WebhookContentError(Exception):
    """A genuine webhook lacks something that is needed; the message names it."""


@dataclass(frozen=True)
class Report:
    """What a webhook says."""

    event: str
    merchant_salla_id: int
    payload: dict[str, Any]


def sign(payload: bytes, secret: str) -> str:
    """The header that Salla sends with a payload: the hex of its HMAC-SHA256."""
    return hmac.new(secret.encode(), payload, hashlib.sha256).hexdigest()


def verify(payload: bytes, header: str | None, secret: str) -> None:
    """Check that a payload was signed with the secret.

    Raises:
        SignatureError: it says what is wrong, and never what would be right.
    """
    if not header:
        raise SignatureError(f"the {SIGNATURE_HEADER} header is missing")
    if not hmac.compare_digest(header.strip().lower().encode(), sign(payload, secret).encode()):
        raise SignatureError(
            "the signature doesn't fit the payload; check the secret, and that nothing rewrote the body"
        )


def read_report(payload: bytes) -> Report:
    """What a genuine webhook says.

    Raises:
        WebhookContentError: it is no JSON, or lacks its event or merchant.
    """
    try:
        body = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise WebhookContentError(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise WebhookContentError("the body is not a JSON object")
    event, merchant = body.get("event"), body.get("merchant")
    if not isinstance(event, str) or not 0 < len(event) <= 200:
        raise WebhookContentError("the webhook lacks its event")
    if isinstance(merchant, bool) or not isinstance(merchant, int):
        raise WebhookContentError("the webhook lacks its merchant, a number")
    return Report(event, merchant, body)


def without_secrets(value: Any) -> Any:
    """A payload as it may be shown: an event is on the dashboard, and tokens are nobody's business there."""
    if isinstance(value, dict):
        return {key: HIDDEN if key in _SECRETS else without_secrets(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    return value
