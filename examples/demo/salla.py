"""A stand-in for Salla: its token service, and the webhooks it sends."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


@dataclass
class Salla:
    """The token service. A refresh token works once."""

    failures: list[int] = field(default_factory=list)
    """Statuses with which the next requests are refused."""
    valid: set[str] = field(default_factory=set)
    """Refresh tokens that have not been used."""
    refreshed: int = 0
    """How many tokens were given out."""
    spent_twice: int = 0
    """How often a refresh token came that had been used."""

    def issue(self, seconds: int) -> dict[str, Any]:
        """New tokens that expire so many seconds from now, as a webhook or an answer has them."""
        refresh = f"refresh-{secrets.token_hex(8)}"
        self.valid.add(refresh)
        return {
            "access_token": f"access-{secrets.token_hex(8)}",
            "refresh_token": refresh,
            "expires": int(time.time()) + seconds,
        }

    def routes(self) -> list[Route]:
        """The token service."""
        return [Route("/oauth2/token", self._refresh, methods=["POST"])]

    async def _refresh(self, request: Request) -> Response:
        form = await request.form()
        if self.failures:
            return JSONResponse({"error": "server_error"}, self.failures.pop(0))
        token = str(form.get("refresh_token"))
        if token not in self.valid:
            self.spent_twice += 1
            return JSONResponse({"error": "invalid_grant", "hint": token}, 400)
        self.valid.discard(token)
        self.refreshed += 1
        return JSONResponse(self.issue(14 * 86_400))


def report(event: str, merchant: int, data: dict[str, Any], created_at: str = "2026-08-01T10:00:00+00:00") -> bytes:
    """The body of a webhook."""
    return json.dumps({"event": event, "merchant": merchant, "created_at": created_at, "data": data}).encode()
