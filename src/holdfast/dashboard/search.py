"""The search box: `status:failed fn:fulfil error~"card declined" since:1h`, or an id."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from holdfast.base.errors import ConfigurationError
from holdfast.base.ids import ulid_bytes
from holdfast.base.moment import moment
from holdfast.dashboard.status import RUN_STATUSES
from holdfast.store.reads import RunFilter

_TERM = re.compile(r'(?:(?P<key>[A-Za-z_]+)(?P<op>[:~]))?(?P<value>"(?:[^"\\]|\\.)*"|\S+)')
_KEYS = {
    "status": "status",
    "fn": "function",
    "function": "function",
    "app": "app",
    "event": "event",
    "id": "id",
    "event_id": "event_id",
    "since": "since",
    "until": "until",
    "error": "error",
    "parent": "parent",
}
_SPELLING = {
    "status": "status:",
    "function": "fn:",
    "app": "app:",
    "event": "event:",
    "event_id": "event_id:",
    "error": "error~",
    "since": "since:",
    "until": "until:",
    "parent": "parent:",
}
KEYS_TEXT = "status: fn: app: event: id: error~ since:"
"""What the box understands, for hints and messages."""


class RunQuery(msgspec.Struct, frozen=True):
    """Which runs to show, as the address and the search box spell it."""

    status: tuple[str, ...] = ()
    function: str = ""
    app: str = ""
    event: str = ""
    event_id: str = ""
    error: str = ""
    since: str = ""
    """`1h`, `7d`, a date or RFC 3339 text."""
    until: str = ""
    parent: str = ""

    def params(self) -> dict[str, str]:
        """Query parameters of the address, without empty ones."""
        fields = {name: getattr(self, name) for name in _SPELLING}
        fields["status"] = ",".join(self.status)
        return {name: value for name, value in fields.items() if value}

    def text(self) -> str:
        """The query as one would type it."""
        terms = []
        for name, value in self.params().items():
            shown = value.lower() if name == "status" else value
            quoted = (
                '"' + shown.replace("\\", "\\\\").replace('"', '\\"') + '"' if re.search(r'[\s"]', shown) else shown
            )
            terms.append(_SPELLING[name] + quoted)
        return " ".join(terms)

    def where(self, now: int) -> RunFilter:
        """The store's filter.

        Raises:
            ConfigurationError: `since` or `until` is not a time.
        """
        return RunFilter(
            status=self.status,
            function=self.function or None,
            app=self.app or None,
            event=self.event or None,
            event_id=self.event_id or None,
            error=self.error or None,
            parent=self.parent or None,
            since=moment(self.since, now) if self.since else None,
            until=moment(self.until, now) if self.until else None,
        )

    def only_status(self, *status: str) -> RunQuery:
        """The same query with another status."""
        return msgspec.structs.replace(self, status=status)


class Parsed(msgspec.Struct, frozen=True):
    """What was typed: a query, or an id to jump to, and what was not understood."""

    query: RunQuery
    jump: str | None = None
    problem: str | None = None


class Known(msgspec.Struct, frozen=True):
    """Names by which bare words are recognised."""

    functions: frozenset[str] = frozenset()
    events: frozenset[str] = frozenset()
    apps: frozenset[str] = frozenset()


def parse(text: str, known: Known) -> Parsed:
    """Read the search box. Bare words are ids, statuses, functions, events or apps, in that order, else text in the error."""
    fields: dict[str, str] = {}
    words: list[str] = []
    problem = None
    for match in _TERM.finditer(text[:2000].strip()):
        value = _unquote(match["value"])
        if match["key"] is None:
            if is_id(value):
                return Parsed(RunQuery(), jump=value.upper())
            name = _recognise(value, known)
            if name is None:
                words.append(value)
            else:
                fields[name] = value
            continue
        name = _KEYS.get(match["key"].lower())
        if name is None and match["op"] == ":" and is_event_like(match.group()):
            words.append(match.group())
        elif name is None:
            problem = f"'{match['key']}{match['op']}' is not something to search by; there are {KEYS_TEXT}"
        elif name == "id":
            return Parsed(RunQuery(), jump=value)
        else:
            fields[name] = value
    if words:
        fields["error"] = " ".join([*([fields["error"]] if "error" in fields else []), *words])
    query, status_problem = from_params(fields)
    return Parsed(query, None, problem or status_problem)


def from_params(params: Mapping[str, str]) -> tuple[RunQuery, str | None]:
    """The query of an address, and what in it could not be understood."""
    problem = None
    status = []
    for word in params.get("status", "").split(","):
        name = word.strip().upper()
        if name in RUN_STATUSES:
            status.append(name)
        elif name == "ACTIVE":
            status += ["QUEUED", "RUNNING", "WAITING"]
        elif name:
            problem = f"'{word.strip()}' is not a status; there are {', '.join(s.lower() for s in RUN_STATUSES)}"
    fields = {name: params.get(name, "").strip()[:500] for name in _SPELLING if name != "status"}
    for name in ("since", "until"):
        if fields[name] and not _is_moment(fields[name]):
            problem = f"'{fields[name]}' is not a time; write {name}:1h, {name}:7d or {name}:2026-03-01"
            fields[name] = ""
    return RunQuery(status=tuple(dict.fromkeys(status)), **fields), problem


def is_id(text: str) -> bool:
    """Whether it has the form of a run's or event's id."""
    try:
        ulid_bytes(text)
    except ValueError:
        return False
    return True


def is_event_like(text: str) -> bool:
    """`shop:order.paid` and the like: a name with a colon, not a search term."""
    return "/" in text or "." in text.partition(":")[2]


def _is_moment(text: str) -> bool:
    try:
        moment(text, 0)
    except ConfigurationError:
        return False
    return True


def _recognise(word: str, known: Known) -> str | None:
    if word.upper() in RUN_STATUSES:
        return "status"
    for name, words in (("function", known.functions), ("event", known.events), ("app", known.apps)):
        if word in words:
            return name
    return "event" if "/" in word and " " not in word else None


def _unquote(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value


def known_from(functions: Sequence[tuple[str, str]], events: Sequence[str]) -> Known:
    """Names to recognise, from (app, slug) pairs and event names."""
    slugs = {slug for _, slug in functions}
    return Known(
        frozenset(slugs | {slug.removeprefix(f"{app}-") for app, slug in functions}),
        frozenset(events),
        frozenset(a for a, _ in functions),
    )
