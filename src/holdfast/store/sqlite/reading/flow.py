"""Flow control as it stands: limits and who takes them, lines and what they wait for, events that gather.

The queue may have millions of items in as many lanes. So a function's lanes are looked at up to a number, and each is counted
up to a number; what is beyond is said to be there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import msgspec

from holdfast.base.ids import ulid_text
from holdfast.core.flow import Flow, GateKind, Rate
from holdfast.core.flow_words import Rule, gate_prefix, gate_rules, rules_of
from holdfast.core.rows import GatherKind
from holdfast.store.flow_reads import BacklogView, FlowView, GatherView, KeyView, Leased, RuleView
from holdfast.store.sqlite.reading import flow_statements as sql
from holdfast.store.sqlite.reading.compiled import PAUSES, flow_of
from holdfast.store.sqlite.reading.line import shut_gate
from holdfast.store.sqlite.reading.views import SqlRow

MAX_LANES = 1000
"""Lanes of a function that are looked at."""
MAX_IN_LANE = 1000
"""Items that are counted of a lane."""
MAX_KEYS = 2000
"""Keys of a rule whose places are added up."""
HOT_KEYS = 10
SHOWN_GATHERS = 20


class _Key(msgspec.Struct):
    """What is being added up for a key of a rule."""

    used: int = 0
    waiting: int = 0
    lanes: int = 0
    since: int | None = None
    until: int | None = None

    def view(self, key: str) -> KeyView:
        return KeyView(key, self.used, self.waiting, self.since, self.until, self.lanes)


class _Tally(msgspec.Struct):
    """What is being added up for a function."""

    keys: dict[str, dict[str, _Key]]
    """By rule and key."""
    queued: int = 0
    oldest: int | None = None
    delayed: dict[str, int] = {}
    more: bool = False

    def key(self, rule: str, key: str) -> _Key:
        return self.keys.setdefault(rule, {}).setdefault(key, _Key())


def flow_views(conn: sqlite3.Connection, leased: Leased, now: int, slug: str | None) -> list[FlowView]:
    """The flow control of all functions, or of one."""
    return [_view(conn, row, leased, now) for row in conn.execute(sql.FUNCTIONS, (slug,)).fetchall()]


def _view(conn: sqlite3.Connection, row: SqlRow, leased: Leased, now: int) -> FlowView:
    function_id, slug, name, app, archived, paused, config, limits = row
    flow = flow_of(function_id, config, limits)
    pause = PAUSES[paused]
    tally = _lines(conn, flow, pause, leased)
    _count_places(conn, flow, tally, leased, now)
    gathers = conn.execute(sql.GATHERS, (function_id, MAX_KEYS)).fetchall()
    rules = tuple(_rule(rule, tally, gathers) for rule in rules_of(flow))
    oldest = None if tally.oldest is None else min(tally.oldest, now)
    running = leased.functions.get(function_id, 0)
    for kind in GatherKind:
        waiting = sum(gather[0] == kind for gather in gathers)
        if waiting:
            tally.delayed[kind.name.lower()] = waiting
    return FlowView(
        function_id=function_id,
        function=slug,
        function_name=name,
        app=app,
        archived=bool(archived),
        pause=pause,
        rules=rules,
        backlog=BacklogView(tally.queued, running, tally.delayed, oldest, tally.more),
        gathers=tuple(gather_view(gather) for gather in gathers[:SHOWN_GATHERS]),
        gathering=len(gathers),
    )


def _lines(conn: sqlite3.Connection, flow: Flow, pause: str | None, leased: Leased) -> _Tally:
    """The function's lanes: how many wait in each, since when, and for what."""
    tally = _Tally({}, delayed={})
    lanes = conn.execute(sql.LANES, (str(flow.function_id), MAX_LANES + 1, MAX_IN_LANE)).fetchall()
    tally.more = len(lanes) > MAX_LANES
    for lane, blocked, until, gate_id, count, since in lanes[:MAX_LANES]:
        if not count:
            continue
        tally.queued += count
        tally.more = tally.more or count == MAX_IN_LANE
        tally.oldest = _least(tally.oldest, since)
        stop = shut_gate(conn, flow, lane, (blocked, until, gate_id), leased)
        if pause == "hold":
            tally.delayed["paused"] = tally.delayed.get("paused", 0) + count
        if stop is None:
            continue
        rule, gate, _ = stop
        if pause != "hold":
            tally.delayed[rule.name] = tally.delayed.get(rule.name, 0) + count
        key = tally.key(rule.name, gate.key)
        key.waiting += count
        key.lanes += 1
        key.since = _least(key.since, since)
    return tally


