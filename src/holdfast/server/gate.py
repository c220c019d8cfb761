"""The door of the server: one ASGI middleware around everything. It asks who comes in, bounds what they send, adds the
headers every answer has, counts, and ends streams when the server stops.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from holdfast.base.clock import monotonic
from holdfast.server.access import Access, is_event_api
from holdfast.server.bodies import Budget, ClientGoneError, header
from holdfast.server.errors import ApiError, error_response
from holdfast.server.metrics import HttpMetrics
from holdfast.server.settings import ServerSettings

_log = logging.getLogger("holdfast.server")

CONTENT_SECURITY_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    b"font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_SECURITY = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_MAX_LOGIN_BYTES = 8 * 1024
_DISCARD_SECONDS = 1.0


class Closing:
    """Ends what would never end by itself once the server stops: streams to browsers."""

    def __init__(self) -> None:
        self.begun = False
        self._streams: set[asyncio.Task[Any]] = set()

    def begin(self) -> None:
        """End all streams, and those that begin from now on."""
        self.begun = True
        for task in self._streams:
            task.cancel()

    def enter(self, task: asyncio.Task[Any]) -> None:
        """A request has turned out to be a stream."""
        self._streams.add(task)
        if self.begun:
            task.cancel()

    def leave(self, task: asyncio.Task[Any]) -> None:
        """A request is over."""
        self._streams.discard(task)


class Gate:
    """Wraps the routes."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: ServerSettings,
        access: Access,
        budget: Budget,
        metrics: HttpMetrics,
        closing: Closing,
    ) -> None:
        self._app = app
        self._settings = settings
        self._access = access
        self._budget = budget
        self._metrics = metrics
        self._closing = closing
        self._kind = (b"x-inngest-server-kind", settings.kind.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "there is no websocket here"})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(self, scope, receive, send)
        try:
            await exchange.run()
        finally:
            exchange.finish()

    def place(self, scope: Scope) -> str:
        """Put the prefix where Starlette looks for it, whether or not a proxy took it off; the path below it."""
        root: str = scope.get("root_path", "")
        path: str = scope["path"].removeprefix(root) if root else scope["path"]
        prefix = self._settings.prefix
        if prefix:
            if path == prefix or path.startswith(prefix + "/"):
                path = path[len(prefix) :] or "/"
            root += prefix
            scope["root_path"] = root
            scope["path"] = root + path
        return path


class _Exchange:
    """One request and its answer."""

    __slots__ = (
        "_body_done",
        "_body_left",
        "_body_taken",
        "_ended",
        "_gate",
        "_path",
        "_receive",
        "_scope",
        "_send",
        "_started_at",
        "_status",
        "_streamed",
        "_task",
    )

    def __init__(self, gate: Gate, scope: Scope, receive: Receive, send: Send) -> None:
        self._gate = gate
        self._scope = scope
        self._receive = receive
        self._send = send
        self._path = gate.place(scope)
        self._started_at = monotonic()
        self._status = 0
        self._streamed = False
        self._ended = False
        self._task: asyncio.Task[Any] | None = None
        self._body_done = scope["method"] in {"GET", "HEAD"}
        self._body_left = 0
        self._body_taken = 0

    async def run(self) -> None:
        gate, scope = self._gate, self._scope
        self._task = asyncio.current_task()
        try:
            refusal = gate._access.refusal(scope, self._path)
            if refusal is not None:
                await refusal(scope, self._receive, self.send)
            elif is_event_api(self._path):
                await gate._app(scope, self.receive_event, self.send)
            else:
                self._open_body()
                await gate._app(scope, self.receive, self.send)
        except (ClientGoneError, ClientDisconnect):
            _log.debug("a client closed its connection before its request was complete")
        except asyncio.CancelledError:
            if not (self._streamed and gate._closing.begun):
                raise
            if self._task is not None:
                self._task.uncancel()
            await self._end()
        except ApiError as error:
            await self._answer(error)
        except Exception as error:
            _log.error("%s %s failed", scope["method"], self._route(), exc_info=error)
            await self._answer(
                ApiError(500, "holdfast failed to answer this; its log says why", "internal", close=True)
            )

    def finish(self) -> None:
        gate = self._gate
        if self._streamed and self._task is not None:
            gate._closing.leave(self._task)
        if self._body_taken:
            gate._budget.give_back(self._body_taken)
        seconds = monotonic() - self._started_at
        gate._metrics.answered(self._scope["method"], self._route(), self._status, seconds, streamed=self._streamed)

    def _route(self) -> str:
        return getattr(self._scope.get("route"), "path", None) or "other"

    # -- the answer ----------------------------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = self._headers(list(message.get("headers", ())))
            message = {**message, "headers": headers}
            if not self._body_done and self._status != 408 and (b"connection", b"close") in headers:
                await self._discard()
        elif not message.get("more_body", False):
            self._ended = True
        await self._send(message)

    def _headers(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        there = {name.lower() for name, _ in headers}
        for name, value in headers:
            if name.lower() == b"content-type" and value.startswith(b"text/event-stream"):
                self._stream()
        headers.append(self._gate._kind)
        headers.extend(item for item in _SECURITY if item[0] not in there)
        return headers

    def _stream(self) -> None:
        # the request's own task: a response may be sent from a child of it
        self._streamed = True
        if self._task is not None:
            self._gate._closing.enter(self._task)

    async def _answer(self, error: ApiError) -> None:
        if self._status == 0:
            await error_response(error)(self._scope, self._receive, self.send)
        # otherwise the answer has begun: leaving it unfinished tells the client that it is not whole

    async def _end(self) -> None:
        if self._status and not self._ended:
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    # -- the request's body, for every route but the event API -----------------------------------------------------

    def _open_body(self) -> None:
        self._body_left = _MAX_LOGIN_BYTES if self._path == "/login" else self._gate._settings.max_control_bytes
        declared = header(self._scope, b"content-length")
        if declared and int(declared) > self._body_left:
            raise self._too_large()

    async def receive_event(self) -> Message:
        """The body of an event request, which the event API bounds by itself."""
        message = await self._receive()
        if not message.get("more_body", False):
            self._body_done = True
        return message

    async def _discard(self) -> None:
        """Read on for a moment, keeping nothing: a client that still sends then gets the answer and not a reset."""
        left = self._gate._settings.max_request_bytes
        try:
            async with asyncio.timeout(_DISCARD_SECONDS):
                while left > 0 and not self._body_done:
                    message = await self.receive_event()
                    left -= len(message.get("body", b"")) + 1
        except TimeoutError:
            return

    async def receive(self) -> Message:
        if self._body_done:
            return await self._receive()
        seconds = self._gate._settings.body_timeout
        try:
            async with asyncio.timeout(seconds):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(
                408, f"the body did not arrive within {seconds:g} seconds", "body_timeout", close=True
            ) from None
        if message["type"] == "http.request":
            self._count(len(message.get("body", b"")))
        if not message.get("more_body", False):
            self._body_done = True
        return message

    def _count(self, count: int) -> None:
        if count > self._body_left:
            raise self._too_large()
        if not self._gate._budget.take(count):
            raise ApiError(
                503,
                "the server holds as many request bodies as it is allowed to; try again shortly",
                "overloaded",
                retry_after=1,
                close=True,
            )
        self._body_left -= count
        self._body_taken += count

    @staticmethod
    def _too_large() -> ApiError:
        return ApiError(413, "the body is larger than this route takes", "too_large", close=True)
