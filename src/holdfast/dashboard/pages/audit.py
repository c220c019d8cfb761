"""The audit log: who changed what."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from holdfast.dashboard.site import Site

_ENTRIES = 300


async def show(site: Site, request: Request) -> Response:
    entries = await site.reader.audit(limit=_ENTRIES)
    return await site.page(
        request,
        "audit.html",
        title="Audit log",
        section="audit",
        live="run event dead function",
        entries=entries,
        cap=_ENTRIES,
    )
