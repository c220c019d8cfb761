"""Which runs a bulk operation is about: the filter of the list of runs, as it is asked for and as it is stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from holdfast.base.errors import ConfigurationError
from holdfast.base.ids import ulid_bytes
from holdfast.base.moment import moment
from holdfast.core.expressions import compile_expression
from holdfast.core.rows import RunStatus
from holdfast.store.reads import RunFilter

ACTIONS: Final = ("cancel", "rerun", "redrive", "discard")
ACTIVE: Final = ("QUEUED", "RUNNING", "WAITING")
ENDED: Final = tuple(status.name for status in RunStatus if status.ended)
_STATUSES: Final = (*(status.name for status in RunStatus), "WAITING")
MAX_IDS: Final = 1000

replace = msgspec.structs.replace


class Selection(RunFilter, frozen=True, omit_defaults=True, rename={"expression": "if"}):
    """A filter of runs, with what only bulk operations have."""

    expression: str | None = None
    """CEL over `event`, the event of each run; on the wire `if`."""
    all: bool = False
    """Meant for all runs there are: without it, a filter that narrows nothing is refused."""

    def json(self) -> bytes:
        """As it is stored."""
        return msgspec.json.encode(self)


def stored(raw: bytes) -> Selection:
    """A selection as it was stored."""
    return msgspec.json.decode(raw, type=Selection)


def selection_of(action: str, given: Mapping[str, Any], now: int) -> Selection:
    """The runs that an action is asked for.

    Args:
        action: cancel, rerun, redrive or discard.
        given: `ids`, `status`, `function`, `app`, `event`, `event_id`, `error`, `parent`, `since`, `until`, `fingerprint`,
            `if`, or `all`. Moments are milliseconds since 1970, RFC 3339, or so long ago: `1h`.
        now: The time.

    Raises:
        ConfigurationError: the action or a field is not known, or nothing narrows the runs and `all` isn't said.
    """
    if action not in ACTIONS:
        raise ConfigurationError(f"{action[:40]!r} is nothing to do with runs; there are {', '.join(ACTIONS)}")
    fields = {key: value for key, value in given.items() if value not in (None, "", [], ())}
    for name in ("since", "until"):
        if isinstance(fields.get(name), str):
            fields[name] = moment(fields[name], now)
    fields["status"] = _statuses(fields.get("status", ()))
    if not isinstance(fields.get("ids", []), list | tuple) or len(fields.get("ids", ())) > MAX_IDS:
        raise ConfigurationError(f"ids must be a list of at most {MAX_IDS:,} run ids; use a filter for more")
    known = {field.encode_name for field in msgspec.structs.fields(Selection)}
    unknown = sorted(fields.keys() - known)
    if unknown:
        raise ConfigurationError(
            f"{unknown[0][:40]!r} is nothing to choose runs by; there are {', '.join(sorted(known))}"
        )
    try:
        found = msgspec.convert(fields, Selection)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"the filter: {error}") from error
    for run_id in found.ids:
        _check_id(run_id)
    if found.expression is not None:
        compile_expression(found.expression)
    if not found.all and not any(value for key, value in fields.items() if key != "all"):
        raise ConfigurationError('the filter matches every run: narrow it, or say {"all": true} when that is meant')
    return _for(action, found)


def _for(action: str, where: Selection) -> Selection:
    """The runs of a selection that an action is possible with at all."""
    if action in {"redrive", "discard"}:
        # of what has named runs, each is told why it can't be done
        return replace(where, dead=not where.ids)
    possible = ACTIVE if action == "cancel" else ENDED
    if where.ids:
        return where
    status = tuple(name for name in where.status or possible if name in possible)
    if not status:
        raise ConfigurationError(
            f"no run can be {'cancelled' if action == 'cancel' else 'rerun'} that is {' or '.join(where.status)}; "
            f"only those that are {', '.join(possible)}"
        )
    return replace(where, status=status)


def _statuses(given: Any) -> tuple[str, ...]:
    words = given.split(",") if isinstance(given, str) else given
    names: list[str] = []
    for word in words:
        name = str(word).strip().upper()
        if name == "ACTIVE":
            names += ACTIVE
        elif name in _STATUSES:
            names.append(name)
        elif name:
            raise ConfigurationError(f"status {str(word)[:40]!r} is not known; it is one of {', '.join(_STATUSES)}")
    return tuple(dict.fromkeys(names))


def _check_id(run_id: str) -> None:
    try:
        ulid_bytes(run_id)
    except ValueError:
        raise ConfigurationError(f"{run_id[:40]!r} is not the id of a run") from None
