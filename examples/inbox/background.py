"""The background work: every client that is marked dirty gets one recompute. The cron endpoint and the durable function
both run this very code.
"""

from __future__ import annotations

from typing import Any

from .events import CountsRecompute
from .versions import Versions


async def dirty_clients(versions: Versions, client_id: str | None) -> list[str]:
    """The clients that are marked dirty: all of them, or this one if it is."""
    if client_id is not None:
        return [client_id] if await versions.dirty(client_id) is not None else []
    return await versions.all_dirty()


def recompute_events(clients: list[str], request_id: str, source: str) -> list[dict[str, Any]]:
    """One recompute event for each client. Made again for the same request, they have the same ids and start nothing."""
    return [
        {
            "name": CountsRecompute.__holdfast_event__,
            "data": {"clientId": client, "requestId": request_id, "source": source},
            "id": f"recompute:{request_id}:{client}",
        }
        for client in clients
    ]
