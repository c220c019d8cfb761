"""What an engine asks of a store, whatever its database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from holdfast.core.flow import Flow, FunctionState
from holdfast.core.plan import Plan, Read, Tx
from holdfast.core.rows import AlarmRow, AlertRow, BulkRow, CronRow, GatherRow, ItemRow, OutboxRow, RunRow
from holdfast.store.group import GroupCommit
from holdfast.store.reads import NodeView
from holdfast.store.sqlite.lanes import Lanes
from holdfast.store.sqlite.registry import AppRecord, Registration

Changed = tuple[str, str, int]
"""Kind, id and function of something that has changed, as the notices of a node have it."""
MAX_CHANGED = 100
"""More than so many changes at once are told as one."""
MANY_CHANGED: Changed = ("run", "", 0)


class Signal(msgspec.Struct, gc=False):
    """What a node tells the others after a group. Only hints: each looks for itself what there is."""

    work: bool = False
    """Items wait for a place, or a timer was set."""
    alarms: bool = False
    """An alarm was set, or events gather."""
    ended: bool = False
    """Runs have ended, whose results somebody may await."""
    states: bool = False
    """A function was paused, or a limit changed."""
    functions: bool = False
    """Functions or applications were registered, changed or forgotten."""
    nodes: bool = False
    """A node has left, or somebody at this one looks at what happens: how things stand among the nodes is worth a look."""
    changed: set[Changed] = msgspec.field(default_factory=set)
    """What has changed, for whoever looks: told only while somebody does."""
    woken: set[int] = msgspec.field(default_factory=set)
    """Nodes of whose runs something was resolved, cancelled or taken over."""
    outbox: bool = False
    """A transaction of the application's has sent events."""

    def add(self, other: Signal) -> None:
        """Take in another one."""
        self.work |= other.work
        self.alarms |= other.alarms
        self.ended |= other.ended
        self.states |= other.states
        self.outbox |= other.outbox
        self.functions |= other.functions
        self.nodes |= other.nodes
        self.woken |= other.woken
        self.changed |= other.changed
        if len(self.changed) > MAX_CHANGED:
            self.changed = {MANY_CHANGED}

    @property
    def says_something(self) -> bool:
        told = self.work, self.alarms, self.ended, self.states, self.functions, self.nodes, self.outbox
        return any(told) or bool(self.woken) or bool(self.changed)


class Store(Protocol):
    """All state of a holdfast, as one node sees it.

    What is called before `start` and while a node boots may block; nothing else does.
    """

    url: str
    """Where it is, without secrets."""
    boot: int
    """The number under which this process leases."""
    group: GroupCommit
    functions: frozenset[int]
    """Ids of the functions whose runs may be executed here now."""
    flows: dict[int, Flow]
    """The flow control of the functions that have any."""
    paused: dict[int, str]
    """Functions that are paused, and how."""
    on_alarm: Callable[[int], None] | None
    """Called after a commit that set alarms, or let events gather, with the moment when the first of them is due."""
    on_lanes: Callable[[], None] | None
    """Called after a commit that changed lanes: something may be ready, or wait for a moment."""

    @property
    def shared(self) -> SharedStore | None:
        """The same store, as one of several nodes sees it; None where there is only ever one."""
        ...

    # -- life --------------------------------------------------------------------------------------------------------------

    def start(self, room: Callable[[], int], functions: frozenset[int]) -> None:
        """Begin to take plans on the running loop."""
        ...

    async def close(self) -> None:
        """Finish what was submitted, and give the store up."""
        ...

    async def abandon(self) -> None:
        """Give the store up as it is."""
        ...

    def register(self, registrations: Sequence[Registration]) -> dict[str, tuple[int, int]]:
        """Record the functions of this process; their ids and versions by slug."""
        ...

    async def register_app(
        self, record: AppRecord, registrations: Sequence[Registration]
    ) -> dict[str, tuple[int, int]]:
        """Record an application that is called over HTTP and its functions; ids and versions by slug."""
        ...

    async def put_app(self, record: AppRecord) -> None:
        """Record what is known of such an application."""
        ...

    async def delete_app(self, name: str) -> None:
        """Forget such an application."""
        ...

    def app_records(self) -> list[AppRecord]:
        """The applications that are called over HTTP."""
        ...

    def cancelled_with_children(self) -> list[bytes]:
        """Cancelled runs of which a run that they invoked still lives."""
        ...

    def current_functions(self) -> list[tuple[int, int, bytes]]:
        """Id, version and registration document of every function that is not archived."""
        ...

    def function_states(self) -> dict[int, FunctionState]:
        """How functions are paused, and which of their limits were changed, where anything is."""
        ...

    def slugs(self) -> dict[int, str]:
        """The slug of every function there ever was."""
        ...

    def cron_rows(self) -> list[CronRow]:
        """All schedules."""
        ...

    def running_bulks(self) -> list[BulkRow]:
        """Bulk operations that have not come to their end, oldest first."""
        ...

    def alert_rows(self) -> list[AlertRow]:
        """The alerts that are on, oldest first."""
        ...

    def leased_by_others(self) -> list[ItemRow]:
        """Items that somebody left leased who has died."""
        ...

    # -- writing -----------------------------------------------------------------------------------------------------------

    def submit(self, plan: Plan[Any]) -> asyncio.Future[Any]:
        """Queue a plan for the next group."""
        ...

    def expect(self, lookup: str) -> None:
        """From now on somebody may wait under this lookup."""
        ...

    async def set_function(self, function_id: int, *, paused: str | None, limits: Mapping[str, int]) -> None:
        """Record whether a function is paused, and the limits that were changed while it runs."""
        ...

    async def prune(self, runs_ms: int, dead_letters_ms: int) -> bool:
        """Go through one slice of what is old; whether there is more to go through."""
        ...

    # -- what is known without asking --------------------------------------------------------------------------------------

    @property
    def problem(self) -> str | None:
        """What keeps the store from being written to, if something does that may pass."""
        ...

    @property
    def lanes(self) -> Lanes:
        """Lanes that have items waiting."""
        ...

    @property
    def lease_counts(self) -> dict[str, int]:
        """Places of concurrency limits that leases hold now, by gate."""
        ...

    def backlog(self) -> bool:
        """Whether items that could run here wait for a place."""
        ...

    def wait_paths(self, event_name: str) -> frozenset[str] | set[str]:
        """The data paths by which runs may wait for this event, "" for any; empty when none is known to wait."""
        ...

    def cached_item(self, item_id: bytes) -> ItemRow | None:
        """An item leased by this process."""
        ...

    def cached_run(self, run_id: bytes) -> RunRow | None:
        """A run leased by this process."""
        ...

    def next_timer(self) -> int | None:
        """When the earliest TIMED item, or lane that waits for a moment, is due."""
        ...

    def next_alarm(self) -> int | None:
        """When the earliest alarm, debounce or batch is due."""
        ...

    # -- reading between groups --------------------------------------------------------------------------------------------

    async def read(self, reads: Sequence[Read]) -> Tx:
        """Committed rows, for the engine's own use between groups."""
        ...

    def fetch_then(self, reads: Sequence[Read], then: Callable[[Tx], None]) -> None:
        """Read committed rows, and call back with them on the loop: at once, or when they are there."""
        ...

    async def due_alarms(self, now: int, limit: int) -> list[AlarmRow]:
        """Alarms that are due, oldest first."""
        ...

    async def due_gathers(self, now: int, limit: int) -> list[GatherRow]:
        """Debounces and batches whose time has come, oldest first."""
        ...

    async def gathers_of(self, function_id: int, limit: int = 1000, key: str | None = None) -> list[GatherRow]:
        """The debounces and batches of a function that wait, of one key if it is given; those that are due first."""
        ...

    async def gather_of(self, run_id: bytes) -> GatherRow | None:
        """The debounce or batch that will be this run."""
        ...


