"""What a node remembers of the database: the runs it has leased, and hints of what waits, all of it told by commits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from holdfast.core.plan import Change, Tx
from holdfast.core.rows import (
    AlarmRow,
    GatherRow,
    ItemRow,
    ItemState,
    LaneRow,
    LeaseCountRow,
    Row,
    RunRow,
)
from holdfast.core.waiting import CHILD_LOOKUP
from holdfast.store.api import Signal
from holdfast.store.postgres.groups import GroupTx
from holdfast.store.postgres.loading import RUN_ID_BYTES
from holdfast.store.postgres.nodes import Membership
from holdfast.store.sqlite.lanes import Lanes

_NO_PATHS: frozenset[str] = frozenset()
_CLAIM_AGAIN_SECONDS = 0.05


class Memory:
    """The part of a store that is in memory. Other nodes may know better: nothing is decided on it but where to look."""

    boot: int
    membership: Membership

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self.functions: frozenset[int] = frozenset()
        """Ids of the functions whose runs may be executed here now."""
        self._items: dict[bytes, ItemRow] = {}
        self._sure: dict[bytes, ItemRow] = {}
        """Items as they were when their runs were last read or written: for as long as they are so, the runs are as remembered."""
        self._runs: dict[bytes, RunRow] = {}
        self._lanes = Lanes(())
        self.lanes_in_doubt = False
        """Whether lanes may not be as remembered, so that the next claim looks at all of them."""
        self._lease_counts: dict[str, int] = {}
        self._claiming_again: asyncio.TimerHandle | None = None
        self.on_alarm: Callable[[int], None] | None = None
        """Called after a commit that set alarms, or let events gather, with the moment when the first of them is due."""
        self.on_lanes: Callable[[], None] | None = None
        """Called after a commit that changed lanes: something may be ready, or wait for a moment."""
        self._wait_paths: dict[str, set[str]] = {}
        self._stored_paths: set[tuple[str, str]] = set()
        self._next_timer: int | None = None
        self._next_alarm: int | None = None

    def cached_item(self, item_id: bytes) -> ItemRow | None:
        """An item leased by this process, as last seen."""
        return self._items.get(item_id)

    def _sure_item(self, item_id: bytes) -> ItemRow | None:
        return self._sure.get(item_id)

    def cached_run(self, run_id: bytes) -> RunRow | None:
        """A run leased by this process."""
        return self._runs.get(run_id)

    leased_item = _sure_item
    leased_run = cached_run

    def next_timer(self) -> int | None:
        """When the earliest TIMED item, or lane that waits for a moment, is due, as far as this node knows; a claim finds out."""
        due, until = self._next_timer, self._lanes.next_until()
        return until if due is None or (until is not None and until < due) else due

    def next_alarm(self) -> int | None:
        """When the earliest alarm, debounce or batch is due, as far as this node knows; `due_alarms` finds out."""
        return self._next_alarm

    @property
    def lease_counts(self) -> dict[str, int]:
        """Places of concurrency limits that leases hold, by gate, as far as this node has seen."""
        return self._lease_counts

    @property
    def lanes(self) -> Lanes:
        """Lanes that have items waiting, as far as this node knows."""
        return self._lanes

    def backlog(self) -> bool:
        """Whether items that could run here wait for a place."""
        return self._lanes.backlog(self.functions)

    def wait_paths(self, event_name: str) -> frozenset[str] | set[str]:
        """The data paths by which runs may wait for this event, "" for any, as far as this node knows."""
        return self._wait_paths.get(event_name, _NO_PATHS)

    known = wait_paths

    def missing(self, name: str, path: str) -> bool:
        """Whether the database may not know yet that runs wait for this event by this path."""
        return (name, path) not in self._stored_paths

    def expect(self, lookup: str) -> None:
        """From now on somebody may wait under this lookup."""
        if lookup.startswith(CHILD_LOOKUP):
            return  # ended by the run itself, not by an event
        name, _, rest = lookup.partition("\0")
        self._wait_paths.setdefault(name, set()).add(rest.partition("\0")[0])

    def _know_path(self, name: str, path: str) -> None:
        self._stored_paths.add((name, path))
        self._wait_paths.setdefault(name, set()).add(path)

    def doubt_lanes(self) -> None:
        """Lanes may not be as remembered: the next claim looks at all of them."""
        self.lanes_in_doubt = True

    # -- after a commit ------------------------------------------------------------------------------------------------------

    def committed(self, tx: Tx) -> None:
        assert isinstance(tx, GroupTx)
        changes = tx.changes()
        signal = Signal()
        self._apply_lanes(tx, changes.get(LaneRow, {}), signal)
        for gate, change in changes.get(LeaseCountRow, {}).items():
            if change is Change.DELETE:
                self._lease_counts.pop(gate, None)
            else:
                self._lease_counts[gate] = tx.row(LeaseCountRow, gate).used
        self._announce_alarms(tx, changes)
        if "alarm" in tx.moments and tx.moments["alarm"] != self._next_alarm:
            self._next_alarm = tx.moments["alarm"]
            signal.alarms = True
        for key in {*tx.loader.woken, *changes.get(ItemRow, ())}:
            self._remember(tx, key, signal)
        for run_id in changes.get(RunRow, ()):
            row = tx.row(RunRow, run_id)
            if row is None or row.ended_at is not None:
                self._runs.pop(run_id, None)
                signal.ended = True
        for path in tx.paths:
            self._know_path(*path)
        self._next_timer = tx.moments.get("timer", self._next_timer)
        if signal.says_something:
            self.membership.tell(signal)

    def _apply_lanes(self, tx: GroupTx, changes: dict[Any, Change], signal: Signal) -> None:
        if tx.loader.lanes is not None:
            self.lanes_in_doubt = False
            self._lanes = Lanes(())
            for row in tx.loader.lanes:
                self._lanes.put(row)
        for lane, change in changes.items():
            if change is Change.DELETE:
                self._lanes.remove(lane)
            else:
                self._lanes.put(tx.row(LaneRow, lane))
                signal.work = True
        if changes or tx.loader.lanes is not None:
            self._tell_lanes()
        elif tx.loader.claimed and self.membership.others and self.backlog() and self._claiming_again is None:
            # another node holds the lanes that could be served: it is done in a moment
            assert self._loop is not None
            self._claiming_again = self._loop.call_later(_CLAIM_AGAIN_SECONDS, self._tell_lanes)

    def _announce_alarms(self, tx: GroupTx, changes: dict[type[Row], dict[Any, Change]]) -> None:
        due = [
            tx.row(cls, key).at if cls is AlarmRow else tx.row(cls, key).due
            for cls in (AlarmRow, GatherRow)
            for key, change in changes.get(cls, {}).items()
            if change is not Change.DELETE
        ]
        if due and self.on_alarm is not None and self._loop is not None:
            self._loop.call_soon(self.on_alarm, min(due))

    def _tell_lanes(self) -> None:
        if self._claiming_again is not None:
            self._claiming_again.cancel()
            self._claiming_again = None
        if self.on_lanes is not None and self._loop is not None:
            self._loop.call_soon(self.on_lanes)

    def _remember(self, tx: GroupTx, key: bytes, signal: Signal) -> None:
        """Keep an item that is leased here, with its run; forget what is not any more."""
        item = tx.get(ItemRow, key)
        known = self._items.get(key)
        ours = (tx.owner,) if known is None else (tx.owner, known.owner)
        if item is not None and item.state == ItemState.LEASED and item.owner in ours:
            self._items[key] = item
            run = tx.get(RunRow, item.run_id)
            if run is not None and len(key) == RUN_ID_BYTES:
                self._runs[key] = run
                self._sure[key] = item
            return
        owner = tx.loader.owners.get(key)
        if owner is not None and (item is None or item.owner != owner or item.woken != tx.loader.woken[key]):
            signal.woken.add(owner)
        self._items.pop(key, None)
        self._sure.pop(key, None)
        self._runs.pop(key, None)
        if item is not None and item.state == ItemState.TIMED:
            due = self._next_timer
            if due is None or item.due < due:
                self._next_timer = item.due
                signal.work = True
