"""The inbox for its team: what each client's counts are and how fresh, what the jobs do, and buttons that set them going."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import uuid4

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import ValidationError

from examples.common.pages import Pages, Text, own_form, pages_of, team

from .canary import Load
from .client import app
from .events import CountsDirty
from .overview import Client, clients, queue
from .routes import NewMessage, background_work, web_of
from .settings import Settings

FOLDER = Path(__file__).parent
LOADS = {"small": Load(20, 10), "large": Load(200, 5)}
"""A load that must stay under the alert, and one that must raise it."""


@dataclass(frozen=True)
class Said:
    """What a button did, told on the page it leads back to."""

    text: str
    good: bool = True


router = APIRouter(include_in_schema=False, dependencies=[Depends(team)])


def make_pages(settings: Settings) -> Pages:
    """The inbox's pages, before they are put into its web application."""
    pages = Pages("Inbox", FOLDER, settings.api_key, production=settings.production)
    pages.templates.env.globals.update(loads=LOADS, tone=_tone)
    pages.templates.env.filters["age"] = _age
    return pages


@router.get("/")
async def overview(request: Request) -> Response:
    """Everything, on one page."""
    return await _overview(request)


@router.get("/now")
async def now(request: Request) -> Response:
    """The part of the page that changes by itself; its script asks for it again and again."""
    return pages_of(request).show(request, "now.html", **await _state(request))


@router.post("/messages", dependencies=[Depends(own_form)])
async def message(request: Request, client: Text = "", sender: Text = "", subject: Text = "") -> Response:
    """Receive a message. Its client's counts follow."""
    given = {"clientId": client, "sender": sender, "subject": subject}
    try:
        new = NewMessage.model_validate(given)
    except ValidationError as error:
        problems = {str(one["loc"][-1]): _problem(str(one["loc"][-1])) for one in error.errors()}
        return await _overview(request, 422, typed=given, problems=problems)
    web = web_of(request)
    await web.messages.receive(new.client_id, new.sender, new.subject)
    return _back(request, f"A message for {new.client_id} is in. Its counts follow within seconds.")


@router.post("/dirty", dependencies=[Depends(own_form)])
async def dirty(request: Request, client: Text = "") -> Response:
    """Mark a client's counts as dirty, whatever they are."""
    try:
        event = CountsDirty(client_id=client, request_id=uuid4().hex, source="page")
    except ValidationError:
        return _back(request, f"{client[:100]!r} is no client.", good=False)
    await app.send(event, id=f"dirty:{event.request_id}")
    return _back(request, f"The counts of {client} are marked dirty, and are worked out anew.")


@router.post("/cron", dependencies=[Depends(own_form)])
async def cron(request: Request) -> Response:
    """Have everything looked after that is marked dirty, as the cron endpoint does."""
    mode, requested = await background_work(web_of(request), uuid4().hex, "page")
    done = "It was handed to a background job." if requested is None else f"{requested} recomputes were requested."
    return _back(request, f"The cron has run ({mode}). {done}")


@router.post("/canary", dependencies=[Depends(own_form)])
async def canary(request: Request, size: Annotated[Literal["small", "large"], Form()]) -> Response:
    """Put a load on the inbox, and watch what its backlog does."""
    canaries = web_of(request).canaries
    if not canaries.possible:
        return _back(request, "There is no server to send to: DASHBOARD_ADDRESS is off.", good=False)
    if not canaries.begin(LOADS[size]):
        return _back(request, "One is under way already; it is shown below.", good=False)
    return _back(request, f"{LOADS[size].events} events are on their way. The backlog is shown below.")


async def _overview(request: Request, status: int = 200, **values: Any) -> Response:
    said: dict[str, Any] | None = request.session.pop("said", None)
    shown = {"typed": {}, "problems": {}, "said": None if said is None else Said(**said), **values}
    return pages_of(request).show(request, "inbox.html", status, **await _state(request), **shown)


async def _state(request: Request) -> dict[str, Any]:
    web = web_of(request)
    found: Sequence[Client] = await clients(web.messages, web.versions)
    return {
        "clients": found,
        "jobs": await queue(app),
        "canary": web.canaries.last,
        "max_age": web.settings.analytics_max_age if web.settings.analytics else None,
        "now": datetime.now(UTC),
    }


def _back(request: Request, text: str, *, good: bool = True) -> Response:
    request.session["said"] = {"text": text, "good": good}
    return RedirectResponse("/", 303)


def _problem(field: str) -> str:
    if field == "clientId":
        return "A client has letters, digits, dots and dashes only, such as acme."
    return "Please fill this in, with at most 300 characters."


def _tone(status: str) -> str:
    return {"completed": "good", "failed": "bad", "retrying": "warm", "running": "busy"}.get(status, "")


def _age(moment: datetime | None, now: datetime) -> str:
    if moment is None:
        return "never"
    seconds = max(0, round((now - moment).total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"
