"""Sending in the caller's own transaction: the events exist if, and only if, it commits."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from holdfast.base.clock import Clock, SystemClock
from holdfast.base.errors import ConfigurationError, EventInvalidError
from holdfast.base.ids import IdFactory, ulid_bytes, ulid_ms
from holdfast.sdk.outgoing import check_bounds
from holdfast.sdk.sender import Outgoing, Sent
from holdfast.store.urls import DEFAULT_SCHEMA, schema_of
from holdfast.store.userdb.asking import Pending, put_events
from holdfast.store.userdb.callers import Asking, Caller, ask, ask_async, recognise


class Kept(msgspec.Struct, omit_defaults=True):
    """An event as it waits in an outbox. Its internal id is the row's."""

    name: str
    data: msgspec.Raw
    id: str | None = None
    ts: int | None = None
    v: str | None = None
    user: msgspec.Raw | None = None


class Relaying(Protocol):
    """What brings events from outboxes to holdfast, as those who send see it."""

    clock: Clock
    schema: str | None
    """The schema of holdfast's own PostgreSQL store, if that is what it runs on."""

    def expect(self, events: Sequence[bytes]) -> None:
        """Events with these ids are about to be committed. From any thread."""
        ...


class Transactional:
    """Sends the events of one app in transactions of its databases."""

    def __init__(self, app_id: str) -> None:
        self._app_id = app_id
        self._ids = IdFactory()
        self._lock = threading.Lock()
        self._clock = SystemClock()
        self._relaying: list[Relaying] = []

    def attach(self, relaying: Relaying) -> None:
        """From now on this brings the events to holdfast; the latest wins."""
        self._relaying.append(relaying)

    def detach(self, relaying: Relaying) -> None:
        """It doesn't any more."""
        if relaying in self._relaying:
            self._relaying.remove(relaying)

    async def send(self, connection: Any, events: Sequence[Outgoing]) -> list[Sent]:
        """Write events in the transaction of a connection.

        Raises:
            EventInvalidError: one is too large, or they are too many.
            ConfigurationError: the connection is not understood, or there is no outbox.
        """
        caller = recognise(connection)
        ids = self._new_ids(events)
        await ask_async(caller, self._put(caller, ids, events))
        return self._sent(ids)

    def send_sync(self, connection: Any, events: Sequence[Outgoing]) -> list[Sent]:
        """The same over a connection that blocks."""
        caller = recognise(connection)
        if caller.is_async:
            raise ConfigurationError(
                f"connection={connection!r:.80} is async; use `await app.send(..., connection=...)` with it"
            )
        ids = self._new_ids(events)
        ask(caller, self._put(caller, ids, events))
        return self._sent(ids)

    def _new_ids(self, events: Sequence[Outgoing]) -> list[bytes]:
        check_bounds(events)
        clock: Clock = self._relaying[-1].clock if self._relaying else self._clock
        with self._lock:  # threads send too
            return [self._ids.new(clock.now()) for _ in events]

    def _put(self, caller: Caller, ids: Sequence[bytes], events: Sequence[Outgoing]) -> Asking[bool]:
        kept: list[Pending] = [(event_id, encoded(event)) for event_id, event in zip(ids, events, strict=True)]
        return put_events(kept, caller.dialect, self._app_id, self._schema())

    def _sent(self, ids: Sequence[bytes]) -> list[Sent]:
        for relaying in self._relaying:
            relaying.expect(ids)
        return [Sent(event_id) for event_id in ids]

    def _schema(self) -> str | None:
        """The schema of holdfast's store, should the connection be to the database that has it."""
        if self._relaying:
            return self._relaying[-1].schema
        url = os.environ.get("HOLDFAST_STORE")
        return schema_of(url) if url else DEFAULT_SCHEMA


def encoded(event: Outgoing) -> bytes:
    """An event as it is kept."""
    user = None if event.user is None else msgspec.Raw(event.user)
    return msgspec.json.encode(Kept(event.name, msgspec.Raw(event.data), event.id, event.ts, event.v, user))


def decoded(event_id: bytes, kept: bytes, now: int) -> Outgoing:
    """An event that was kept, on its way in. It happened when it was sent.

    Raises:
        EventInvalidError: it can't be read.
    """
    try:
        event = msgspec.json.decode(kept, type=Kept)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise EventInvalidError(f"its JSON can't be read: {error}") from error
    ts = min(ulid_ms(event_id), now) if event.ts is None else event.ts
    user = None if event.user is None else bytes(event.user)
    return Outgoing(event.name, bytes(event.data), event.id, ts, user, event.v, internal_id=event_id)


def event_id_of(text: str) -> bytes | None:
    """The id of a row, or None where somebody has written something else there."""
    try:
        return ulid_bytes(text)
    except ValueError:
        return None
