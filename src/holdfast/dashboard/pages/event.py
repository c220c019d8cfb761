"""One event: its payload, the functions it started, and those it did not with the reason."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from holdfast.base.codec import encode_json
from holdfast.dashboard.pages.events import line
from holdfast.dashboard.pages.run import json_document
from holdfast.dashboard.search import is_id
from holdfast.dashboard.site import Site
from holdfast.store.reads import EventView


async def show(site: Site, request: Request) -> Response:
    event = await _event(site, request)
    return await site.page(
        request,
        "event.html",
        title=event.name,
        section="events",
        live="run event function",
        line=await line(site, event),
        event=event,
        meta=site.show(encode_json(event.meta, "meta")) if event.meta else None,
    )


async def raw(site: Site, request: Request) -> Response:
    """The payload as a JSON document."""
    return json_document((await _event(site, request)).data)


async def _event(site: Site, request: Request) -> EventView:
    event_id: str = request.path_params["event_id"]
    event = await site.reader.event(event_id.upper()) if is_id(event_id) else None
    if event is None:
        raise HTTPException(
            404, f"There is no event {event_id[:60]}. It may have been removed when its retention was over."
        )
    return event
