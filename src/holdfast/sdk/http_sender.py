"""Sending to a holdfast server over HTTP, for processes that execute nothing themselves (protocol section 1.2)."""

from __future__ import annotations

import asyncio
import hashlib
import re
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from holdfast.base.errors import (
    ConfigurationError,
    EventInvalidError,
    HoldfastError,
    NotRunningError,
    OverloadedError,
    StoreError,
    StoreFullError,
)
from holdfast.base.ids import ulid_bytes, ulid_ms
from holdfast.sdk.sender import Outgoing, Sent

_TIMEOUT_SECONDS = 30


class _Wire(msgspec.Struct, omit_defaults=True):
    name: str
    data: msgspec.Raw
    id: str | None = None
    ts: int | None = None
    v: str | None = None
    user: msgspec.Raw | None = None


class _Answer(msgspec.Struct):
    ids: list[str] = []
    status: int = 200
    error: str = ""


class _Resumed(msgspec.Struct):
    run_id: str


class _SignalAnswer(msgspec.Struct):
    data: _Resumed


class HttpSender:
    """Posts events to `<base>/e/<key>`.

    Args:
        base: The server's address, such as `http://127.0.0.1:8288`.
        event_key: The event key; any in development.
        signing_key: The signing key, for signals in production.
    """

    def __init__(self, base: str, event_key: str, signing_key: str | None = None) -> None:
        self._signing_key = signing_key
        self._base = base.rstrip("/")
        self._url = f"{self._base}/e/{event_key}"

    async def send(self, events: Sequence[Outgoing]) -> list[Sent]:
        """See `Sender.send`. The request is made in a thread, so that nothing of the caller's loop is held up."""
        return await asyncio.to_thread(self.send_threadsafe, events)

    async def send_seeded(self, events: Sequence[Outgoing], seed: str) -> list[Sent]:
        """Send so that a repetition with the same seed gives the events the same internal ids (protocol section 1.2)."""
        return await asyncio.to_thread(self.send_threadsafe, events, seed)

    def send_threadsafe(self, events: Sequence[Outgoing], seed: str | None = None) -> list[Sent]:
        """See `Sender.send_threadsafe`."""
        if not events:
            return []
        body = msgspec.json.encode(
            [
                _Wire(e.name, msgspec.Raw(e.data), e.id, e.ts, e.v, None if e.user is None else msgspec.Raw(e.user))
                for e in events
            ]
        )
        answer = self._post(body, {} if seed is None else {"X-Inngest-Event-Id-Seed": seed})
        return [Sent(ulid_bytes(event_id)) for event_id in answer.ids]

    async def send_signal(self, name: str, data: bytes) -> str | None:
        """See `Sender.send_signal`. In production the signing key in `INNGEST_SIGNING_KEY` is needed."""
        return await asyncio.to_thread(self._post_signal, name, data)

    def _post_signal(self, name: str, data: bytes) -> str | None:
        body = msgspec.json.encode({"signal": name, "data": msgspec.Raw(data)})
        headers = {"Authorization": f"Bearer {_hashed(self._signing_key)}"} if self._signing_key else {}
        try:
            answer = self._request(f"{self._base}/v1/signals", body, headers)
        except EventInvalidError as error:
            if error.status == 404:
                return None
            raise
        return msgspec.json.decode(answer, type=_SignalAnswer).data.run_id

    def _post(self, body: bytes, headers: Mapping[str, str]) -> _Answer:
        return msgspec.json.decode(self._request(self._url, body, headers), type=_Answer)

    def _request(self, url: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        headers = {"Content-Type": "application/json", **headers}
        request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310 - configured address
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310
                answer: bytes = response.read()
                return answer
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(error.code, error.read(), dict(error.headers)) from error
        except (urllib.error.URLError, OSError) as error:
            reason: Any = getattr(error, "reason", error)
            raise NotRunningError(
                f"no holdfast server answers at {self._base} ({reason}): "
                "start one with `holdfast dev`, or correct INNGEST_BASE_URL"
            ) from error


def seed_of(event_id: bytes) -> str:
    """The seed under which the first event of a request has this internal id."""
    counter = (int.from_bytes(event_id[12:], "big") - 1) & 0xFFFFFFFF
    entropy = event_id[6:12] + counter.to_bytes(4, "big")
    return f"{ulid_ms(event_id)},{b64encode(entropy).decode()}"


def _hashed(signing_key: str) -> str:
    """The form of a signing key that travels (protocol section 1.1)."""
    try:
        return hashlib.sha256(bytes.fromhex(re.sub(r"^signkey-\w+-", "", signing_key))).hexdigest()
    except ValueError as error:
        raise ConfigurationError("INNGEST_SIGNING_KEY is not a signing key; `holdfast keys new` makes one") from error


def _refusal(status: int, body: bytes, headers: dict[str, str]) -> HoldfastError:
    try:
        message = msgspec.json.decode(body, type=_Answer).error
    except (msgspec.DecodeError, msgspec.ValidationError):
        message = body[:200].decode(errors="replace")
    message = message or f"the server answered {status}"
    if status == 503:
        return OverloadedError(message, retry_after=float(headers.get("Retry-After", "1")))
    if status == 507:
        return StoreFullError(message)
    if status >= 500:
        return StoreError(message)
    if status == 401:
        return NotRunningError(
            f"{message}: the server does not know the key; set INNGEST_EVENT_KEY, for signals INNGEST_SIGNING_KEY"
        )
    return EventInvalidError(message, status=status)
