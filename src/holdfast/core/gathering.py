"""Starting the run of a debounce or a batch whose time has come. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from holdfast.core.ingest import Accepted, Match, admit_gathered, match_reads, resolve
from holdfast.core.plan import Plan, Read, Refused, Tx, WaitsFor
from holdfast.core.rows import EventRow, GatherKind, GatherRow, SkipRow
from holdfast.core.waiting import CHILD_LOOKUP, refusal


class FireGather(Plan[Accepted]):
    """Start the run of events that have waited long enough, or at once when somebody says so."""

    __slots__ = ("event", "flush", "gather", "match")

    def __init__(self, gather: GatherRow, event: EventRow, match: Match, *, flush: bool = False) -> None:
        self.then = None
        self.gather = gather
        """As it was when its event was read; if more has come since, it is due later and asked about again then."""
        self.event = event
        self.match = match
        self.flush = flush

    def reads(self) -> Iterable[Read]:
        gather = self.gather
        return [
            (GatherRow, (gather.function_id, gather.kind, gather.key)),
            (SkipRow, (gather.event_id, gather.function_id)),
            *match_reads(self.match, self.event.received_at),
            self._callers(),
        ]

    def awaits(self) -> Sequence[str]:
        return self.match.watched()

    def decide(self, tx: Tx) -> Accepted | Refused:
        gather = self.gather
        key = (gather.function_id, gather.kind, gather.key)
        current = tx.get(GatherRow, key)
        if current is None or current.event_id != gather.event_id or current.run_id != gather.run_id:
            return Refused("it has started, or more has come")
        if current.due > tx.now and not self.flush:
            return Refused("it is not due yet")
        tx.delete(GatherRow, key)
        batch = 0
        if gather.kind == GatherKind.BATCH:
            batch = current.count
        else:
            tx.delete(SkipRow, (gather.event_id, gather.function_id))
        out = Accepted.empty()
        match = msgspec.structs.replace(self.match, run_id=gather.run_id, origin=1 if current.invoked else 0)
        refused = admit_gathered(tx, match, self.event, batch, out)
        if refused is not None:
            for wait in tx.find(self._callers()):
                resolve(tx, wait, None, refusal(refused), out)
        return out

    def _callers(self) -> WaitsFor:
        """Steps that invoked its function and wait for its run."""
        return WaitsFor((CHILD_LOOKUP + self.gather.run_id.hex(),))
