"""The outboxes there are: in the application's own databases, and in holdfast's own store on PostgreSQL."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from holdfast.base.errors import HoldfastError, NotRunningError
from holdfast.base.ids import ulid_text
from holdfast.core.ingest import Accepted, Incoming
from holdfast.core.plan import Plan, Refused
from holdfast.core.relaying import Relay as RelayPlan
from holdfast.core.relaying import Relayed, TakeOutbox
from holdfast.engine.host import Host
from holdfast.engine.relay import Waiting
from holdfast.engine.threads import Threads
from holdfast.sdk.app import App
from holdfast.sdk.databases import Database
from holdfast.sdk.http_sender import HttpSender, seed_of
from holdfast.sdk.sender import Outgoing
from holdfast.sdk.transactional import event_id_of
from holdfast.store.api import SharedStore
from holdfast.store.userdb.opened import OpenedDatabase

_log = logging.getLogger("holdfast")


class Delivery(Protocol):
    """Where the events of an application's outbox go."""

    async def deliver(self, events: Sequence[Outgoing]) -> None:
        """Have them accepted, each once however often this is called. Errors as for `Outbox.deliver`."""
        ...

    async def deleted(self, events: Sequence[Outgoing]) -> None:
        """They will not be brought again."""
        ...


class DatabaseOutbox:
    """The outbox in a database of the application's.

    Args:
        database: The database.
        delivery: Where its events go.
    """

    def __init__(self, database: Database, delivery: Delivery) -> None:
        self.database = database
        self.shown = database.url
        self._delivery = delivery
        self._threads = Threads(1, "holdfast-outbox")
        self._opened = OpenedDatabase(database.address, create=database.create)

    async def prepare(self) -> None:
        """Make holdfast's tables there. A database that is away now gets them at the first look that reaches it."""
        try:
            await self._threads.run(self._opened.prepare)
        except HoldfastError as error:
            _log.warning("the database %s is not ready for events yet: %s", self.shown, error)

    async def pending(self, after: bytes, limit: int) -> list[Waiting]:
        """See `Outbox.pending`."""
        rows = await self._threads.run(self._opened.pending, ulid_text(after) if after else "", limit)
        found = [(event_id_of(text), event.encode()) for text, event in rows]
        return [(event_id, event) for event_id, event in found if event_id is not None]

    async def deliver(self, events: Sequence[Outgoing]) -> None:
        """See `Outbox.deliver`."""
        await self._delivery.deliver(events)
        await self._threads.run(self._opened.delete_events, [ulid_text(_id_of(event)) for event in events])
        await self._delivery.deleted(events)

    async def old_steps(self, before: int, limit: int) -> list[tuple[str, str]]:
        """Steps that were marked as done before a moment."""
        found: list[tuple[str, str]] = await self._threads.run(self._opened.old_steps, before, limit)
        return found

    async def forget_steps(self, steps: Sequence[tuple[str, str]]) -> None:
        """Delete the marks of steps."""
        await self._threads.run(self._opened.delete_steps, steps)

    async def close(self) -> None:
        """Close the database."""
        await self._threads.run(self._opened.close)
        self._threads.close()


class StoreOutbox:
    """The outbox in holdfast's own schema: taking an event from it and accepting it is one transaction."""

    def __init__(self, host: Host, store: SharedStore) -> None:
        self.shown = host.store.url
        self._host = host
        self._store = store

    async def pending(self, after: bytes, limit: int) -> list[Waiting]:
        """See `Outbox.pending`."""
        return [(row.id, row.event) for row in await self._store.outbox(after, limit)]

    async def deliver(self, events: Sequence[Outgoing]) -> None:
        """See `Outbox.deliver`."""
        await _submit(self._host, events, TakeOutbox)

    async def close(self) -> None:
        """The store closes itself."""


class LocalDelivery:
    """Delivers to the engine of this process."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def deliver(self, events: Sequence[Outgoing]) -> None:
        """See `Delivery.deliver`."""
        await _submit(self._host, events, RelayPlan)

    async def deleted(self, events: Sequence[Outgoing]) -> None:
        """See `Delivery.deleted`."""
        await self._host.submit(Relayed([_id_of(event) for event in events]))


class RemoteDelivery:
    """Delivers to wherever an app sends to, over HTTP.

    The ids travel in the seed header, one event a request, so that an event that is brought twice is known for as long as the
    server keeps it.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def deliver(self, events: Sequence[Outgoing]) -> None:
        """See `Delivery.deliver`."""
        sender = self._app._sender()
        if not isinstance(sender, HttpSender):
            await sender.send(events)  # an engine of this process: it knows the ids
            return
        for event in events:
            await sender.send_seeded([event], seed_of(_id_of(event)))

    async def deleted(self, events: Sequence[Outgoing]) -> None:
        """See `Delivery.deleted`."""


async def _submit(
    host: Host, events: Sequence[Outgoing], plan_of: Callable[[Sequence[Incoming]], Plan[Accepted]]
) -> None:
    if host.draining or not host.running:
        raise NotRunningError("the engine is stopping; the events stay in their outbox until the next start")
    plan = plan_of(host.intake.prepare(events))
    plan.then = host.accepted
    accepted: Any = await host.submit(plan)
    if isinstance(accepted, Refused):
        raise HoldfastError(f"the events of an outbox were refused ({accepted.reason}); they are brought again")
    host.came_in([_id_of(event) for event, known in zip(events, accepted.duplicates, strict=True) if not known])


def _id_of(event: Outgoing) -> bytes:
    assert event.internal_id is not None
    return event.internal_id


