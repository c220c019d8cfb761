"""Lifecycle events: what the end of a run announces (protocol section 4)."""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast.base.ids import derived_id, ulid_text
from holdfast.core.ending import Ending
from holdfast.core.ingest import Incoming, event_json
from holdfast.core.rows import EventRow, RunRow, RunStatus
from holdfast.engine.host import Host

FAILED = "inngest/function.failed"
FINISHED = "inngest/function.finished"
CANCELLED = "inngest/function.cancelled"
_STATUS = {RunStatus.COMPLETED: "Completed", RunStatus.FAILED: "Failed", RunStatus.CANCELLED: "Cancelled"}


class Lifecycle:
    """Makes the events of an end. `function.finished` is stored only where something listens: it can be read off the run."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def of(self, run: RunRow, event: EventRow | None, ending: Ending) -> list[Incoming]:
        """The events of a run that ends so; none for runs that lifecycle events started."""
        names = self._wanted(ending.status, event)
        return self._make(names, run, self._host.slug_of(run.function_id), event, ending) if names else []

    def _wanted(self, status: RunStatus, event: EventRow | None) -> list[str]:
        if event is not None and event.name in {FAILED, FINISHED, CANCELLED}:
            return []  # no recursion
        names = {RunStatus.FAILED: [FAILED], RunStatus.CANCELLED: [CANCELLED]}.get(status, [])
        intake = self._host.intake
        listened = [FINISHED] if intake.router.candidates(FINISHED) or self._host.store.wait_paths(FINISHED) else []
        return names + listened

    def _make(self, names: list[str], run: RunRow, slug: str, event: EventRow | None, ending: Ending) -> list[Incoming]:
        host = self._host
        now = host.clock.now()
        run_id = ulid_text(run.id)
        trigger = msgspec.Raw(event_json(event)) if event is not None else {}
        data: dict[str, Any] = {
            "function_id": slug,
            "run_id": run_id,
            "event": trigger,
            "events": [trigger],
            "_inngest": {"status": _STATUS[ending.status]},
        }
        if (fn := host.functions.get(slug)) is not None:
            data["app_id"] = fn.app.id
        if ending.error is not None:
            data["error"] = msgspec.Raw(_public(ending.error))
        elif ending.status == RunStatus.COMPLETED:
            data["result"] = msgspec.Raw(ending.output or b"null")
        raw = msgspec.json.encode(data)
        rows = [
            EventRow(derived_id(now, run.id, name), name, now, now, raw, None if name == FINISHED else run_id)
            for name in names
        ]
        return [host.intake.route(row, now) for row in rows]


def _public(error: bytes) -> bytes:
    body = msgspec.json.decode(error)
    return msgspec.json.encode({key: body[key] for key in ("name", "message", "stack") if key in body})
