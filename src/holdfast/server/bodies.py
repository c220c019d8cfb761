"""Request bodies: read with a cap, a time limit and a bound on what all requests hold together."""

from __future__ import annotations

import asyncio

from starlette.types import Receive, Scope

from holdfast.base.errors import ConfigurationError
from holdfast.server.errors import ApiError

_FORMS = (b"application/x-www-form-urlencoded", b"multipart/")


class ClientGoneError(Exception):
    """The client closed the connection before its body was complete. Nobody is left to answer."""


class Budget:
    """The bytes of bodies in memory, over all requests.

    Args:
        limit: At most this many.
    """

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ConfigurationError(f"max_bytes_in_flight must be at least 1, not {limit}")
        self.limit = limit
        self.used = 0

    def take(self, count: int) -> bool:
        """Count bytes in; False, and none counted, when there is no room."""
        if self.used + count > self.limit:
            return False
        self.used += count
        return True

    def give_back(self, count: int) -> None:
        """Count bytes out."""
        self.used -= count


def header(scope: Scope, name: bytes) -> bytes:
    """A request header's value, empty when it isn't there; the first when it is repeated."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return b""


def check_content(scope: Scope) -> None:
    """Refuse bodies that can't be read as they are: compressed ones and forms.

    Raises:
        ApiError: 415 for compressed ones, 400 for forms.
    """
    for key, value in scope["headers"]:
        if key == b"content-encoding" and value.strip().lower() not in {b"", b"identity"}:
            raise ApiError(
                415,
                f"the body is compressed ({value[:20].decode('latin-1')}); send it as it is, without Content-Encoding",
                "unsupported_encoding",
                close=True,
            )
        if key == b"content-type" and value.strip().lower().startswith(_FORMS):
            raise ApiError(
                400,
                "a form is not an event: send JSON, with `Content-Type: application/json` "
                "(curl: -H 'content-type: application/json')",
                "event_invalid",
                close=True,
            )


async def read_body(scope: Scope, receive: Receive, cap: int, budget: Budget, timeout: float) -> bytes:
    """The whole body. The caller gives its bytes back to the budget when it is done with them.

    Args:
        scope: The request.
        receive: The request's ASGI channel.
        cap: Most bytes of this body.
        budget: What all bodies together may hold.
        timeout: Seconds in which it must have arrived.

    Raises:
        ApiError: 413 past the cap, 503 past the budget, 408 past the time. Nothing stays counted.
        ClientGoneError: the connection closed before the body was whole.
    """
    declared = header(scope, b"content-length")
    # a length is checked before anything is read, and never trusted afterwards
    if declared and int(declared) > cap:
        raise _too_large(cap)
    reading = _Reading(receive, cap, budget)
    try:
        async with asyncio.timeout(timeout):
            return await reading.whole()
    except TimeoutError:
        reading.drop()
        raise ApiError(408, f"the body did not arrive within {timeout:g} seconds", "body_timeout", close=True) from None
    except BaseException:
        reading.drop()
        raise


class _Reading:
    __slots__ = ("_budget", "_cap", "_receive", "_size")

    def __init__(self, receive: Receive, cap: int, budget: Budget) -> None:
        self._receive = receive
        self._cap = cap
        self._budget = budget
        self._size = 0

    def drop(self) -> None:
        self._budget.give_back(self._size)
        self._size = 0

    async def whole(self) -> bytes:
        # one buffer: a list of one-byte chunks would hold forty times what the budget counts
        buffer = bytearray()
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            chunk = message.get("body", b"")
            self._take(len(chunk))
            if not message.get("more_body", False):
                return bytes(buffer + chunk) if buffer else chunk
            buffer += chunk

    def _take(self, count: int) -> None:
        if self._size + count > self._cap:
            raise _too_large(self._cap)
        if not self._budget.take(count):
            raise ApiError(
                503,
                "the server holds as many request bodies as it is allowed to; try again shortly",
                "overloaded",
                retry_after=1,
                close=True,
            )
        self._size += count


def _too_large(cap: int) -> ApiError:
    return ApiError(413, f"the body is larger than {cap} bytes; send fewer events per request", "too_large", close=True)
