"""Tokens for one run: whoever holds one may read what became of it, and nothing else. JSON Web Tokens, signed with a secret of the run."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode

import msgspec

OUTPUT = "output"
"""May read the run's output."""
REALTIME = "realtime"
"""May follow what the run says while it goes on."""
LIFETIME_SECONDS = 86_400
_HEADER = {"alg": "HS256", "typ": "JWT"}


class _Claims(msgspec.Struct):
    sub: str
    aud: str
    exp: int


def issue(secret: str, run_id: str, audience: str, now: int) -> str:
    """A token for a run, good for a day.

    Args:
        secret: The run's own.
        run_id: The run.
        audience: OUTPUT or REALTIME.
        now: Milliseconds since 1970.
    """
    claims = _Claims(run_id, audience, now // 1000 + LIFETIME_SECONDS)
    text = f"{_part(msgspec.json.encode(_HEADER))}.{_part(msgspec.json.encode(claims))}"
    return f"{text}.{_signature(secret, text)}"


def accepts(secret: str, token: str, run_id: str, audience: str, now: int) -> bool:
    """Whether a token was issued for this run and audience, and has not expired."""
    text, _, signature = token.rpartition(".")
    if not secret or not hmac.compare_digest(_signature(secret, text).encode(), signature.encode("utf-8", "replace")):
        return False
    payload = text.partition(".")[2]
    try:
        claims = msgspec.json.decode(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)), type=_Claims)
    except (ValueError, msgspec.DecodeError):
        return False
    return claims.sub == run_id and claims.aud == audience and claims.exp > now // 1000


def _part(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _signature(secret: str, text: str) -> str:
    return _part(hmac.digest(secret.encode(), text.encode("utf-8", "replace"), "sha256"))
