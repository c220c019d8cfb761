"""Lifecycle events: what the end of a run announces (protocol section 4)."""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast.base.ids import derived_id, name_uuid, ulid_text
from holdfast.core.ending import Ending
from holdfast.core.ingest import Incoming, event_json
from holdfast.core.rows import EventRow, RunRow, RunStatus
from holdfast.engine.functions import Registered
from holdfast.engine.host import Host, Run
from holdfast.sdk.calls import InvokeCall
from holdfast.sdk.outgoing import payload

FAILED = "inngest/function.failed"
FINISHED = "inngest/function.finished"
CANCELLED = "inngest/function.cancelled"
INVOKED = 1
"""The origin of runs that another run's step started."""
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
        if event is not None and event.name in {FAILED, FINISHED}:
            return []  # no recursion (protocol section 4)
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
        if run.origin == INVOKED and run.parent_id is not None:
            data["correlation_id"] = correlation_id(run.parent_id, run.parent_step or "")
        if ending.error is not None:
            data["error"] = msgspec.Raw(_public(ending.error))
        elif ending.status == RunStatus.COMPLETED:
            data["result"] = msgspec.Raw(ending.output or b"null")
        raw = msgspec.json.encode(data)
        meta = None if event is None else _sessions(event.meta)
        rows = [
            EventRow(derived_id(now, run.id, name), name, now, now, raw, None if name == FINISHED else run_id, meta)
            for name in names
        ]
        return [host.intake.route(row, now) for row in rows]


def _public(error: bytes) -> bytes:
    body = msgspec.json.decode(error)
    if "step_name" in body:  # the key is a hash where an application was called
        body["step"] = body["step_name"]
    return msgspec.json.encode({key: body[key] for key in ("error", "name", "message", "stack", "step") if key in body})


def _sessions(meta: bytes | None) -> bytes | None:
    """The part of an event's envelope that what follows from it carries on."""
    sessions = msgspec.json.decode(meta).get("meta") if meta else None
    return msgspec.json.encode({"meta": sessions}) if sessions else None


def correlation_id(run_id: bytes, step: str) -> str:
    """How a run's end is told to be that of a step's invocation."""
    return f"{ulid_text(run_id)}.{step}"


def invoked_data(parent: Run, call: InvokeCall[Any], target: Registered, expires: int) -> bytes:
    """The data of `inngest/function.invoked`: the payload, and beside it who invokes whom (protocol section 4)."""
    fn = parent.fn
    about = {
        "source_app_id": name_uuid(fn.app.id),
        "source_fn_id": name_uuid(fn.app.id, fn.slug),
        "source_fn_v": fn.version,
        "fn_id": name_uuid(target.app.id, target.slug),
        "correlation_id": correlation_id(parent.run.id, call.key),
        "expire": expires,
        "gid": name_uuid(parent.run_id, call.key),
        "name": target.slug,
    }
    raw = payload(call.payload)
    fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    return msgspec.json.encode({**fields, "_inngest": about})
