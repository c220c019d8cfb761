"""The payment provider's signature scheme: `Stripe-Signature: t=<seconds>,v1=<hex>[,v1=<hex>]`."""

from __future__ import annotations

import hashlib
import hmac

TOLERANCE = 300
"""Seconds by which a signature's time may differ from ours."""


class SignatureError(Exception):
    """The webhook does not come from the payment provider, or not from now."""


def sign(payload: bytes, secret: str, timestamp: int) -> str:
    """The header that the provider sends with a payload."""
    return f"t={timestamp},v1={_digest(payload, secret, timestamp)}"


def verify(payload: bytes, header: str | None, secret: str, now: float) -> None:
    """Check that a payload was signed with the secret, within the tolerance of `now`.

    Args:
        payload: The body, byte for byte.
        header: The signature header. While a secret is being replaced it has several `v1`; one that fits is enough.
        secret: The webhook's secret.
        now: Seconds since 1970.

    Raises:
        SignatureError: it says what is wrong, and never what would be right.
    """
    if not header:
        raise SignatureError("the Stripe-Signature header is missing")
    timestamp, signatures = _parse(header)
    # every signature is compared, so that the time taken tells nothing
    expected = _digest(payload, secret, timestamp).encode()
    matches = [hmac.compare_digest(signature.encode(), expected) for signature in signatures]
    if not any(matches):
        raise SignatureError("no signature fits the payload; check the secret, and that nothing rewrote the body")
    if abs(now - timestamp) > TOLERANCE:
        raise SignatureError(f"the signature is {abs(now - timestamp):.0f} s away from now; {TOLERANCE} s are allowed")


def _parse(header: str) -> tuple[int, list[str]]:
    timestamp: int | None = None
    signatures = []
    for part in header.split(","):
        key, _, value = part.strip().partition("=")
        if key == "t" and value.isascii() and value.isdecimal() and len(value) <= 12:
            timestamp = int(value)
        elif key == "v1" and value:
            signatures.append(value)
    if timestamp is None:
        raise SignatureError("the Stripe-Signature header has no time (t=...)")
    if not signatures:
        raise SignatureError("the Stripe-Signature header has no signature (v1=...)")
    return timestamp, signatures


def _digest(payload: bytes, secret: str, timestamp: int) -> str:
    return hmac.new(secret.encode(), f"{timestamp}.".encode() + payload, hashlib.sha256).hexdigest()
