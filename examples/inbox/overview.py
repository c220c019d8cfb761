"""What the page shows: the clients with their counts, versions, marks and job statuses, and the jobs that wait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from holdfast import App

from .messages import Messages
from .versions import Versions

_LIVE = ("QUEUED", "RUNNING", "WAITING")
_JOBS = ("mark-counts-dirty", "inbox-counts-recompute", "analytics-recompute", "process-background-jobs")
_MOST = 500


@dataclass(frozen=True)
class Client:
    """A client as the page shows it."""

    id: str
    unread: int
    read: int
    archived: int
    version: int
    dirty: bool
    computed_at: datetime
    job: dict[str, Any]
    """The status blob of its last recompute; empty when there is none."""
    refreshed_at: datetime | None
    """When its aggregates were worked out."""


async def clients(messages: Messages, versions: Versions) -> Sequence[Client]:
    """The clients whose counts were worked out last, newest first."""
    found = []
    for counts, refreshed_at in await messages.overview(50):
        client = counts.client_id
        found.append(
            Client(
                client, counts.unread, counts.read, counts.archived,
                await versions.version(client), await versions.dirty(client) is not None, counts.computed_at,
                await versions.job(client, "inbox-counts-recompute"), refreshed_at,
            )
        )  # fmt: skip
    return found


async def queue(app: App) -> dict[str, str]:
    """How many jobs of each kind are not done yet; of very many, that they are."""
    counted = {}
    for job in _JOBS:
        live = 0
        for status in _LIVE:
            live += len([run async for run in app.runs(status=status, function=f"{app.id}-{job}", limit=_MOST)])
        counted[job] = str(live) if live < _MOST else f"{_MOST} and more"
    return counted
