"""Delivering webhooks to other systems: signed, and told apart by an id, because one may arrive twice."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from holdfast import NonRetriableError, RetryAfterError

SIGNATURE_HEADER = "X-Studio-Signature"
DELIVERY_HEADER = "X-Studio-Delivery"
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which the same report may be taken."""


class ReceiverError(Exception):
    """The receiver did not take a report this time; trying again makes sense."""


@dataclass(frozen=True)
class Delivery:
    """What is reported, and to whom."""

    url: str
    id: str
    """The same for each attempt, so that the receiver can drop what it has."""
    event: str
    at: datetime
    payload: dict[str, Any]

    def body(self) -> bytes:
        """The body, byte for byte the same for each attempt."""
        content = {"id": self.id, "event": self.event, "at": self.at.isoformat(), "payload": self.payload}
        return json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Delivered:
    """A report that was taken."""

    url: str
    status: int


def sign(body: bytes, secret: str, timestamp: int) -> str:
    """The signature header: seconds since 1970, and the HMAC-SHA256 of them, a dot, and the body."""
    digest = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


class Deliverer:
    """Delivers reports."""

    def __init__(self, client: httpx.AsyncClient, secret: str, timeout: float, *, only_https: bool) -> None:
        self._client = client
        self._secret = secret
        self._timeout = timeout
        self._only_https = only_https

    async def deliver(self, delivery: Delivery) -> Delivered:
        """Deliver a report; returns when it was taken.

        Raises:
            NonRetriableError: the receiver refuses it, or its address is not allowed.
            RetryAfterError: the receiver says when to come back.
            ReceiverError: it can't be reached, is too slow, or has a problem.
        """
        if self._only_https and not delivery.url.startswith("https://"):
            raise NonRetriableError(f"{delivery.url} is not https, and in production nothing else is delivered to")
        body = delivery.body()
        headers = {
            "Content-Type": "application/json",
            DELIVERY_HEADER: delivery.id,
            SIGNATURE_HEADER: sign(body, self._secret, int(delivery.at.timestamp())),
        }
        try:
            response = await self._client.post(delivery.url, content=body, headers=headers, timeout=self._timeout)
        except httpx.TimeoutException as error:
            raise ReceiverError(f"{delivery.url} did not answer within {self._timeout:g} s") from error
        except httpx.TransportError as error:
            raise ReceiverError(f"{delivery.url} can't be reached: {error or type(error).__name__}") from error
        except httpx.InvalidURL as error:
            raise NonRetriableError(f"{delivery.url} is not an address: {error}") from error
        if not response.is_success:
            raise _refusal(delivery.url, response)
        return Delivered(delivery.url, response.status_code)


def _refusal(url: str, response: httpx.Response) -> Exception:
    message = f"{url} answered {response.status_code}"
    if response.status_code not in TRANSIENT:
        return NonRetriableError(f"{message}; it does not want this report")
    wait = response.headers.get("retry-after", "")
    if wait.isascii() and wait.isdecimal():
        return RetryAfterError(message, int(wait))
    return ReceiverError(message)
