"""The notices of changes as server-sent events: what changed, never the data. Browsers then fetch what they show."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import suppress

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from holdfast.dashboard.site import Site
from holdfast.engine.engine import Engine
from holdfast.engine.notices import Notice

INTERVAL = 0.25
"""Seconds between two messages at least."""
PING = 15.0
"""Seconds of silence after which a comment keeps proxies from closing the connection."""
KINDS = ("bulk", "dead", "event", "function", "progress", "run")
_MAX_IDS = 100


class Change(msgspec.Struct):
    """What changed since the last message."""

    kinds: list[str]
    ids: list[str]
    many: bool
    """More ids changed than are listed: take any as changed."""


class _Pending:
    """Notices that arrived and have not been sent on."""

    __slots__ = ("closed", "ids", "kinds", "many", "wake")

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.closed = asyncio.Event()
        self.clear()

    def clear(self) -> None:
        self.kinds: set[str] = set()
        self.ids: set[str] = set()
        self.many = False

    def take(self) -> bytes:
        change = Change(sorted(self.kinds), sorted(self.ids), self.many)
        self.clear()
        self.wake.clear()
        return b"event: change\ndata: " + msgspec.json.encode(change) + b"\n\n"


async def stream(site: Site, request: Request) -> Response:
    """`GET /stream`: one connection per tab."""
    return StreamingResponse(
        messages(site.engine),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", "X-Content-Type-Options": "nosniff"},
    )


async def messages(engine: Engine, *, interval: float = INTERVAL, ping: float = PING) -> AsyncIterator[bytes]:
    """The bytes of the stream, at most one message per interval, until the engine stops or the reader goes."""
    with engine.notices.subscribe() as notices:
        pending = _Pending()
        pump = asyncio.create_task(_pump(notices, pending))
        try:
            yield b"retry: 2000\nevent: hello\ndata: {}\n\n"
            async for message in _coalesced(pending, interval, ping):
                yield message
        finally:
            pump.cancel()
            with suppress(asyncio.CancelledError):
                await pump


async def _coalesced(pending: _Pending, interval: float, ping: float) -> AsyncIterator[bytes]:
    while not pending.closed.is_set():
        try:
            async with asyncio.timeout(ping):
                await pending.wake.wait()
        except TimeoutError:
            yield b": ping\n\n"
            continue
        if pending.kinds:
            yield pending.take()
            # what comes within the interval goes into one message
            with suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await pending.closed.wait()


async def _pump(notices: AsyncIterable[Notice], pending: _Pending) -> None:
    try:
        async for notice in notices:
            pending.kinds.add(notice.kind)
            if not notice.id:
                # more was going on than was kept track of
                pending.kinds.update(KINDS)
                pending.many = True
            elif len(pending.ids) < _MAX_IDS:
                pending.ids.add(notice.id)
            elif notice.id not in pending.ids:
                pending.many = True
            pending.wake.set()
    finally:
        pending.closed.set()
        pending.wake.set()
