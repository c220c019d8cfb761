"""Errors as the API writes them (protocol section 1.1), and which status belongs to which."""

from __future__ import annotations

import math

import msgspec
from starlette.responses import Response

from holdfast.base.errors import (
    ConfigurationError,
    EventInvalidError,
    HoldfastError,
    OverloadedError,
    RunNotFoundError,
    RunRefusedError,
    StoreError,
    StoreFailedError,
    StoreFullError,
)

_CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    413: "too_large",
}


class ApiError(Exception):
    """A request that can't be done, as its client is told.

    Args:
        status: The HTTP status.
        message: What was wrong and what to do.
        code: A stable name for programs.
        retry_after: Seconds after which trying again makes sense, where it does.
        close: Whether the connection can't be used again, because its body was not read.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        *,
        retry_after: float | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code or _CODES.get(status, "error")
        self.headers: dict[str, str] = {}
        if retry_after is not None:
            self.headers["retry-after"] = str(max(1, math.ceil(retry_after)))
        if close:
            self.headers["connection"] = "close"


class ErrorBody(msgspec.Struct, frozen=True):
    """An error. SDKs read `error` and `status`."""

    error: str
    """What was wrong, in a sentence."""
    status: int
    """The HTTP status."""
    data: None = None
    code: str = "error"
    """A stable name for programs."""


def error_body(error: ApiError) -> bytes:
    """The JSON of an error."""
    return msgspec.json.encode(ErrorBody(error.message, error.status, None, error.code))


def error_response(error: ApiError) -> Response:
    """An error as a response."""
    return Response(error_body(error), error.status, error.headers, media_type="application/json")


def api_error(error: HoldfastError) -> ApiError:
    """What a client is told of an error of the engine."""
    retry_after = None
    if isinstance(error, EventInvalidError):
        status = error.status
    elif isinstance(error, RunNotFoundError):
        status = 404
    elif isinstance(error, RunRefusedError):
        status = 422
    elif isinstance(error, OverloadedError):
        status, retry_after = 503, error.retry_after
    elif isinstance(error, StoreFullError):
        status = 507
    elif isinstance(error, StoreFailedError):
        status, retry_after = 503, 30.0
    elif isinstance(error, StoreError):
        status, retry_after = 503, 1.0
    else:
        status = 409
    # what was set up wrongly is not the client's to mend: to it, the request is just not possible
    code = "not_possible" if isinstance(error, ConfigurationError) else error.code
    return ApiError(status, str(error), code, retry_after=retry_after)
