"""What an app needs of whatever accepts its events and runs its functions. The engine implements it; so does HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol

import msgspec

from holdfast.base.ids import ulid_text
from holdfast.core.reporting import Progress


class Outgoing(msgspec.Struct, gc=False):
    """An event on its way in: validated, encoded, not yet accepted."""

    name: str
    data: bytes
    id: str | None = None
    ts: int | None = None
    user: bytes | None = None
    v: str | None = None
    meta: bytes | None = None
    internal_id: bytes | None = None
    """Set by the seed header, so that a client's retry stores it once (protocol section 1.2)."""


class Sent(msgspec.Struct, gc=False):
    """The receipt of an accepted event: it is on disk."""

    raw_id: bytes
    duplicate: bool = False
    """An event with the same id was accepted within 24 hours: the functions it had started were not started again."""

    @property
    def id(self) -> str:
        """The internal event id, a ULID."""
        return ulid_text(self.raw_id)


class RunInfo(msgspec.Struct, frozen=True):
    """A run as Python code reads it."""

    id: str
    function: str
    status: str
    """QUEUED RUNNING WAITING COMPLETED FAILED CANCELLED SKIPPED."""
    event_id: str
    event_name: str
    queued_at: int
    """Milliseconds since 1970, as the other moments."""
    started_at: int | None
    ended_at: int | None
    attempt: int
    error: str | None
    reason: str | None = None
    """Why it was cancelled or skipped, where a rule did it."""
    progress: Progress | None = None
    """How far it has said it is (`ctx.progress`), if it has."""
    steps: int = 0
    """Steps recorded so far."""

    @property
    def ended(self) -> bool:
        """Whether nothing follows."""
        return self.status in {"COMPLETED", "FAILED", "CANCELLED", "SKIPPED"}

    @property
    def duration(self) -> timedelta | None:
        """From start to end; None before both are known."""
        if self.started_at is None or self.ended_at is None:
            return None
        return timedelta(milliseconds=self.ended_at - self.started_at)


class Edit(msgspec.Struct, frozen=True):
    """What is to be different when a run starts again."""

    from_step: str | None = None
    """Key of the step to begin at."""
    input: Any = None
    """The arguments of that step's body: a list, or {args, kwargs}."""
    event_data: Any = None
    """The data of the event, an object."""


class BulkInfo(msgspec.Struct, frozen=True):
    """A bulk operation and how far it is."""

    id: str
    action: str
    """cancel, rerun, redrive or discard."""
    state: str
    """running, done or cancelled."""
    total: int
    """How many runs matched when it began."""
    done: int
    skipped: int
    """There was nothing to do any more."""
    failed: int
    error: str | None
    """Why the last of those that failed did."""


class Sender(Protocol):
    """Accepts events."""

    async def send(self, events: Sequence[Outgoing]) -> list[Sent]:
        """Accept events; returns when all are on disk.

        Raises:
            EventInvalidError: one is not acceptable; none of this call was accepted.
            OverloadedError: too much is in memory; none was accepted.
            StoreError: the disk refused; none was accepted.
        """
        ...

    async def send_signal(self, name: str, data: bytes) -> str | None:
        """Give a signal; the id of the run that was resumed, once that is on disk, or None when none waited."""
        ...

    def send_threadsafe(self, events: Sequence[Outgoing]) -> list[Sent]:
        """The same from a thread that doesn't run the engine's loop; blocks until on disk."""
        ...


class FlowSwitches(Protocol):
    """What can be changed about functions without changing their code; `holdfast.sdk.flow_switches` says what each does."""

    async def pause(self, slug: str, mode: str = "hold") -> None: ...
    async def resume(self, slug: str) -> None: ...
    async def set_limit(self, slug: str, rule: str, limit: int | None) -> None: ...
    async def flush(self, slug: str, key: str | None = None) -> int: ...


class Control(Sender, Protocol):
    """Starts, reads and stops runs as well."""

    @property
    def flow_control(self) -> FlowSwitches: ...

    async def start(self, function: str, event: Outgoing) -> str:
        """Start one function for one event, whatever its triggers; the run's id once it is on disk."""
        ...

    async def result(self, run_id: str, timeout: float | None) -> bytes:
        """JSON of a run's return value once it has ended.

        Raises:
            RunFailedError, RunCancelledError, RunNotFoundError, TimeoutError
        """
        ...

    async def run_info(self, run_id: str) -> RunInfo: ...
    def watch_run(self, run_id: str) -> AsyncIterator[RunInfo]:
        """Where a run stands, then again at each change, until it has ended."""
        ...

    def list_runs(self, **where: Any) -> AsyncIterator[RunInfo]: ...
    async def cancel(self, run_id: str) -> bool: ...
    async def rerun(self, run_id: str, edit: Edit | None = None) -> str: ...
    async def redrive(self, run_id: str, edit: Edit | None = None) -> str: ...
    async def bulk(self, action: str, where: Mapping[str, Any], *, rate: str | None = None) -> str: ...
    async def bulk_info(self, bulk_id: str) -> BulkInfo: ...
    async def cancel_bulk(self, bulk_id: str) -> bool: ...
