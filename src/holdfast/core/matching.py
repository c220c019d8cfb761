"""Conditions that say no more than that a field is the same in two events: they can be looked up in an index. Pure."""

from __future__ import annotations

import re

import msgspec

from holdfast.core.expressions import field_access

_PATH = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_SAME = re.compile(
    rf"\s*(?:event\.data\.(?P<present>{_PATH})\s*!=\s*null\s*&&\s*)?"
    rf"event\.data\.(?P<left>{_PATH})\s*==\s*async\.data\.(?P<right>{_PATH})\s*"
)


class SameField(msgspec.Struct, frozen=True):
    """A field of the triggering event that must be equal to one of the event that comes."""

    left: str
    """Its data path in the triggering event."""
    right: str
    """Its data path in the event that comes."""
    present: bool = False
    """Whether it must be there: what is missing in both is equal otherwise."""


def same_field(expression: str | None) -> SameField | None:
    """What a condition compares, if it is nothing but `event.data.x == async.data.y`."""
    found = _SAME.fullmatch(expression or "")
    if found is None or found["present"] not in {None, found["left"]}:
        return None
    return SameField(found["left"], found["right"], found["present"] is not None)


def same_field_condition(left: str, right: str) -> str:
    """The condition that a path of the triggering event is there, and equal to one of the event that comes."""
    trigger = field_access("event", left)
    return f"{trigger} != null && {trigger} == {field_access('async', right)}"
