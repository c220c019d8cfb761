"""The plans of reruns and redrives: for one run as a person asks, and for the many of a bulk operation."""

from __future__ import annotations

from typing import Any

from holdfast.base.codec import decode_json, encode_json
from holdfast.base.errors import ConfigurationError, EventInvalidError, NonRetriableError, NotSerializableError
from holdfast.base.ids import ulid_text
from holdfast.base.limits import MAX_EVENT_BYTES
from holdfast.base.masks import MASKED, holds_mask
from holdfast.core.edits import FAILED_STEP, EditedRestart
from holdfast.core.ingest import Match
from holdfast.core.restart import Restart
from holdfast.core.rows import EventRow, RunRow
from holdfast.engine.functions import Registered
from holdfast.engine.host import Host
from holdfast.engine.remote_functions import RemoteFunction
from holdfast.sdk import inputs
from holdfast.sdk.sender import Edit

_STILL_MASKED = f"a value is {MASKED}, as it was shown: write what it is to be, or leave the whole out to keep it"


def restart_plan(
    host: Host,
    run: RunRow,
    event: EventRow | None,
    *,
    redrive: bool,
    edit: Edit | None = None,
    new_id: bytes | None = None,
) -> Restart:
    """The plan that starts a run of an event again.

    Raises:
        ConfigurationError: its function is not part of the running app, its event is gone, or the edit is not possible.
        EventInvalidError: the edited event is not acceptable.
    """
    fn = host.applications.functions.get(run.function_id) or host.function_by_id(run.function_id)
    if fn is None:
        raise ConfigurationError(
            f"function {host.slug_of(run.function_id)!r} is not part of the running app; start the app that has it"
        )
    if event is None:
        raise ConfigurationError(f"the event of run {ulid_text(run.id)} is no longer stored; send it anew")
    edit = edit or Edit()
    edited = None if edit.event_data is None else _edited_event(host, fn, event, edit.event_data)
    run_id = host.ids.new(host.clock.now() + 1) if new_id is None else new_id
    match = _match_again(host, run, fn, edited or event, run_id, origin=3 if redrive else 2)
    if edit == Edit():
        return Restart(run.id, match, redrive=redrive)
    from_step = edit.from_step
    if edit.input is not None and from_step is None:
        if not redrive:
            raise ConfigurationError("an edited input belongs to a step: say which with from_step")
        from_step = FAILED_STEP
    if holds_mask(edit.input):
        raise EventInvalidError(_STILL_MASKED)
    given = None if edit.input is None else inputs.checked(edit.input)
    return EditedRestart(run.id, match, redrive=redrive, from_step=from_step, given=given, event=edited)


def _match_again(
    host: Host, run: RunRow, fn: Registered | RemoteFunction, event: EventRow, run_id: bytes, *, origin: int
) -> Match:
    match = host.intake.match(event, run_id, fn.id, fn.version, origin=origin, parent_id=run.id)
    if isinstance(fn, Registered):
        match.remote = run.remote is not None  # the steps that it takes over are recorded in one way or the other
    if match.admission is not None:
        match.admission.restarted = True
        match.admission.recorded = False
    return match


def _edited_event(host: Host, fn: Registered | RemoteFunction, old: EventRow, data: Any) -> EventRow:
    """A new event with other data, which says what it was made from. It starts nothing but the one run."""
    if not isinstance(data, dict):
        raise EventInvalidError("the data of an event is an object")
    if holds_mask(data):
        raise EventInvalidError(_STILL_MASKED)
    try:
        raw = encode_json(data, f"event {old.name!r}")
    except NotSerializableError as error:
        raise EventInvalidError(str(error)) from error
    if len(raw) > MAX_EVENT_BYTES:
        raise EventInvalidError(f"the data is {len(raw):,} bytes; an event may have {MAX_EVENT_BYTES:,}")
    now = host.clock.now()
    meta = decode_json(old.meta) if old.meta else {}
    meta["edited_from"] = ulid_text(old.id)
    event = EventRow(host.ids.new(now), old.name, now, now, raw, None, encode_json(meta, "the event's meta"))
    if isinstance(fn, RemoteFunction):
        return event  # its application knows what it can read
    try:
        fn.received(event)
    except NonRetriableError as error:
        raise EventInvalidError(
            str(error).replace("the stored event no longer fits", "the edited event does not fit")
        ) from error
    return event
