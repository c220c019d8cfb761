"""The seams inside the engine: what its parts need of the node, and of a run in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from holdfast.base.clock import Clock
from holdfast.base.codec import ResultCodec
from holdfast.base.ids import IdFactory
from holdfast.core.ending import Ending
from holdfast.core.ingest import Accepted, Incoming
from holdfast.core.machine import Lease
from holdfast.core.plan import Plan, Refused
from holdfast.core.queue import Leased
from holdfast.core.rows import EventRow, RunRow, StepRow
from holdfast.engine.functions import Callables, Registered
from holdfast.engine.intake import Intake
from holdfast.engine.notices import Notices
from holdfast.engine.threads import Bridge, Threads
from holdfast.engine.timers import Timers
from holdfast.sdk.calls import InvokeCall, StepCall
from holdfast.store.reads import Reader
from holdfast.store.sqlite import SqliteStore

A = TypeVar("A")


class Run(Protocol):
    """A run in memory, as the code that performs its steps sees it."""

    host: Host
    fn: Registered
    run: RunRow
    lease: Lease
    event_row: EventRow | None
    recorded: dict[str, StepRow]
    recorded_at: dict[str, int]
    calls: int
    multi: bool
    in_step: dict[asyncio.Task[Any], str]
    bodies: dict[str, int]
    timed_out: dict[str, int]
    bridge: Bridge | None
    unwinding: bool
    abandoned: bool
    has_waits: bool

    @property
    def run_id(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def replaying(self) -> bool: ...
    def take_logs(self) -> list[Any]: ...
    def note(self, text: str) -> None: ...
    def finish_call(self, call: StepCall[Any]) -> None: ...
    def step_recorded_at(self, step_id: str) -> int: ...
    def lost(self, answer: Refused) -> None: ...
    def abandon(self) -> None: ...
    def check(self) -> None: ...
    async def released(self, seq: int) -> None: ...
    async def wait_durably(self, key: str, due: int | None) -> StepRow | None: ...


class Host(Protocol):
    """The node, as runs and the engine's other parts see it."""

    clock: Clock
    loop: asyncio.AbstractEventLoop
    ids: IdFactory
    store: SqliteStore
    reader: Reader
    intake: Intake
    notices: Notices
    callables: Callables
    threads: Threads
    function_threads: Threads
    timers: Timers
    functions: dict[str, Registered]
    draining: bool
    linger_ms: int
    capacity: int

    @property
    def in_flight(self) -> int: ...
    @property
    def problem(self) -> str | None: ...
    def submit(self, plan: Plan[A]) -> asyncio.Future[A | Refused]: ...
    def accepted(self, accepted: Accepted | Refused) -> None: ...
    def claim(self) -> None: ...
    def launch(self, leased: Leased) -> None: ...
    def resume(self, lease: Lease) -> None: ...
    def left(self, run: Run) -> None: ...
    def woken(self, lease: Lease) -> int: ...
    def may_linger(self, now: int, due: int | None, *, threaded: bool) -> bool: ...
    def retried(self, run: Run) -> None: ...
    def run_ended(self, run: Run, ending: Ending, accepted: Accepted | Refused) -> None: ...
    def ended(self, run: RunRow, status: int) -> None: ...
    def end_events(self, run: RunRow, event: EventRow | None, ending: Ending) -> Sequence[Incoming]: ...
    def child(self, run: Run, call: InvokeCall[Any], target: Registered) -> Incoming: ...
    def codec(self, annotation: Any) -> ResultCodec: ...
    def check_size(self, data: bytes, key: str) -> None: ...
    def function_by_id(self, function_id: int) -> Registered | None: ...
    def slug_of(self, function_id: int) -> str: ...
    def run_in_memory(self, run_id: bytes) -> Run | None: ...
