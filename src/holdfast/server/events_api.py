"""The event API (protocol section 1.2): `POST /e/{key}`, written against ASGI because every event comes this way."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec
from starlette.types import Receive, Scope, Send

from holdfast.base.errors import EventInvalidError, HoldfastError
from holdfast.engine.engine import Engine
from holdfast.sdk.events import Event
from holdfast.sdk.sender import Sent
from holdfast.server.access import Access
from holdfast.server.bodies import Budget, check_content, header, read_body
from holdfast.server.errors import ApiError, api_error
from holdfast.server.ingest import parse_events
from holdfast.server.receipts import Receipts
from holdfast.server.seed import Seed
from holdfast.server.settings import ServerSettings
from holdfast.server.shapes import KeyRefused

SEED_HEADER = b"x-inngest-event-id-seed"
_JSON = (b"content-type", b"application/json")
_KEY_REFUSED = msgspec.json.encode(KeyRefused())
_EXPOSED = (b"access-control-expose-headers", b"Link, Mcp-Session-Id")


class EventsApi:
    """Accepts events over HTTP; answers once they are on disk."""

    def __init__(
        self, engine: Engine, settings: ServerSettings, access: Access, budget: Budget, receipts: Receipts
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._access = access
        self._budget = budget
        self._receipts = receipts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        cors = self._cors(scope)
        try:
            if header(scope, b"origin") and not cors and self._access.foreign_origin(scope):
                raise ApiError(
                    403,
                    "pages of this site may not send events here; add its origin to HOLDFAST_CORS_ORIGINS",
                    close=True,
                )
            if scope["method"] == "OPTIONS":
                await _answer(send, 204, b"", [*cors, *_preflight(cors)])
                return
            if scope["method"] != "POST":
                raise ApiError(405, "events are sent with POST")
            if not self._access.accepts_event_key(scope["path_params"]["key"]):
                await _answer(
                    send,
                    401,
                    _KEY_REFUSED,
                    [*cors, _JSON, (b"connection", b"close")],
                )
                return
            check_content(scope)
            status, body, headers = await self._receive_events(scope, receive)
        except ApiError as error:
            status, body, headers = _refused(error, ())
        await _answer(send, status, body, [*cors, *headers])

    async def _receive_events(self, scope: Scope, receive: Receive) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
        settings = self._settings
        body = await read_body(scope, receive, settings.max_request_bytes, self._budget, settings.body_timeout)
        try:
            return await self._accept(scope, body)
        finally:
            self._budget.give_back(len(body))

    async def _accept(self, scope: Scope, body: bytes) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
        seed = header(scope, SEED_HEADER)
        parsed = parse_events(body, self.schema_of, Seed.of_header(seed.decode("latin-1")) if seed else None)
        sent: Sequence[Sent] = ()
        if parsed.events:
            try:
                sent = await self._engine.send(parsed.events)
            except EventInvalidError as error:
                return _refused(api_error(error), error.accepted)
            except HoldfastError as error:
                return _refused(api_error(error), ())
        ids = [item.id for item in sent]
        if seed:
            self._receipts.again(item.id for item in sent if item.duplicate)
        if parsed.error is not None:
            return _refused(ApiError(400, parsed.error, "event_invalid"), ids)
        return 200, b'{"ids":[' + _joined(ids) + b'],"status":200}', [_JSON]

    def schema_of(self, name: str) -> type[Event] | None:
        """The class that an app of this process declares for an event name."""
        for app in self._engine.apps.values():
            model = app.events.get(name)
            if model is not None:
                return model
        return None

    def _cors(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        if not header(scope, b"origin"):
            return []
        origin = self._access.cors_origin(scope)
        return (
            [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"Origin"), _EXPOSED]
            if origin
            else []
        )


def _joined(ids: Sequence[str]) -> bytes:
    # no ids at all are written as one empty one (protocol section 1.2)
    return ('"' + '","'.join(ids) + '"').encode()


def _refused(error: ApiError, ids: Sequence[str]) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    body = {"ids": list(ids) or [""], "status": error.status, "error": error.message, "code": error.code}
    headers = [_JSON, *((name.encode(), value.encode()) for name, value in error.headers.items())]
    return error.status, json.dumps(body).encode(), headers


def _preflight(cors: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    if not cors:
        return [(b"allow", b"POST, OPTIONS")]
    return [
        (b"access-control-allow-methods", b"POST"),
        (
            b"access-control-allow-headers",
            b"content-type, x-inngest-env, x-inngest-event-id-seed, x-inngest-sdk, traceparent, tracestate",
        ),
        (b"access-control-max-age", b"600"),
    ]


async def _answer(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    if status != 204:
        headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
