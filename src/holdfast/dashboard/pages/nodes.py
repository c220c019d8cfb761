"""The nodes: who executes on this database, how busy each is, who leads, and who is gone since when."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from holdfast.dashboard.site import Site
from holdfast.engine.nodes import nodes_of

REFRESH_MS: Final = 3_000
_TONES: Final = {"alive": "ok", "silent": "retry", "stopped": "idle", "dead": "bad"}
_LIVING: Final = ("alive", "silent")


async def show(site: Site, request: Request) -> Response:
    nodes = await nodes_of(site.engine)
    return await site.page(
        request,
        "nodes.html",
        title="Nodes",
        section="nodes",
        live="run function",
        every=REFRESH_MS,
        alive=[node for node in nodes if node.state in _LIVING],
        gone=[node for node in nodes if node.state not in _LIVING],
        tones=_TONES,
        shared=site.engine.store.shared is not None,
    )
