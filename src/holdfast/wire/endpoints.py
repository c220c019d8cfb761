"""Durable endpoints: HTTP handlers whose steps are recorded (protocol section 1.6).

The SDK executes the run of such an endpoint within the request of the client, and reports its steps. Only what can't be
executed there (a sleep, a wait, a retry) moves the run to the server, which from then on makes the client's request anew.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from typing import Any
from urllib.parse import urlencode

import msgspec

from holdfast.base.limits import DEFAULT_RETRIES, MAX_RETRIES
from holdfast.wire.canonical import decode
from holdfast.wire.errors import WireError
from holdfast.wire.opcodes import Opcode, decode_opcodes

REQUESTED = "inngest/http.request"
"""The event that stands for the client's request."""
_MAX_NAME = 255


class EndpointRequest(msgspec.Struct):
    """The client's request, as the data of its event."""

    domain: str
    """Scheme and host."""
    path: str
    method: str = "GET"
    query_params: str = ""
    content_type: str = ""
    body: str = ""
    """Text, or base64 of it; see `body_bytes`."""
    fn: str = ""
    """The endpoint's name, where it was given one."""
    ip: str = ""

    @property
    def name(self) -> str:
        """What the endpoint is called."""
        return self.fn or f"{self.method} {self.path}"

    @property
    def url(self) -> str:
        """Where it was made."""
        query = self.query_params.removeprefix("?")
        return f"{self.domain}{self.path}" + (f"?{query}" if query else "")


class NewRun(msgspec.Struct):
    """The body of `POST /v1/checkpoint`: a run that an SDK executes within its client's request."""

    run_id: str
    request: EndpointRequest
    data: bytes
    """JSON of the event's data, as it came."""
    steps: list[Opcode]
    event_id: str | None = None
    """With it, the same request again starts no second run."""
    ts: int = 0
    """The event's; 0 for now."""
    version: int = -1
    retries: int = DEFAULT_RETRIES


class Reported(msgspec.Struct):
    """The body of `POST /v1/checkpoint/{run}/steps`."""

    run_id: str
    steps: list[Opcode]


class _Event(msgspec.Struct):
    data: msgspec.Raw
    id: str | None = None
    ts: int | None = None


class _Loose(msgspec.Struct):
    run_id: str
    event: _Event
    steps: msgspec.Raw = msgspec.Raw(b"[]")
    idempotency: str | None = None
    request_version: int | None = None
    retries: Any = None


class _LooseReport(msgspec.Struct):
    run_id: str = ""
    steps: msgspec.Raw = msgspec.Raw(b"[]")


def decode_new_run(body: bytes) -> NewRun:
    """Read the beginning of a run.

    Raises:
        WireError: it is not one; the message says what is wrong with it.
    """
    loose: _Loose = decode(body, _Loose)
    data = bytes(loose.event.data)
    retries = loose.retries if type(loose.retries) is int else DEFAULT_RETRIES
    return NewRun(
        loose.run_id,
        decode_request(data),
        data,
        decode_opcodes(bytes(loose.steps)),
        loose.idempotency or loose.event.id or None,
        loose.event.ts or 0,
        -1 if loose.request_version is None else loose.request_version,
        max(0, min(retries, MAX_RETRIES)),
    )


def decode_request(data: bytes) -> EndpointRequest:
    """Read the data of the event.

    Raises:
        WireError: no request can be made from it.
    """
    found = decode(data, dict[str, Any])
    known = {name: value for name, value in found.items() if name in EndpointRequest.__struct_fields__ and value is not None}
    if isinstance(known.get("query_params"), dict):
        known["query_params"] = urlencode(known["query_params"], doseq=True)
    try:
        request = msgspec.convert(known, EndpointRequest)
    except msgspec.ValidationError as error:
        raise WireError(f"event.data: {error}") from error
    if not request.domain.startswith(("http://", "https://")):
        raise WireError(f"event.data.domain must be the scheme and host of the endpoint, not {request.domain!r:.60}")
    if not request.path.startswith("/"):
        raise WireError(f"event.data.path must begin with a slash, not be {request.path!r:.60}")
    if not request.method.isalpha():
        raise WireError(f"event.data.method must be an HTTP method, not {request.method!r:.60}")
    if len(request.domain) > _MAX_NAME or len(request.name) > _MAX_NAME:
        raise WireError(f"the endpoint's address or name is longer than {_MAX_NAME} characters; give it a shorter functionId")
    return request


def body_bytes(body: str, *, encoded: bool) -> bytes:
    """The body of a request or a response as bytes.

    Args:
        body: As an SDK said it.
        encoded: Whether its SDK writes base64, as those do whose language has bytes.
    """
    if encoded:
        try:
            return b64decode(body, validate=True)
        except (binascii.Error, ValueError):
            pass  # a short text, of an SDK that doesn't
    return body.encode()


def decode_report(body: bytes) -> Reported:
    """Read a report of steps.

    Raises:
        WireError: it is not one.
    """
    loose: _LooseReport = decode(body, _LooseReport)
    return Reported(loose.run_id, decode_opcodes(bytes(loose.steps)))