def _count_places(conn: sqlite3.Connection, flow: Flow, tally: _Tally, leased: Leased, now: int) -> None:
    """Places taken, by rule and key."""
    for rule in gate_rules(flow):
        prefix = gate_prefix(flow, rule)
        if isinstance(rule, Rate):
            interval = rule.period * 1000 // flow.limits.get(rule.name, rule.limit)
            for key, tat in _of_prefix(conn, sql.THROTTLES, prefix):
                opens = (tat - interval * rule.burst) // 1000
                if opens > now:
                    tally.key(rule.name, key).until = opens
        elif rule.kind == GateKind.LEASE:
            for gate, used in leased.gates.items():
                if gate.startswith(prefix):
                    tally.key(rule.name, gate[len(prefix) :]).used = used
        else:
            for key, used in _of_prefix(conn, sql.RUN_COUNTS, prefix):
                tally.key(rule.name, key).used = used
    rate = flow.rate_limit
    if rate is not None:
        for key, moments in _of_prefix(conn, sql.WINDOWS, gate_prefix(flow, rate)):
            within = msgspec.json.decode(moments, type=list[tuple[int, int]])
            used = sum(count for moment, count in within if moment > now - rate.period)
            if used:
                tally.key(rate.name, key).used = used


def _of_prefix(conn: sqlite3.Connection, statement: str, prefix: str) -> Iterable[SqlRow]:
    # the prefix ends with a colon, and a semicolon comes next
    rows = conn.execute(statement, (prefix, prefix[:-1] + ";", MAX_KEYS)).fetchall()
    return [(gate[len(prefix) :], value) for gate, value in rows]


def _rule(rule: Rule, tally: _Tally, gathers: list[SqlRow]) -> RuleView:
    if rule.name in {"debounce", "batch"}:
        kind = GatherKind[rule.name.upper()]
        waiting = [gather for gather in gathers if gather[0] == kind]
        since = min((gather[4] for gather in waiting), default=None)
        return RuleView(rule.name, rule.words, None, None, rule.key, None, len(waiting), since)
    keys = tally.keys.get(rule.name, {})
    counted = rule.limit is not None and rule.name != "throttle"
    hot = sorted(keys.items(), key=lambda one: (-one[1].waiting, -one[1].used, one[0]))[:HOT_KEYS]
    since = None
    for one in keys.values():
        since = _least(since, one.since)
    return RuleView(
        name=rule.name,
        words=rule.words,
        limit=rule.limit,
        declared=rule.declared,
        key=rule.key,
        used=sum(one.used for one in keys.values()) if counted else None,
        waiting=sum(one.waiting for one in keys.values()),
        since=since,
        lanes=sum(one.lanes for one in keys.values()),
        hot=tuple(one.view(key) for key, one in hot),
        more=tally.more or len(keys) >= MAX_KEYS,
    )


def _least(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def gather_view(row: SqlRow) -> GatherView:
    """A debounce or batch from its row."""
    kind, key, run_id, event_id, first_at, due, count, size = row
    return GatherView(GatherKind(kind).name.lower(), key, ulid_text(run_id), ulid_text(event_id), first_at, due, count, size)