class SharedStore(Protocol):
    """A store that several nodes share, as each of them sees the others."""

    boot: int
    """The number under which this node leases, now."""

    def follow(self, signalled: Callable[[Signal], None] | None, looked: Callable[[], None] | None) -> None:
        """Be told, on the loop, what other nodes say, and when it is time to look what they did not say."""
        ...

    @property
    def leads(self) -> bool:
        """Whether the background duties are this node's."""
        ...

    @property
    def alone(self) -> bool:
        """Whether no other node has been alive since the last look."""
        ...

    @property
    def dead_nodes(self) -> int:
        """Nodes declared dead that may have left something."""
        ...

    @property
    def lanes(self) -> Lanes:
        """Lanes that have items waiting, as far as this node knows."""
        ...

    def doubt_lanes(self) -> None:
        """Lanes may not be as remembered: the next claim looks at all of them."""
        ...

    async def read(self, reads: Sequence[Read]) -> Tx:
        """Committed rows."""
        ...

    async def outbox(self, after: bytes, limit: int) -> list[OutboxRow]:
        """Events that transactions of the application have sent, by rising id, from after one on."""
        ...

    async def left_behind(self) -> list[ItemRow]:
        """Some of the items that dead nodes left leased."""
        ...

    async def changed_elsewhere(self, run_ids: Sequence[bytes]) -> dict[bytes, bool]:
        """The runs, of these that are leased here, that other nodes have changed, and whether they are leased here still."""
        ...

    async def ended(self, run_ids: Sequence[bytes]) -> list[bytes]:
        """Which of these runs have ended, or are no longer there."""
        ...

    async def function_states_now(self) -> dict[int, FunctionState]:
        """How functions are paused, and which of their limits were changed, where anything is."""
        ...

    async def registered_now(self) -> tuple[list[AppRecord], list[tuple[int, int, bytes]]]:
        """The applications that are called over HTTP; id, version and registration document of every function in force."""
        ...

    # -- the nodes themselves ----------------------------------------------------------------------------------------------

    @property
    def watched(self) -> bool:
        """Whether somebody at another node looks at what happens, as far as is known."""
        ...

    @property
    def hears(self) -> bool:
        """Whether this node hears what others tell; behind a pooler it only looks."""
        ...

    def report(self, load: Callable[[], tuple[int, int, bool]]) -> None:
        """What this node says of itself with each renewal: runs in flight, its capacity, and whether somebody looks at it."""
        ...

    def look_soon(self, *, tell: bool = True) -> None:
        """Renew and look now, and have the others look too."""
        ...

    def tell(self, signal: Signal) -> None:
        """Tell the other nodes something."""
        ...

    async def nodes(self, limit: int) -> list[NodeView]:
        """The nodes: those that are alive, and those that ended within a day."""
        ...

    async def audit_places(self) -> int:
        """Set counts of places right that differ from what leases hold; how many there were."""
        ...

    async def settled(self) -> None:
        """What nodes left that are gone has been taken up: they need no more looking at."""
        ...
