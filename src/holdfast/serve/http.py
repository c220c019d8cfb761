"""Requests and responses as the handler sees them, whatever the framework."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

MAX_BODY_BYTES = 16 * 1024 * 1024
"""A call is at most 4 MB by the protocol; servers other than ours may be less strict."""


class Request(msgspec.Struct):
    """A request."""

    method: str
    url: str
    """As the client sees it, without the query: `https://shop.example/api/inngest`."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


class Response(msgspec.Struct):
    """A response; its body is JSON."""

    status: int
    body: bytes
    headers: dict[str, str]


class BodyTooLargeError(Exception):
    """A request's body is over the limit and was not read."""
