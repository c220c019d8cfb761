"""The form that sends an event."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from holdfast.base.codec import decode_json
from holdfast.base.errors import EventInvalidError, OverloadedError, StoreError
from holdfast.base.masks import holds_mask
from holdfast.dashboard import drafts
from holdfast.dashboard.drafts import declared, draft, model_of, object_bytes
from holdfast.dashboard.forms import Form
from holdfast.dashboard.payload import pretty
from holdfast.dashboard.samples import sample_text
from holdfast.dashboard.site import Site

_LONGEST_COMMAND = 1000


async def show(site: Site, request: Request) -> Response:
    params = request.query_params
    name = params.get("name", "").strip()
    data = params.get("data") or await prefill(site, name, params.get("event", ""))
    return await form_page(site, request, name=name, data=data)


async def send(site: Site, request: Request, form: Form) -> Response:
    name, data, event_id = form.get("name"), form.get("data"), form.get("id")
    try:
        outgoing = draft(site.engine.apps, name, data, event_id)
        sent = (await site.engine.send([outgoing]))[0]
    except EventInvalidError as error:
        return await form_page(
            site, request, name=name, data=data, event_id=event_id, problem=f"{error}.", status_code=error.status
        )
    except (OverloadedError, StoreError) as error:
        return await form_page(
            site,
            request,
            name=name,
            data=data,
            event_id=event_id,
            problem=f"{error} Nothing was accepted.",
            status_code=503,
        )
    await site.audit(request, "event.send", sent.id, outgoing.name)
    said = (
        f"'{outgoing.name}' is on disk."
        if not sent.duplicate
        else "This id was accepted before: the functions it had started were not started again."
    )
    return site.redirect(request, site.url(request, f"/events/{sent.id}"), said)


async def form_page(
    site: Site, request: Request, *, name: str, data: str, event_id: str = "", problem: str = "", status_code: int = 200
) -> Response:
    """The form, with what was typed."""
    known = list(
        dict.fromkeys(
            [*declared(site.engine.apps), *(n for n in await site.reader.event_names() if not n.startswith("inngest/"))]
        )
    )
    return await site.page(
        request,
        "send.html",
        title="Send an event",
        section="events",
        status_code=status_code,
        name=name,
        data=data,
        event_id=event_id,
        problem=problem,
        known=known,
        command=command(name, data),
        typed=model_of(site.engine.apps, name) is not None,
    )


def command(name: str, data: str) -> str:
    """The command that sends the same."""
    try:
        raw = object_bytes(data, name)
    except EventInvalidError:
        raw = b"{...}"
    return drafts.command(name or "shop/order.paid", raw if len(raw) <= _LONGEST_COMMAND else b"{...}")


async def prefill(site: Site, name: str, event_id: str) -> str:
    """The data to begin with: that of a given event, an example from the schema, or that of the latest of this name."""
    if event_id:
        event = await site.reader.event(event_id)
        if event is not None and not holds_mask(decode_json(event.data)):
            return pretty(event.data)
    model = model_of(site.engine.apps, name)
    if model is not None:
        return sample_text(model)
    if name:
        latest, _ = await site.reader.events(name=name, limit=1)
        if latest and not holds_mask(decode_json(latest[0].data)):
            return pretty(latest[0].data)
    return "{\n  \n}"
