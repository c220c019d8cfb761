"""`match=`: a field that must be the same in the triggering event and in one that comes, by the names of their classes."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.base.errors import ConfigurationError
from holdfast.core.matching import same_field_condition
from holdfast.sdk.events import Event, wire_path
from holdfast.sdk.triggers import Trigger

_ENVELOPE = ("id", "name", "ts")


def match_condition(path: str, triggers: Sequence[Trigger], awaited: type[Event] | None) -> str:
    """The expression of `match="data.order_id"`: the field is there, and the same in both events.

    Args:
        path: As the user wrote it; fields of event classes by their Python name or that on the wire.
        triggers: Those of the function.
        awaited: The class of the event that comes, where it has one.

    Raises:
        ConfigurationError: the path doesn't begin with `data.`, or an event class has no such field.
    """
    try:
        return same_field_condition(_of_triggers(path, triggers), _of_model(path, awaited))
    except ConfigurationError as error:
        raise ConfigurationError(f"match={path!r}: {error}") from error


def _of_model(path: str, model: type[Event] | None) -> str:
    if path in _ENVELOPE:
        return path
    root, _, field = path.partition(".")
    if root != "data" or not field:
        raise ConfigurationError(f"a path of an event begins with 'data.'; write 'data.{path}'")
    return path if model is None else f"data.{wire_path(model, field)}"


def _of_triggers(path: str, triggers: Sequence[Trigger]) -> str:
    of_events = [trigger for trigger in triggers if trigger.event is not None]
    found: dict[str, None] = {}
    problem: ConfigurationError | None = None
    for trigger in of_events:
        try:
            found[_of_model(path, trigger.model)] = None
        except ConfigurationError as error:
            problem = problem or error  # one of several triggers may be without the field: its runs match nothing
    if len(found) > 1:
        raise ConfigurationError(
            f"the triggers call this field differently on the wire ({', '.join(found)}); write the condition as if_="
        )
    if problem is not None and not found:
        raise problem
    return next(iter(found), path)
