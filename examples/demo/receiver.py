"""A system that webhooks are delivered to."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route


@dataclass(frozen=True)
class Arrived:
    """A webhook as it came."""

    body: bytes
    headers: dict[str, str]


@dataclass
class Receiver:
    """Takes webhooks, and can be told to misbehave."""

    failures: list[int] = field(default_factory=list)
    """Statuses with which the next ones are refused."""
    down: bool = False
    """Whether every one is answered 503."""
    retry_after: int | None = None
    """Seconds that refusals ask to wait."""
    seconds: float = 0.0
    """How long an answer takes."""
    arrived: list[Arrived] = field(default_factory=list)
    """All that came, refused ones too."""

    def app(self) -> Starlette:
        """The receiver as a web application."""
        return Starlette(routes=[Route("/hooks", self._take, methods=["POST"])])

    async def _take(self, request: Request) -> Response:
        self.arrived.append(Arrived(await request.body(), dict(request.headers)))
        await asyncio.sleep(self.seconds)
        status = 503 if self.down else self.failures.pop(0) if self.failures else 200
        headers = {"Retry-After": str(self.retry_after)} if status >= 400 and self.retry_after is not None else {}
        return PlainTextResponse("" if status == 200 else "out of order", status, headers)
