"""What a node asks of the others, and tells them: the part of a store that knows that there are others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from holdfast.core.plan import Read, Tx
from holdfast.core.rows import ItemRow, ItemState, RunRow
from holdfast.store.api import Signal
from holdfast.store.postgres import places, roster
from holdfast.store.postgres.connection import Settings
from holdfast.store.postgres.nodes import Membership
from holdfast.store.postgres.registry import app_records, current
from holdfast.store.postgres.roster import Load
from holdfast.store.postgres.statements import Statements
from holdfast.store.postgres.threads import DatabaseThread
from holdfast.store.reads import NodeView
from holdfast.store.sqlite.registry import AppRecord


class Neighbours:
    """One of several nodes."""

    boot: int
    settings: Settings
    membership: Membership
    _items: dict[bytes, ItemRow]
    _sql: Statements
    _reads: DatabaseThread

    @property
    def leads(self) -> bool:
        """Whether the background duties are this node's."""
        return self.membership.leads

    @property
    def alone(self) -> bool:
        """Whether no other node has been alive since the last look."""
        return not (self.membership.others or self.membership.accompanied)

    @property
    def dead_nodes(self) -> int:
        """Nodes that have ended and may have left something."""
        return self.membership.dead

    @property
    def watched(self) -> bool:
        """Whether somebody at another node looks at what happens, as far as is known."""
        return self.membership.watched

    @property
    def hears(self) -> bool:
        """Whether this node hears what others tell; behind a pooler it only looks."""
        return not self.settings.pooled

    def report(self, load: Callable[[], tuple[int, int, bool]]) -> None:
        """What this node says of itself with each renewal: runs in flight, its capacity, and whether somebody looks at it."""
        self.membership.load = lambda: Load(*load())

    def look_soon(self, *, tell: bool = True) -> None:
        """Renew and look now, and have the others look too."""
        self.membership.look_soon()
        if tell:
            self.membership.tell(Signal(nodes=True))

    def tell(self, signal: Signal) -> None:
        """Tell the other nodes something."""
        self.membership.tell(signal)

    async def nodes(self, limit: int) -> list[NodeView]:
        """The nodes: those that are alive, and those that ended within a day."""
        return await self._reads.run(lambda conn: roster.nodes(conn, self._sql, self.boot, limit))

    async def registered_now(self) -> tuple[list[AppRecord], list[tuple[int, int, bytes]]]:
        """The applications that are called over HTTP; id, version and registration document of every function in force."""
        return await self._reads.run(lambda conn: (app_records(conn, self._sql), current(conn, self._sql)))

    async def audit_places(self) -> int:
        """Set counts of places right that differ from what leases hold; how many there were."""
        mended = await self._reads.run(lambda conn: places.audit(conn, self._sql))
        if mended:
            self.membership.tell(Signal(work=True))
        return len(mended)

    async def settled(self) -> None:
        """What nodes left that are gone has been taken up: they need no more looking at."""
        await self._reads.run(lambda conn: roster.settle(conn, self._sql))

    async def changed_elsewhere(self, run_ids: Sequence[bytes]) -> dict[bytes, bool]:
        """The runs, of these that are leased here, that other nodes have changed, and whether they are leased here still."""
        if not run_ids:
            return {}
        known = {run_id: self._items.get(run_id) for run_id in run_ids}
        tx = await self.read([(ItemRow, run_id) for run_id in run_ids])
        changed = {}
        for run_id, before in known.items():
            # what has been committed here meanwhile needs no looking at
            if before is not None and self._items.get(run_id) is before:
                item = tx.get(ItemRow, run_id)
                ours = item is not None and (item.state, item.owner, item.epoch) == (
                    ItemState.LEASED,
                    before.owner,
                    before.epoch,
                )
                if not ours or item is None or item.woken:
                    changed[run_id] = ours
        return changed

    async def ended(self, run_ids: Sequence[bytes]) -> list[bytes]:
        """Which of these runs have ended."""
        if not run_ids:
            return []
        tx = await self.read([(RunRow, run_id) for run_id in run_ids])
        return [run_id for run_id in run_ids if (run := tx.get(RunRow, run_id)) is None or run.ended_at is not None]

    async def read(self, reads: Sequence[Read]) -> Tx:
        """Committed rows."""
        raise NotImplementedError
