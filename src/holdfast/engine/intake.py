"""From an event as sent to a plan: identity, time, routing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from holdfast.base.clock import Clock
from holdfast.base.codec import decode_json
from holdfast.base.errors import EventInvalidError
from holdfast.base.ids import IdFactory, ulid_text
from holdfast.base.limits import MAX_EVENT_TS, MIN_EVENT_TS
from holdfast.core.admission import Watch, priority_of, work_out
from holdfast.core.flow import CancelRule, Flow
from holdfast.core.ingest import Incoming, Match, event_json, lookups_of, wait_lookup
from holdfast.core.routing import Router
from holdfast.core.rows import EventRow
from holdfast.sdk.outgoing import check_count, check_size
from holdfast.sdk.sender import Outgoing
from holdfast.store.api import Store


class Intake:
    """Makes `Incoming` of events: assigns ids, checks bounds, asks the routing index."""

    __slots__ = ("_clock", "_ids", "_models", "_store", "flows", "remote", "router")

    def __init__(self, clock: Clock, ids: IdFactory, store: Store) -> None:
        self._clock = clock
        self._ids = ids
        self._store = store
        self.router = Router()
        self.flows: dict[int, Flow] = {}
        """The flow control of the functions that have any."""
        self.remote: set[int] = set()
        """Functions that are executed by calling their application."""
        self._models: dict[int, Callable[[EventRow], Any]] = {}

    def control(self, flow: Flow, model: Callable[[EventRow], Any]) -> None:
        """From now on the runs of a function go by these rules.

        Args:
            flow: Its rules.
            model: Decodes an event as the function's keys see it, where they are functions.
        """
        self.flows[flow.function_id] = flow
        self._models[flow.function_id] = model

    def match(
        self,
        row: EventRow,
        run_id: bytes,
        function_id: int,
        version: int,
        *,
        origin: int = 0,
        parent_id: bytes | None = None,
        parent_step: str | None = None,
        seen: EventSubject | None = None,
    ) -> Match:
        """A run that an event is to start, with everything that the function's rules say about the event."""
        flow = self.flows.get(function_id)
        remote = function_id in self.remote
        if flow is None:
            lane = str(function_id)
            return Match(run_id, function_id, version, lane, 0, origin, parent_id, parent_step, None, remote)
        subject = EventSubject(row, self._models[function_id], seen)
        lane = flow.lane(subject)
        watches = [watch for rule in flow.cancel if (watch := self._watch(rule, row, subject)) is not None]
        admission = work_out(flow, lane, subject, watches)
        priority = priority_of(flow, subject)
        return Match(run_id, function_id, version, lane, priority, origin, parent_id, parent_step, admission, remote)

    def _watch(self, rule: CancelRule, row: EventRow, subject: EventSubject) -> Watch | None:
        lookup, expression, context = rule.event, rule.expression, None
        if rule.same is not None:
            value = subject.cel["data"]
            for part in rule.same.left.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if value is None:
                return None  # events that haven't the field either don't mean this run
            if isinstance(value, str | int | float | bool):
                lookup, expression = wait_lookup(rule.event, rule.same.right, value), None
        if expression is not None and "event." in expression:
            context = event_json(row)
        self._store.expect(lookup)
        return Watch(lookup, expression, context, rule.timeout)

    def prepare(self, events: Sequence[Outgoing], source: bytes | None = None) -> list[Incoming]:
        """Events, ready for a plan.

        Raises:
            EventInvalidError: one is out of bounds.
        """
        check_count(len(events))
        now = self._clock.now()
        return [self._one(event, now, source) for event in events]

    def _one(self, event: Outgoing, now: int, source: bytes | None) -> Incoming:
        ts = event.ts or now
        if ts != now:
            _check_ts(ts)
        check_size(event)
        internal = event.internal_id
        row = EventRow(
            self._ids.new(now) if internal is None else internal,
            event.name,
            ts,
            now,
            event.data,
            event.id,
            _meta(event),
            source,
        )
        return self.route(row, now, seeded=internal is not None)

    def route(self, row: EventRow, now: int, *, seeded: bool = False) -> Incoming:
        """What an event row would start and wake."""
        matches: list[Match] = []
        filtered: list[int] = []
        seen: EventSubject | None = None
        for route in self.router.candidates(row.name):
            if route.expression is not None or route.function_id in self.flows:
                seen = seen or EventSubject(row, _no_model)
            if seen is None or route.expression is None or route.expression.matches(event=seen.cel):
                if all(match.function_id != route.function_id for match in matches):
                    # a run's id is at least a millisecond younger than its event (protocol section 6)
                    run_id = self._ids.new(now + 1)
                    matches.append(self.match(row, run_id, route.function_id, route.version, seen=seen))
            else:
                filtered.append(route.function_id)
        if filtered and matches:
            started = {match.function_id for match in matches}
            filtered = [function_id for function_id in filtered if function_id not in started]
        paths = self._store.wait_paths(row.name)
        return Incoming(row, matches, filtered, lookups_of(row, paths) if paths else (), seeded)


class EventSubject:
    """An event as rules ask about it; decoded once for all rules of all functions that see it as JSON."""

    __slots__ = ("_cel", "_decode", "_model", "_row", "_seen")

    def __init__(self, row: EventRow, model: Callable[[EventRow], Any], seen: EventSubject | None = None) -> None:
        self._row = row
        self._decode = model
        self._seen = seen
        self._cel: dict[str, Any] | None = None
        self._model: Any = None

    @property
    def cel(self) -> dict[str, Any]:
        """As expressions see it."""
        if self._seen is not None:
            return self._seen.cel
        if self._cel is None:
            row = self._row
            self._cel = {
                "name": row.name, "data": decode_json(row.data), "id": row.key or ulid_text(row.id), "ts": row.ts,
            }  # fmt: skip
        return self._cel

    @property
    def model(self) -> Any:
        """As the function's model, decoded once."""
        if self._model is None:
            self._model = self._decode(self._row)
        return self._model


def _no_model(row: EventRow) -> Any:
    return decode_json(row.data)


def _check_ts(ts: int) -> None:
    if type(ts) is not int:
        raise EventInvalidError(f"timestamp must be an integer number of milliseconds, not {ts!r:.40}")
    if ts < MIN_EVENT_TS:
        raise EventInvalidError("timestamp is before Jan 1, 1980")
    if ts >= MAX_EVENT_TS:
        raise EventInvalidError("timestamp is after Jan 1, 2100")


def _meta(event: Outgoing) -> bytes | None:
    if event.user is None and event.v is None and event.meta is None:
        return None
    parts = []
    if event.user is not None:
        parts.append(b'"user":' + event.user)
    if event.v is not None:
        parts.append(b'"v":' + msgspec.json.encode(event.v))
    if event.meta is not None:
        parts.append(b'"meta":' + event.meta)
    return b"{" + b",".join(parts) + b"}"
