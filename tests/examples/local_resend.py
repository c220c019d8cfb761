"""Resend, as far as the storefront uses it, on this machine."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


class LocalResend:
    """Resend's endpoint for e-mails: one e-mail per idempotency key."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], dict[str, object]]] = []
        self.sent: dict[str, dict[str, object]] = {}
        self.failures: list[tuple[int, str]] = []
        self.kill_after_taking: int | None = None
        """A process to be killed when an e-mail was taken, before the answer."""

    async def emails(self, request: Request) -> JSONResponse:
        body = await request.json()
        self.requests.append((dict(request.headers), body))
        if request.headers.get("authorization") != "Bearer re_secret":
            return JSONResponse({"statusCode": 401, "message": "API key is invalid", "name": "validation_error"}, 401)
        if self.failures:
            status, message = self.failures.pop(0)
            return JSONResponse({"statusCode": status, "message": message}, status)
        self.sent.setdefault(request.headers["idempotency-key"], body)
        if self.kill_after_taking is not None:
            os.kill(self.kill_after_taking, signal.SIGKILL)
            self.kill_after_taking = None
        return JSONResponse({"id": f"mail-{len(self.sent)}"})


@contextmanager
def serve_resend(local: LocalResend) -> Iterator[str]:
    config = uvicorn.Config(Starlette(routes=[Route("/emails", local.emails, methods=["POST"])]), port=0, log_level="error")
    server = uvicorn.Server(config)
    listener = config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
    listener.close()
