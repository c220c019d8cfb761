"""The answer for work that could not be accepted."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from holdfast import OverloadedError, StoreError


def answer_refusals(api: FastAPI) -> None:
    """Answer 503 with Retry-After where holdfast takes no more: nothing was kept, and trying again makes sense."""
    for refusal in (OverloadedError, StoreError):
        api.add_exception_handler(refusal, _try_again_later)


def _try_again_later(_request: Request, error: Exception) -> JSONResponse:
    seconds = error.retry_after if isinstance(error, OverloadedError) else 5
    return JSONResponse({"detail": str(error)}, status_code=503, headers={"Retry-After": str(max(1, round(seconds)))})
