"""The keys that statuses are kept under."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from holdfast.base.errors import ConfigurationError
from holdfast.sdk.status import JobStatus

_FIELD = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class KeyTemplate:
    """A key with fields in braces: `job:v1:{event.data.clientId}:{function}`.

    Fields are `app`, `function` (its id without the app's), `run_id`, `event.name`, and `event.data` followed by the path to
    a text, number or boolean in the event's data. Double braces stand for a brace.

    Raises:
        ConfigurationError: there is another field in it, or a brace that opens none.
    """

    text: str

    def __post_init__(self) -> None:
        plain = self.text.replace("{{", "").replace("}}", "")
        for name in _FIELD.findall(plain):
            if name not in {"app", "function", "run_id", "event.name"} and not name.startswith("event.data."):
                raise ConfigurationError(
                    f"status key {self.text!r}: {{{name}}} is not a field; there are {{app}}, {{function}}, {{run_id}}, "
                    "{event.name} and {event.data.<path>}"
                )
        rest = _FIELD.sub("", plain)
        if not self.text or "{" in rest or "}" in rest:
            raise ConfigurationError(
                f"status key {self.text!r}: write {{{{ or }}}} for a brace that is part of the key"
            )

    def key(self, status: JobStatus) -> str | None:
        """The key of a status; None when its event lacks a field, so that it has no place."""
        parts = []
        for piece in re.split(r"(\{\{|\}\}|\{[^{}]*\})", self.text):
            if piece in {"{{", "}}"}:
                parts.append(piece[0])
            elif piece.startswith("{"):
                value = _value(status, piece[1:-1])
                if value is None:
                    return None
                parts.append(value)
            else:
                parts.append(piece)
        return "".join(parts)


def _value(status: JobStatus, name: str) -> str | None:
    if name == "event.name":
        return status.event_name
    if not name.startswith("event.data."):
        return str(getattr(status, name))
    found: Any = status.event_data
    for step in name.removeprefix("event.data.").split("."):
        found = found.get(step) if isinstance(found, dict) else None
    if isinstance(found, bool):
        return "true" if found else "false"
    return str(found) if isinstance(found, str | int | float) and found != "" else None
