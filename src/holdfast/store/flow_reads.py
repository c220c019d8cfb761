"""What pages and APIs read of flow control: plain views, never used to decide anything."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Leased(msgspec.Struct, frozen=True):
    """What executes now, which the process that executes it knows."""

    gates: Mapping[str, int] = {}
    """Places of concurrency limits that are taken, by gate."""
    functions: Mapping[int, int] = {}
    """Runs that are executing, by function."""


NOTHING_LEASED = Leased()


class GateView(msgspec.Struct, frozen=True):
    """What keeps a run of the queue from executing."""

    rule: str
    """concurrency, concurrency-2, run-concurrency, throttle, singleton (the run before it is being cancelled), paused, or
    capacity: no rule, the node is busy."""
    key: str = ""
    """The value of the rule's key; "" without one."""
    used: int | None = None
    """Places taken of `limit`."""
    limit: int | None = None
    until: int | None = None
    """Of a throttle: about when the run starts, if the limit stays as it is."""


class AlarmView(msgspec.Struct, frozen=True):
    """A moment at which a run will be cancelled."""

    kind: str
    """start: unless it has started. finish: unless it has ended. cancel: at once."""
    at: int
    reason: str


class CancelView(msgspec.Struct, frozen=True):
    """An event that cancels a run."""

    event: str
    condition: str
    """What of the event has to hold; "" for any."""
    expires: int | None
    """Until when."""


class GatherView(msgspec.Struct, frozen=True):
    """Events that wait to become one run."""

    kind: str
    """debounce or batch."""
    key: str
    run_id: str
    """The id its run will have."""
    event_id: str
    """Of a debounce, the event it will start with; of a batch, the first."""
    first_at: int
    due: int
    """When the run starts unless more comes."""
    events: int
    bytes: int


class KeyView(msgspec.Struct, frozen=True):
    """How a rule stands for one value of its key."""

    key: str
    used: int
    waiting: int
    since: int | None = None
    """Since when the first in line waits."""
    until: int | None = None
    """Of a throttle: when the next may start."""
    lanes: int = 0
    """Lines that wait for it."""


class TimerView(msgspec.Struct, frozen=True):
    """A run that is due at a moment."""

    run_id: str
    function: str
    function_name: str
    due: int
    started: bool
    """Whether it goes on then, from a sleep, a retry or the end of a wait's time; else it starts."""


class RuleView(msgspec.Struct, frozen=True):
    """A rule of a function and how it stands."""

    name: str
    words: str
    limit: int | None
    """The limit in force, of concurrency, throttle and rate limits."""
    declared: int | None
    """What the code says."""
    key: str | None
    """What its key is taken from; None without one."""
    used: int | None = None
    """Places taken, over all keys; of a rate limit, starts within its period. None where nothing is counted."""
    waiting: int = 0
    """Runs that wait for it; of a debounce or batch, those that will start."""
    since: int | None = None
    lanes: int = 0
    """Lines of runs that wait for it: one for each combination of keys."""
    hot: tuple[KeyView, ...] = ()
    """The keys with most waiting, at most ten."""
    more: bool = False
    """There is more than was counted."""

    @property
    def changed(self) -> bool:
        """Whether the limit in force is another than the code's."""
        return self.limit != self.declared


class BacklogView(msgspec.Struct, frozen=True):
    """What a function has to do."""

    queued: int
    """Runs in line."""
    running: int
    delayed: dict[str, int]
    """Of those in line and those yet to be: how many wait for which rule."""
    oldest: int | None
    """Since when the first of those in line waits."""
    more: bool
    """There is more than was counted."""


class FlowView(msgspec.Struct, frozen=True):
    """The flow control of a function, and how it stands."""

    function_id: int
    function: str
    """The slug."""
    function_name: str
    app: str
    archived: bool
    pause: str | None
    """hold, skip, or None."""
    rules: tuple[RuleView, ...]
    backlog: BacklogView
    gathers: tuple[GatherView, ...]
    """Debounces and batches that wait, those that are due first, at most twenty."""
    gathering: int
    """How many there are."""
