"""Signing keys and the signatures made with them (protocol section 1.1)."""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from hashlib import sha256
from urllib.parse import parse_qs

from holdfast.base.errors import ConfigurationError
from holdfast.wire.canonical import canonicalise
from holdfast.wire.errors import SignatureError, WireError

SIGNATURE_WINDOW_MS = 300_000
"""A signature older or newer than this is refused."""

_PREFIX = re.compile(r"^signkey-\w+-")
_MAX_HEADER = 512


def strip_prefix(signing_key: str) -> str:
    """The key itself, without `signkey-<environment>-`."""
    return _PREFIX.sub("", signing_key)


def hashed_key(signing_key: str) -> str:
    """What SDKs send as `Authorization: Bearer ...` in place of the key.

    Raises:
        ConfigurationError: the key is not hexadecimal.
    """
    try:
        return sha256(bytes.fromhex(strip_prefix(signing_key))).hexdigest()
    except ValueError as error:
        raise ConfigurationError(
            "the signing key is not hexadecimal after its `signkey-<environment>-`; make one with `holdfast keys new`"
        ) from error


def sign(body: bytes, signing_key: str, now: int) -> str:
    """The value of `x-inngest-signature` for a body in canonical form.

    Args:
        body: What is sent.
        signing_key: The key, with or without its prefix.
        now: Milliseconds since 1970.
    """
    t = now // 1000
    return f"t={t}&s={_digest(body, signing_key, t)}"


def verify(header: str | None, body: bytes, signing_keys: Sequence[str], now: int) -> str:
    """Check a signature; returns the key that made it.

    Args:
        header: The value of `x-inngest-signature`.
        body: The body as it came. One that was written anew on its way is tried in canonical form as well.
        signing_keys: The keys that are valid: the current one, and while keys are rotated the other one.
        now: Milliseconds since 1970.

    Raises:
        SignatureError: it is missing, malformed, older or newer than five minutes, or made with another key.
    """
    if not header:
        raise SignatureError("the request has no x-inngest-signature header")
    t, given = _parts(header)
    if abs(now - t * 1000) > SIGNATURE_WINDOW_MS:
        raise SignatureError("the signature is not of the last five minutes; are both clocks right?")
    found = _signer(body, signing_keys, t, given)
    if found is None:
        found = _signer(_canonical(body), signing_keys, t, given)
    if found is None:
        raise SignatureError("the signature was not made with this application's signing key, or not over this body")
    return found


def _signer(body: bytes, signing_keys: Sequence[str], t: int, given: str) -> str | None:
    """The key that made a signature. Takes the same time whichever it is, or none."""
    found = None
    for key in signing_keys:
        if hmac.compare_digest(_digest(body, key, t), given):
            found = key
    return found


def _parts(header: str) -> tuple[int, str]:
    fields = parse_qs(header[:_MAX_HEADER])
    t, given = fields.get("t", [""])[0], fields.get("s", [""])[0].lower()
    if not re.fullmatch(r"\d{1,12}", t, re.ASCII) or not re.fullmatch(r"[0-9a-f]{64}", given, re.ASCII):
        raise SignatureError("the x-inngest-signature header is not of the form t=<seconds>&s=<hex>")
    return int(t), given


def _canonical(body: bytes) -> bytes:
    try:
        return canonicalise(body)
    except WireError:  # it stays what it is, and its signature wrong
        return body


def _digest(body: bytes, signing_key: str, t: int) -> str:
    return hmac.digest(strip_prefix(signing_key).encode(), body + str(t).encode(), "sha256").hex()
