"""From an event as sent to a plan: identity, time, routing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from holdfast.base.clock import Clock
from holdfast.base.codec import decode_json
from holdfast.base.errors import EventInvalidError
from holdfast.base.ids import IdFactory, ulid_text
from holdfast.base.limits import MAX_EVENT_BYTES, MAX_EVENT_TS, MAX_EVENTS_PER_REQUEST, MIN_EVENT_TS
from holdfast.core.ingest import Incoming, Match, lookups_of
from holdfast.core.routing import Router, admits
from holdfast.core.rows import EventRow
from holdfast.sdk.sender import Outgoing
from holdfast.store.sqlite import SqliteStore


class Intake:
    """Makes `Incoming` of events: assigns ids, checks bounds, asks the routing index."""

    __slots__ = ("_clock", "_ids", "_store", "router")

    def __init__(self, clock: Clock, ids: IdFactory, store: SqliteStore) -> None:
        self._clock = clock
        self._ids = ids
        self._store = store
        self.router = Router()

    def prepare(self, events: Sequence[Outgoing], source: bytes | None = None) -> list[Incoming]:
        """Events, ready for a plan.

        Raises:
            EventInvalidError: one is out of bounds.
        """
        if len(events) > MAX_EVENTS_PER_REQUEST:
            raise EventInvalidError(f"Cannot have more than {MAX_EVENTS_PER_REQUEST} events in a batch")
        now = self._clock.now()
        return [self._one(event, now, source) for event in events]

    def _one(self, event: Outgoing, now: int, source: bytes | None) -> Incoming:
        ts = event.ts or now
        if ts != now:
            _check_ts(ts)
        if len(event.data) > MAX_EVENT_BYTES:
            raise EventInvalidError(
                f"Event is over the max size: {event.name} has {len(event.data)} bytes, {MAX_EVENT_BYTES} are allowed"
            )
        internal = event.internal_id
        row = EventRow(
            self._ids.new(now) if internal is None else internal,
            event.name,
            ts,
            now,
            event.data,
            event.id,
            _meta(event),
            source,
        )
        return self.route(row, now, seeded=internal is not None)

    def route(self, row: EventRow, now: int, *, seeded: bool = False) -> Incoming:
        """What an event row would start and wake."""
        matches: list[Match] = []
        filtered: list[int] = []
        for route in self.router.candidates(row.name):
            if route.expression is None or admits(route, lambda: _event(row)):
                if all(match.function_id != route.function_id for match in matches):
                    # a run's id is at least a millisecond younger than its event (protocol section 6)
                    matches.append(Match(self._ids.new(now + 1), route.function_id, route.version, route.lane))
            else:
                filtered.append(route.function_id)
        if filtered and matches:
            started = {match.function_id for match in matches}
            filtered = [function_id for function_id in filtered if function_id not in started]
        paths = self._store.wait_paths(row.name)
        return Incoming(row, matches, filtered, lookups_of(row, paths) if paths else (), seeded)


def _event(row: EventRow) -> dict[str, Any]:
    return {"name": row.name, "data": decode_json(row.data), "id": row.key or ulid_text(row.id), "ts": row.ts}


def _check_ts(ts: int) -> None:
    if type(ts) is not int:
        raise EventInvalidError(f"timestamp must be an integer number of milliseconds, not {ts!r:.40}")
    if ts < MIN_EVENT_TS:
        raise EventInvalidError("timestamp is before Jan 1, 1980")
    if ts >= MAX_EVENT_TS:
        raise EventInvalidError("timestamp is after Jan 1, 2100")


def _meta(event: Outgoing) -> bytes | None:
    if event.user is None and event.v is None and event.meta is None:
        return None
    parts = []
    if event.user is not None:
        parts.append(b'"user":' + event.user)
    if event.v is not None:
        parts.append(b'"v":' + msgspec.json.encode(event.v))
    if event.meta is not None:
        parts.append(b'"meta":' + event.meta)
    return b"{" + b",".join(parts) + b"}"
