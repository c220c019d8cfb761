"""Which errors of remote calls are transient, and how long the other side asked to wait."""

from __future__ import annotations

import errno
import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

from holdfast.base.clock import to_ms
from holdfast.base.errors import (
    HoldfastError,
    NonRetriableError,
    OverloadedError,
    RetryAfterError,
    StepError,
    StepTimeoutError,
)
from holdfast.base.limits import MAX_WAIT_MS

RETRIED_STATUSES: Final = frozenset({429, 500, 502, 503, 504})
"""The HTTP statuses worth another attempt."""

_REFUSED: Final = "connection refused"
_RESET: Final = "connection reset"
_TIMED_OUT: Final = "timed out"
_FAILED: Final = "connection failed"
"""A client's general connection error; what it carries tells refused from an unknown host or a bad certificate."""
_NO: Final = ""
"""The error's status or type says: not retried."""

# a reset shows as EPIPE while writing, and as ECONNABORTED on some systems
_ERRNOS: Final = {
    errno.ECONNREFUSED: _REFUSED,
    errno.ECONNRESET: _RESET,
    errno.ECONNABORTED: _RESET,
    errno.EPIPE: _RESET,
    errno.ETIMEDOUT: _TIMED_OUT,
}
_TIMEOUT_NAME: Final = re.compile(
    r"(API|Connect|Connection|Gateway|Pool|Read|Request|Response|Server|Socket|Write)?Time(out|dOut)(Error|Exception)?"
)
_NAMES: Final = {
    "ServerDisconnectedError": _RESET,  # aiohttp
    "ClientConnectorError": _FAILED,  # aiohttp, when several addresses failed differently
    "ConnectError": _FAILED,  # httpx, httpcore
    "ConnectionError": _FAILED,  # the builtin, requests, redis
    "NewConnectionError": _FAILED,  # urllib3
    "APIConnectionError": _FAILED,  # openai, anthropic, stripe
    "EndpointConnectionError": _FAILED,  # botocore
}
_HTTPX_NAMES: Final = {"ReadError": _FAILED, "WriteError": _FAILED, "NetworkError": _FAILED}
# httpx: closed where an answer was due, which the standard library calls a reset too; aiohttp: reset inside an answer
_LOST_WHEN: Final = {"RemoteProtocolError": "disconnected", "ClientPayloadError": "ConnectionResetError"}
_CLIENT_PACKAGES: Final = frozenset({"aiohttp", "anyio", "botocore", "httpcore", "httpx", "requests", "urllib3"})
_LASTING_NAMES: Final = frozenset({"SSLError", "ClientSSLError", "gaierror", "NameResolutionError"})
_MESSAGE: Final = re.compile(
    r"(?P<status>(?<!\d\.)\b(?:429|500|502|503|504)\b(?!\.\d))"
    r"|\b(?P<reset>connection[ _]reset|ECONNRESET|ERR_CONNECTION_RESET)\b"
    r"|\b(?P<refused>connection[ _]refused|ECONNREFUSED|ERR_CONNECTION_REFUSED)\b"
    r"|\b(?P<timed_out>timed[ _]out|ETIMEDOUT|ERR_(?:CONNECTION_)?TIMED_OUT)\b",
    re.IGNORECASE,
)
_MESSAGE_REASONS: Final = {"reset": _RESET, "refused": _REFUSED, "timed_out": _TIMED_OUT}
_MAX_DEPTH: Final = 8
_MISSING: Final = object()


def retry_reason(error: BaseException) -> str | None:
    """Why an error is worth another attempt, such as "HTTP 503" or "connection refused"; None if it is not.

    The error's own status or type decides, whichever client raised it: HTTP 429, 500, 502, 503, 504, connection reset,
    refused or timed out. An error that carries neither is judged by the one it was raised from, then by those codes as
    whole words in its message.
    """
    return judge(error)[0]


def judge(error: BaseException) -> tuple[str | None, BaseException]:
    """The reason to try again, if any, and the error that gave it."""
    if not isinstance(error, Exception):
        return None, error
    verdict, source = _verdict(error, 0)
    if verdict is None and not isinstance(error, BaseExceptionGroup):
        verdict = _message_verdict(error)
    return verdict or None, source


def _verdict(error: BaseException, depth: int) -> tuple[str | None, BaseException]:
    own = _own_verdict(error)
    if (own is not None and own != _FAILED) or depth == _MAX_DEPTH:
        return own, error
    # several addresses of one host may each have failed in their own way: one that can recover is enough
    refusal: BaseException | None = None
    for inner in _carried(error):
        verdict, source = _verdict(inner, depth + 1)
        if verdict:
            return verdict, source
        if verdict == _NO:
            refusal = refusal or source
    return (own, error) if refusal is None else (_NO, refusal)


