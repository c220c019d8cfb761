"""Accepting events that were written to an outbox, each once, however often a relay brings it. Pure.

Where the outbox is in the store, an event's row there is deleted by the plan that accepts it. Where it is in another
database, no transaction spans the two, so accepting leaves a marker that stays until the row is known to be deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from holdfast.base.ids import ulid_text
from holdfast.base.limits import EVENT_ID_WINDOW_MS
from holdfast.core.ingest import NO_RUN, Accepted, Incoming, accept, reads_of, watched
from holdfast.core.plan import Plan, Read, Tx
from holdfast.core.rows import DedupeRow, OutboxRow

_NO_FUNCTION = 0
"""Markers are ids that have started something, as those of functions are; no function has this number."""
_LONG = 10 * 365 * 86_400_000
"""What a marker is kept for whose row nobody says is deleted: a relay may be away for years."""


class Relay(Plan[Accepted]):
    """Accept events from an outbox in another database."""

    __slots__ = ("incoming", "size")

    def __init__(self, incoming: Sequence[Incoming]) -> None:
        self.then = None
        self.incoming = incoming
        self.size = sum(len(one.event.data) + 512 for one in incoming)  # type: ignore[misc]

    def arrivals(self) -> Sequence[Incoming]:
        return self.incoming

    def awaits(self) -> Sequence[str]:
        return watched(self.incoming)

    def reads(self) -> Iterable[Read]:
        reads = reads_of(self.incoming)
        reads.extend((DedupeRow, marker_key(one.event.id)) for one in self.incoming)
        return reads

    def decide(self, tx: Tx) -> Accepted:
        out = Accepted.empty()
        for one in self.incoming:
            key = marker_key(one.event.id)
            if tx.get(DedupeRow, key) is None:
                accept(tx, one, out)
                tx.put(DedupeRow(*key, NO_RUN, tx.now + _LONG))
            else:
                out.duplicates.append(True)
        return out


class Relayed(Plan[None]):
    """The rows of these events are deleted from their outbox."""

    __slots__ = ("event_ids",)

    def __init__(self, event_ids: Sequence[bytes]) -> None:
        self.then = None
        self.event_ids = event_ids

    def reads(self) -> Iterable[Read]:
        return [(DedupeRow, marker_key(event_id)) for event_id in self.event_ids]

    def decide(self, tx: Tx) -> None:
        for event_id in self.event_ids:
            if tx.get(DedupeRow, marker_key(event_id)) is not None:
                # another relay may have read the row before it was deleted
                tx.put(DedupeRow(*marker_key(event_id), NO_RUN, tx.now + EVENT_ID_WINDOW_MS))


class TakeOutbox(Plan[Accepted]):
    """Accept events from the outbox in the store itself: their rows go with it, and whoever comes second finds none."""

    __slots__ = ("incoming", "size")

    def __init__(self, incoming: Sequence[Incoming]) -> None:
        self.then = None
        self.incoming = incoming
        self.size = sum(2 * len(one.event.data) + 512 for one in incoming)  # type: ignore[misc]

    def arrivals(self) -> Sequence[Incoming]:
        return self.incoming

    def awaits(self) -> Sequence[str]:
        return watched(self.incoming)

    def reads(self) -> Iterable[Read]:
        reads = reads_of(self.incoming)
        reads.extend((OutboxRow, one.event.id) for one in self.incoming)
        return reads

    def decide(self, tx: Tx) -> Accepted:
        out = Accepted.empty()
        for one in self.incoming:
            if tx.get(OutboxRow, one.event.id) is None:
                out.duplicates.append(True)
            else:
                tx.delete(OutboxRow, one.event.id)
                accept(tx, one, out)
        return out


def marker_key(event_id: bytes) -> tuple[int, str]:
    """The key of the marker that an event has been accepted from an outbox."""
    return _NO_FUNCTION, f"outbox:{ulid_text(event_id)}"
