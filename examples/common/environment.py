"""Reading environment variables: every problem is collected, so that one start names all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

C = TypeVar("C", bound=str)


class SettingsError(Exception):
    """The environment is not usable; the message lists everything that is wrong with it."""


class Reader:
    """Environment variables, with every problem collected instead of the first one raised."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.problems: list[str] = []

    def optional(self, name: str) -> str | None:
        """A variable's text; None when it is missing or blank."""
        return self._environ.get(name, "").strip() or None

    def text(self, name: str, default: str) -> str:
        """A variable's text, or the default."""
        return self.optional(name) or default

    def number(self, name: str, default: float) -> float:
        """A number above 0."""
        text = self.optional(name)
        try:
            value = default if text is None else float(text)
        except ValueError:
            value = 0
        if not 0 < value < 1e9:
            self.problems.append(f"{name} must be a number above 0, not {text!r}")
            return default
        return value

    def flag(self, name: str, default: bool) -> bool:
        """`true` or `false`."""
        text = self.optional(name)
        if text is None:
            return default
        if text.lower() not in {"true", "false"}:
            self.problems.append(f"{name} must be true or false, not {text!r}")
            return default
        return text.lower() == "true"

    def choice(self, name: str, default: C, choices: tuple[C, ...]) -> C:
        """One of several words."""
        text = self.optional(name)
        if text is not None and text not in choices:
            self.problems.append(f"{name} must be {' or '.join(choices)}, not {text!r}")
        return next((choice for choice in choices if choice == text), default)

    def address(self, name: str, default: str | None) -> str | None:
        """`host:port`, or None for `off`."""
        text = self.optional(name) or default
        if text == "off" or text is None:
            return None
        host, _, port = text.rpartition(":")
        if not host or not port.isdecimal():
            self.problems.append(f"{name} must be host:port, or off, not {text!r}")
            return default
        return text

    def url(self, name: str, default: str) -> str:
        """The address of a web service, without a slash at its end."""
        text = self.text(name, default)
        if not text.startswith(("http://", "https://")):
            self.problems.append(f"{name} must begin with http:// or https://, not {text!r}")
            return default
        return text.rstrip("/")

    def missing(self, required: Mapping[str, str]) -> list[str]:
        """A problem for each variable that production requires and that is not set; values say what to do."""
        return [
            f"{name} is required in production: {remedy}"
            for name, remedy in required.items()
            if self.optional(name) is None
        ]


def refuse(what: str, problems: list[str]) -> None:
    """Say what is wrong with the environment, if anything is.

    Raises:
        SettingsError: there are problems; all of them are in the message.
    """
    if problems:
        raise SettingsError(f"{what} can't start:\n" + "\n".join(f"  - {problem}" for problem in problems))


KEYS = {
    "INNGEST_EVENT_KEY": "make one with `holdfast keys new`",
    "INNGEST_SIGNING_KEY": "make one with `holdfast keys new`",
}
"""What every application needs in production."""
