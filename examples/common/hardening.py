"""Headers that keep pages from being framed, guessed at, or given scripts that are not theirs."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_FASTAPIS_OWN = {"/docs", "/redoc"}
"""Pages that load their scripts from elsewhere."""


class Hardening:
    """ASGI middleware that adds the headers to all answers which don't have them.

    Args:
        app: What answers.
        policy: The `Content-Security-Policy`.
    """

    def __init__(self, app: ASGIApp, policy: str) -> None:
        self._app = app
        self._headers = {
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "same-origin",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _FASTAPIS_OWN:
            await self._app(scope, receive, send)
            return

        async def send_hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for header, value in self._headers.items():
                    headers.setdefault(header, value)
            await send(message)

        await self._app(scope, receive, send_hardened)
