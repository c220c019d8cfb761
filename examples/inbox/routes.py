"""The inbox over HTTP. No request waits for a recompute."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from uuid import uuid4

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from .background import dirty_clients, recompute_events
from .canaries import Canaries
from .client import app
from .events import Id, ProcessRequested
from .messages import Messages
from .settings import Settings
from .versions import Versions

Line = Annotated[str, Field(min_length=1, max_length=300)]


@dataclass(frozen=True)
class Web:
    """The parts of the inbox that requests need."""

    settings: Settings
    messages: Messages
    versions: Versions
    canaries: Canaries


def web_of(request: Request) -> Web:
    """The parts, while the application runs."""
    web: Web = request.app.state.web
    return web


def _check(request: Request, key: str | None, what: str) -> None:
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if key is not None and not hmac.compare_digest(given.encode(), key.encode()):
        raise HTTPException(401, f"show {what}: Authorization: Bearer ...", {"WWW-Authenticate": "Bearer"})


async def check_key(request: Request) -> None:
    """Refuse whoever doesn't show the inbox's key.

    Raises:
        HTTPException: 401.
    """
    _check(request, web_of(request).settings.api_key, "the inbox's key")


async def check_cron(request: Request) -> None:
    """Refuse whoever doesn't show the secret of the cron endpoint.

    Raises:
        HTTPException: 401.
    """
    _check(request, web_of(request).settings.cron_secret, "the secret of the cron endpoint")


router = APIRouter(dependencies=[Depends(check_key)])
open_router = APIRouter()


class _Body(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class NewMessage(_Body):
    client_id: Id
    sender: Line
    subject: Line


class Move(_Body):
    client_id: Id
    status: Literal["unread", "read", "archived"]


@router.post("/api/messages", status_code=201)
async def receive(request: Request, body: NewMessage) -> dict[str, int]:
    """Receive a message. Its counts follow within seconds."""
    web = web_of(request)
    message_id = await web.messages.receive(body.client_id, body.sender, body.subject)
    return {"messageId": message_id}


@router.patch("/api/messages/{message_id}")
async def move(request: Request, message_id: int, body: Move) -> dict[str, int]:
    """Mark a message as read, unread or archived."""
    web = web_of(request)
    if not await web.messages.move(message_id, body.client_id, body.status):
        raise HTTPException(404, f"client {body.client_id} has no message {message_id}")
    return {"messageId": message_id}


@router.get("/api/counts/{client_id}")
async def counts(request: Request, client_id: str) -> dict[str, Any]:
    """A client's counts as they were worked out last, with their version, and whether they are being worked out anew."""
    web = web_of(request)
    found = await web.messages.counts(client_id)
    if found is None:
        raise HTTPException(404, f"nothing was counted yet for client {client_id}")
    return {
        "clientId": client_id,
        "unread": found.unread,
        "read": found.read,
        "archived": found.archived,
        "version": await web.versions.version(client_id),
        "dirty": await web.versions.dirty(client_id) is not None,
    }


@open_router.api_route("/api/cron/background-jobs", methods=["GET", "POST"], dependencies=[Depends(check_cron)])
async def background_jobs(request: Request, requestId: str | None = None) -> JSONResponse:  # noqa: N803 - as on the wire
    """Have everything looked after that is marked dirty: by enqueueing that, or at once."""
    request_id = requestId or uuid4().hex
    if not 0 < len(request_id) <= 200:
        raise HTTPException(422, "requestId has 1 to 200 characters")
    mode, requested = await background_work(web_of(request), request_id, "cron-endpoint")
    if requested is None:
        return JSONResponse({"mode": mode, "requestId": request_id}, 202)
    return JSONResponse({"mode": mode, "requestId": request_id, "requested": requested})


async def background_work(web: Web, request_id: str, source: str) -> tuple[str, int | None]:
    """Enqueue the sweep, or do it at once: which it was, and how many recomputes were requested, where that is known."""
    if web.settings.enqueue:
        await app.send(ProcessRequested(request_id=request_id, source=source))
        return "enqueued", None
    clients = await dirty_clients(web.versions, None)
    receipts = await app.send_many(recompute_events(clients, request_id, source)) if clients else []
    return "inline", sum(not receipt.duplicate for receipt in receipts)


@open_router.get("/health")
async def health() -> dict[str, str]:
    """That the inbox answers."""
    return {"status": "ok"}