def _own_verdict(error: BaseException) -> str | None:
    if isinstance(error, OverloadedError):
        return "overloaded"
    if isinstance(error, RetryAfterError):
        return "asked to be tried again"
    if isinstance(error, StepTimeoutError):
        return _TIMED_OUT
    if isinstance(error, NonRetriableError | StepError | HoldfastError) or not isinstance(error, Exception):
        return _NO
    status = _status(error)
    if status is not None:
        return f"HTTP {status}" if status in RETRIED_STATUSES else _NO
    if isinstance(error, OSError) and isinstance(error.errno, int) and not isinstance(error, TimeoutError):
        return _ERRNOS.get(error.errno, _NO)
    return _class_verdict(error)


def _class_verdict(error: BaseException) -> str | None:
    classes = type(error).__mro__
    if any(cls.__name__ in _LASTING_NAMES for cls in classes):
        return _NO
    if isinstance(error, ConnectionRefusedError):
        return _REFUSED
    if isinstance(error, ConnectionResetError | ConnectionAbortedError | BrokenPipeError):
        return _RESET
    for cls in classes:
        name, package = cls.__name__, _package(cls)
        if _TIMEOUT_NAME.fullmatch(name):
            return _TIMED_OUT
        word = _LOST_WHEN.get(name)
        if word and package in _CLIENT_PACKAGES and word in _message(error):
            return _RESET
        if name in _HTTPX_NAMES and package in {"httpx", "httpcore"}:
            return _HTTPX_NAMES[name]
        if name in _NAMES:
            return _NAMES[name]
    return None


def _carried(error: BaseException) -> Iterator[BaseException]:
    """The errors an error was made from: arguments, the system's error, what it was raised from, a group's members."""
    if isinstance(error, BaseExceptionGroup):
        yield from error.exceptions
        return
    candidates = [*error.args, _attribute(error, "reason"), _attribute(error, "os_error"), error.__cause__]
    # outside client libraries, an error raised while handling another one is an error of its own
    if _package(type(error)) in _CLIENT_PACKAGES and not error.__suppress_context__:
        candidates.append(error.__context__)
    yield from (inner for inner in candidates if isinstance(inner, BaseException) and inner is not error)


def _message_verdict(error: BaseException) -> str | None:
    match = _MESSAGE.search(_message(error))
    if match is None or match.lastgroup is None:
        return None
    return _MESSAGE_REASONS.get(match.lastgroup) or f"HTTP {match.group()}"


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # a broken __str__ must not hide the error itself
        return ""


def _package(cls: type) -> str:
    return cls.__module__.partition(".")[0]


def _attribute(holder: object, name: str, default: object = None) -> Any:
    try:
        return getattr(holder, name, default)
    except Exception:  # some clients' properties raise where there is nothing to return
        return default


def _status(error: BaseException) -> int | None:
    """The HTTP status an error carries, under the names that HTTP clients use."""
    response = _attribute(error, "response")
    if isinstance(response, Mapping):  # botocore
        meta = response.get("ResponseMetadata")
        response_status = meta.get("HTTPStatusCode") if isinstance(meta, Mapping) else None
        names: tuple[Any, ...] = (response_status,)
    else:
        names = (_attribute(response, "status_code"), _attribute(response, "status"))
    for value in (*names, *(_attribute(error, name) for name in ("status", "status_code", "http_status"))):
        status = _as_status(value)
        if status is not None:
            return status
    # aiohttp has a deprecated `code` that warns, so it is asked only where there is no `status`
    return _as_status(_attribute(error, "code")) if _attribute(error, "status", _MISSING) is _MISSING else None


def _as_status(value: object) -> int | None:
    if isinstance(value, str) and len(value) == 3 and value.isdecimal():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599:
        return int(value)
    return None


# -- Retry-After -----------------------------------------------------------------------------------------------------


def parse_retry_after(value: object, now: int) -> int | None:
    """Milliseconds from `now` that a Retry-After asks to wait; None for anything that can't be read as one.

    Args:
        value: Seconds, an HTTP date, a timedelta or a datetime.
        now: Milliseconds since 1970.
    """
    if isinstance(value, str):
        text = value.strip()
        if re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII):
            value = float(text)
        else:
            try:
                value = parsedate_to_datetime(text)
            except (ValueError, TypeError, IndexError, OverflowError):
                return None
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, datetime):
        return max(0, to_ms(value) - now)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        return None
    return MAX_WAIT_MS if value * 1000 >= MAX_WAIT_MS else math.ceil(value * 1000)


def retry_after_ms(error: BaseException, now: int) -> int | None:
    """How long the server behind an error asked to wait, by Retry-After or the error's `retry_after`; None if not."""
    response = _attribute(error, "response")
    if isinstance(response, Mapping):  # botocore
        meta = response.get("ResponseMetadata")
        headers = meta.get("HTTPHeaders") if isinstance(meta, Mapping) else None
    else:
        headers = _attribute(response, "headers")
    for value in (_header(headers), _header(_attribute(error, "headers")), _attribute(error, "retry_after")):
        wait = parse_retry_after(value, now)
        if wait is not None:
            return wait
    return None


def _header(headers: object) -> object:
    try:
        pairs: list[tuple[Any, Any]] = list(_attribute(headers, "items")())
        return next((value for name, value in pairs if str(name).lower() == "retry-after"), None)
    except (TypeError, ValueError):  # not a mapping
        return None
