"""What the command line reads of the API's objects; further fields are passed over, so newer servers are read too."""

from __future__ import annotations

from typing import Any

from msgspec import Raw, Struct

NULL = Raw(b"null")


class Run(Struct, frozen=True, kw_only=True):
    """A run. Moments are RFC 3339."""

    run_id: str
    status: str
    function: str
    event_id: str
    event_name: str
    origin: str
    queued_at: str
    ended_at: str | None
    duration_ms: int | None
    steps: int
    error: str | None
    original_run_id: str | None = None
    parent_run_id: str | None = None
    reason: str | None = None
    why: list[str] = []
    output: Raw = NULL

    @property
    def ended(self) -> bool:
        return self.ended_at is not None


class Cron(Struct, frozen=True):
    """A schedule."""

    function: str
    schedule: str
    zone: str
    next: list[str]
    last_at: str | None
    missed: int


class Attempt(Struct, frozen=True):
    """A failed attempt."""

    attempt: int
    retry_at: str | None
    error: dict[str, Any]


class Step(Struct, frozen=True):
    """A step of a run."""

    name: str
    kind: str
    state: str
    started_at: str
    ended_at: str | None
    due: str | None
    failed_attempts: int
    attempts: list[Attempt]
    error: dict[str, Any] | None
    output: Raw = NULL


class LogLine(Struct, frozen=True):
    """A line a run logged."""

    at: str
    level: str
    message: str


class History(Struct, frozen=True):
    """Everything recorded of a run."""

    run: Run
    steps: list[Step]
    attempts: list[Attempt]
    logs: list[LogLine]
    notes: list[str]


class DeadLetter(Struct, frozen=True):
    """A run that failed for good."""

    run_id: str
    redriven_as: str | None = None


class BulkStarted(Struct, frozen=True):
    """A bulk operation that a request began, or how many runs it would come to."""

    id: str | None
    total: int


class Bulk(Struct, frozen=True):
    """How far a bulk operation is."""

    state: str
    total: int
    done: int
    skipped: int
    failed: int
    error: str | None

    @property
    def seen(self) -> int:
        return self.done + self.skipped + self.failed


class Started(Struct, frozen=True):
    """A run that a request made."""

    run_id: str


class Accepted(Struct, frozen=True):
    """The answer of the event API."""

    ids: list[str]


class Health(Struct, frozen=True):
    """Whether the server accepts work."""

    status: int
    message: str


class PageInfo(Struct, frozen=True):
    """Where a list goes on."""

    next_cursor: str | None = None
