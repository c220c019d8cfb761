"""All addresses of the dashboard, for the server to mount."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from holdfast.dashboard.asking import Asker
from holdfast.dashboard.assets import Assets
from holdfast.dashboard.guard import Guard
from holdfast.dashboard.pages import (
    apps,
    audit,
    bulk,
    crons,
    dead_letters,
    edit,
    event,
    events,
    flow,
    function,
    functions,
    home,
    nodes,
    queue,
    run,
    runs,
    send,
)
from holdfast.dashboard.site import Change, Handler, Site, changing, reading
from holdfast.dashboard.stream import stream
from holdfast.engine.engine import Engine
from holdfast.store.reads import Reader

Endpoint = Callable[[Request], Awaitable[Response]]


def routes(
    engine: Engine, guard: Guard, *, reader: Reader | None = None, asker: Asker | None = None
) -> list[BaseRoute]:
    """The dashboard of an engine.

    Args:
        engine: Whose runs are shown.
        guard: Sessions and rights. Who is let in at all is decided before these routes are reached; only `/static` is public.
        asker: Asks applications to register; without it, pages offer no syncing.
        reader: Reads what is shown, with marked fields masked (`holdfast.engine.shown`); made for the engine unless given.
    """
    site = Site(engine, guard, reader, asker)

    def get(path: str, handler: Handler) -> Route:
        return Route(path, reading(site, handler), methods=["GET"])

    def post(path: str, handler: Change) -> Route:
        return Route(path, changing(site, handler), methods=["POST"])

    return [
        get("/", home.show),
        get("/search", runs.search),
        get("/runs", runs.show),
        get("/bulk", bulk.listing),
        post("/bulk", bulk.start),
        post("/bulk/ask", bulk.ask),
        get("/bulk/{bulk_id}", bulk.show),
        post("/bulk/{bulk_id}/cancel", bulk.stop),
        get("/runs/{run_id}", run.show),
        get("/runs/{run_id}/{part:path}.json", run.raw),
        get("/runs/{run_id}/edit", edit.show),
        post("/runs/{run_id}/edit", edit.start),
        post("/runs/{run_id}/cancel", run.cancel),
        post("/runs/{run_id}/rerun", run.rerun),
        post("/runs/{run_id}/redrive", run.redrive),
        get("/events", events.show),
        get("/events/send", send.show),
        post("/events/send", send.send),
        get("/events/{event_id}.json", event.raw),
        get("/events/{event_id}", event.show),
        get("/functions", functions.show),
        get("/functions/{slug}", function.show),
        post("/functions/{slug}/invoke", function.invoke),
        post("/functions/{slug}/pause", flow.pause),
        post("/functions/{slug}/resume", flow.resume),
        post("/functions/{slug}/limits", flow.limit),
        post("/functions/{slug}/flush", flow.flush),
        get("/flow", flow.show),
        get("/queue", queue.show),
        get("/dead-letters", dead_letters.show),
        post("/dead-letters/redrive", dead_letters.redrive),
        post("/dead-letters/discard", dead_letters.discard),
        get("/crons", crons.show),
        post("/crons/run", crons.run_now),
        get("/apps", apps.show),
        get("/nodes", nodes.show),
        post("/apps/sync", apps.sync),
        post("/apps/remove", apps.remove),
        get("/audit", audit.show),
        Route("/stream", partial(stream, site), methods=["GET"]),
        Mount("/static", Assets(site.version), name="dashboard-static"),
    ]
