"""Answers to calls: what an HTTP response means (protocol section 2.2), and how to write one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

import msgspec

from holdfast.wire import headers as h
from holdfast.wire.canonical import decode
from holdfast.wire.errors import WireError
from holdfast.wire.opcodes import Opcode, StepFailure, decode_opcodes, encode_opcodes
from holdfast.wire.times import retry_after_ms, retry_after_text

MAX_ANSWER_BYTES = 8 * 1024 * 1024

_OLD_JS = ((1, (1, 10, 1)), (2, (2, 4, 1)))
"""Versions of the JavaScript SDK before which a 4xx was final without saying so: major version, first that says so."""


class Outcome(Enum):
    """What a call came to."""

    OPERATIONS = "operations"
    FINISHED = "finished"
    FAILED = "failed"


class Answer(msgspec.Struct):
    """The meaning of an SDK's response."""

    outcome: Outcome
    operations: list[Opcode] = []
    """Of OPERATIONS. None at all asks for another discovery call."""
    result: bytes = b"null"
    """Of FINISHED: JSON of what the function returned."""
    error: StepFailure | None = None
    """Of FAILED."""
    output: bytes = b"null"
    """Of FAILED: what the run shows as its output if this was the last attempt."""
    no_retry: bool = False
    retry_after: int | None = None
    """Milliseconds to wait before the next attempt instead of the usual delay."""
    version: int | None = None
    """The request version that the SDK speaks."""
    status: int | None = None
    """Of FAILED: the HTTP status with which the SDK said so."""


class Written(msgspec.Struct):
    """An answer as an HTTP response, without the headers that name the SDK."""

    status: int
    body: bytes
    headers: dict[str, str] = {}


class _Streamed(msgspec.Struct):
    status: int = 200
    headers: dict[str, str] | None = None
    body: msgspec.Raw = msgspec.Raw(b"null")
    error: str | None = None


# -- writing ---------------------------------------------------------------------------------------------------------


def operations(opcodes: Sequence[Opcode], *, no_retry: bool = False, retry_after: int | None = None) -> Written:
    """Opcodes; none of them asks for another discovery call."""
    return Written(206, encode_opcodes(opcodes), _retry_headers(no_retry, retry_after))


def finished(result: bytes) -> Written:
    """The function returned this JSON."""
    return Written(200, result)


def failed(error: StepFailure, *, status: int = 500, no_retry: bool = False, retry_after: int | None = None) -> Written:
    """The function raised an error; it is tried again unless `no_retry`, after `retry_after` milliseconds if given."""
    return Written(status, msgspec.json.encode(error), _retry_headers(no_retry, retry_after))


def _retry_headers(no_retry: bool, retry_after: int | None) -> dict[str, str]:
    out = {h.NO_RETRY: "true" if no_retry else "false"}
    if retry_after is not None and not no_retry:
        out[h.RETRY_AFTER] = retry_after_text(retry_after)
    return out


# -- reading ---------------------------------------------------------------------------------------------------------


def read(status: int, headers: Mapping[str, str], body: bytes, now: int) -> Answer:
    """What a response to a call means. Never raises: what can't be understood is a failure that may be retried.

    Args:
        status: The HTTP status.
        headers: Names in lower case.
        body: Decompressed.
        now: Milliseconds since 1970, for Retry-After dates.
    """
    if len(body) > MAX_ANSWER_BYTES:
        return _failure("output_too_large", "Your function's response body exceeds the maximum size limit", prefixed=True)
    if h.SDK not in headers:
        return _not_an_sdk(status, body)
    if status == 201:
        return _streamed(headers, body, now)
    answer = _of_sdk(status, headers, body)
    answer.retry_after = retry_after_ms(headers.get(h.RETRY_AFTER), now)
    version = headers.get(h.REQUEST_VERSION, "")
    answer.version = int(version) if version.lstrip("-").isdecimal() and len(version) < 6 else None
    return answer


def _of_sdk(status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    no_retry = headers.get(h.NO_RETRY, "").strip().lower() == "true"
    if status == 206:
        try:
            return Answer(Outcome.OPERATIONS, operations=decode_opcodes(body), no_retry=no_retry)
        except WireError as error:
            return _failure("Error", f"error reading generator opcode response: {error}", data=_shown(body))
    if 200 <= status < 300:
        return Answer(Outcome.FINISHED, result=_json(body) or msgspec.json.encode(_shown(body)))
    old = 400 <= status < 500 and _final_without_saying(headers[h.SDK])
    found = _json(body)
    value = _shown(body) if found is None else msgspec.json.decode(found)
    failure = StepFailure.of(value or f"the SDK answered {status}")
    output = found or msgspec.json.encode({"name": failure.name, "message": failure.message})
    return Answer(Outcome.FAILED, error=failure, output=output, no_retry=no_retry or old, status=status)


def _streamed(headers: Mapping[str, str], body: bytes, now: int) -> Answer:
    """An answer that began before its status was known: white space to keep the connection open, then one document."""
    try:
        inner: _Streamed = decode(body.strip(), _Streamed)
    except WireError:
        return _failure("Error", "Your server reset the connection while we were reading the reply", data=_shown(body))
    if inner.error:
        return _failure("Error", inner.error)
    content = bytes(inner.body)
    if content[:1] == b'"':
        content = str(decode(content, str)).encode()
    # not its headers only: a proxy may have seen those of the outer answer
    merged = {**headers, **{name.lower(): value for name, value in (inner.headers or {}).items()}}
    return read(500 if inner.status == 201 else inner.status, merged, content, now)


def _not_an_sdk(status: int, body: bytes) -> Answer:
    if 200 <= status < 300:
        message = "The response did not come from an Inngest SDK"
        return Answer(
            Outcome.FAILED, error=StepFailure("not_sdk", message), output=_json(body) or msgspec.json.encode(_shown(body))
        )
    return _failure(
        "Server returned a fatal error",
        f"Your server returned HTTP {status} before the SDK responded.",
        data=_shown(body),
    )


def _failure(name: str, message: str, *, data: str | None = None, prefixed: bool = False) -> Answer:
    inner: dict[str, object] = {"error": f"{name}: {message}" if prefixed else message, "name": name, "message": message}
    if data:
        inner["stack"] = data
    return Answer(
        Outcome.FAILED, error=StepFailure(name, message, stack=data), output=msgspec.json.encode({"error": inner})
    )


def _json(body: bytes) -> bytes | None:
    """The body if it is JSON, nothing at all counting as null."""
    if not body.strip():
        return b"null"
    try:
        decode(body)
    except WireError:
        return None
    return body


def _shown(body: bytes) -> str:
    return body[:4096].decode(errors="replace")


def _final_without_saying(sdk: str) -> bool:
    name, version = h.sdk_parts(sdk)
    try:
        parts = tuple(int(part) for part in version.partition("-")[0].split("."))
    except ValueError:
        return False
    return name == "js" and any(parts[0] == major and parts < first for major, first in _OLD_JS)
