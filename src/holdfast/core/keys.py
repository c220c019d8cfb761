"""Keys of flow control: what a rule's expression, or a function of the event, says about an event. Pure."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from holdfast.base.errors import ConfigurationError
from holdfast.core.expressions import Expression, compile_expression

_log = logging.getLogger("holdfast")
_LONGEST = 120

PYTHON_PREFIX = "python:"
"""Begins the source of a key that is a function, in registration documents: `python:module.name`."""


class Subject(Protocol):
    """An event that rules ask about, decoded at most once each way."""

    @property
    def cel(self) -> dict[str, Any]:
        """As expressions see it: `{name, data, id, ts}`."""
        ...

    @property
    def model(self) -> Any:
        """Its data as its typed model, or as plain JSON where it has none."""
        ...


class Key:
    """A rule's key or condition, compiled.

    Args:
        source: The expression, or for a function its name, as registration documents have it.
        fn: The function of the event's data, in the process that declares it.

    Raises:
        ConfigurationError: the expression isn't valid.
    """

    __slots__ = ("_expression", "_fn", "source")

    def __init__(self, source: str, fn: Callable[[Any], Any] | None = None) -> None:
        self.source = source
        self._fn = fn
        self._expression: Expression | None = None
        if fn is None and not source.startswith(PYTHON_PREFIX):
            self._expression = compile_expression(source)

    def value(self, subject: Subject) -> Any:
        """What it gives for an event. None where it can't be worked out: such events share one key."""
        try:
            if self._fn is not None:
                return self._fn(subject.model)
            if self._expression is not None:
                return self._expression.evaluate(event=subject.cel)
        except Exception as error:
            _log.warning("key %s could not be worked out: %s: %s", self.source, type(error).__name__, error)
        return None

    def text(self, subject: Subject) -> str | None:
        """Its value as a key; None when the value is `false`, which turns a rule off for an event (protocol section 3)."""
        value = self.value(subject)
        return None if value is False else key_text(value)

    def integer(self, subject: Subject) -> int:
        """Its value as a whole number; 0 where it is none (protocol section 3, priority)."""
        value = self.value(subject)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return 0
        return int(value)

    def holds(self, subject: Subject) -> bool:
        """Whether its value is true."""
        return self.value(subject) is True


def key_text(value: Any) -> str:
    """A key value as text: strings as they are, everything else as JSON; what is very long is cut and hashed."""
    if isinstance(value, str):
        text = value
    else:
        try:
            text = msgspec.json.encode(value, order="sorted").decode()
        except (TypeError, ValueError):
            text = str(value)
    if len(text) > _LONGEST or not text.isprintable():
        digest = hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]
        text = "".join(char for char in text[: _LONGEST - 20] if char.isprintable()) + "~" + digest
    return text


def function_source(fn: Callable[..., Any]) -> str:
    """How a function is named in place of an expression."""
    name = f"{getattr(fn, '__module__', '?')}.{getattr(fn, '__qualname__', repr(fn))}"
    if not callable(fn):
        raise ConfigurationError(f"{fn!r} is neither an expression nor a function of the event")
    return PYTHON_PREFIX + name
