"""Statuses outside of the store: what is mirrored of a run, and where to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any, Literal, Protocol

from holdfast.base.clock import to_datetime

Status = Literal["queued", "running", "retrying", "completed", "failed", "cancelled"]
"""`retrying`: something has failed, and is or will be tried again."""

ENDED: frozenset[Status] = frozenset({"completed", "failed", "cancelled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """Where a run stood when it was looked at. Moments are milliseconds since 1970."""

    run_id: str
    app: str
    function: str
    """The function's id, without its app's."""
    event_name: str
    event_data: Mapping[str, Any]
    """The data of the event that started the run, as it is on the wire."""
    status: Status
    queued_at: int
    started_at: int | None
    finished_at: int | None
    attempt: int
    """Which attempt is, or was, under way, from 1: one more for each failure that something is tried again after."""
    last_error: str | None
    """The message of the latest failure, also after a later attempt has succeeded."""

    @property
    def ended(self) -> bool:
        """Whether nothing follows."""
        return self.status in ENDED

    @property
    def duration_ms(self) -> int | None:
        """From start to end; None before both are known."""
        if self.started_at is None or self.finished_at is None:
            return None
        return self.finished_at - self.started_at

    def document(self) -> dict[str, Any]:
        """The status as JSON: status, startedAt, finishedAt (ISO 8601, UTC), durationMs, attempt, lastError."""
        return {
            "status": self.status,
            "startedAt": _iso(self.started_at),
            "finishedAt": _iso(self.finished_at),
            "durationMs": self.duration_ms,
            "attempt": self.attempt,
            "lastError": self.last_error,
        }


@dataclass(frozen=True, slots=True)
class Mirrored:
    """What a sink remembers from before: where to go on from."""

    until: int
    """Every run that was queued before this moment has been mirrored at least once. 0: none has."""
    unfinished: Sequence[str]
    """Ids of the runs that had not ended when they were mirrored last."""


class StatusSink(Protocol):
    """Somewhere that the statuses of an app's runs are mirrored to: `App("shop", sinks=[...])`.

    holdfast writes when a run is queued and started, at each retry and at its end, after the commit. It reads what it
    writes from the store, so a status may be newer than what it is written for, and is never older. While a sink can't
    be reached, what has changed is kept and tried again. After a crash, whatever the sink may have missed is written again.
    """

    async def open(self) -> Mirrored:
        """Connect, if need be, and say what was mirrored before. Called again after a failure."""
        ...

    async def write(self, statuses: Sequence[JobStatus]) -> None:
        """Write statuses, each unless a newer run has taken its place, and remember which runs have not ended."""
        ...

    async def forget(self, run_ids: Sequence[str]) -> None:
        """Don't remember these runs any more: they are not in the store."""
        ...

    async def checkpoint(self, until: int) -> None:
        """Remember that every run that was queued before this moment has been mirrored."""
        ...

    async def close(self) -> None:
        """Disconnect."""
        ...


def _iso(moment: int | None) -> str | None:
    if moment is None:
        return None
    return to_datetime(moment).astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
