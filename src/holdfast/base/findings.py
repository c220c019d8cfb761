"""What the doctor finds: a sentence each, and how to mend what is wrong."""

from __future__ import annotations

from enum import Enum

import msgspec


class Level(Enum):
    """How much a finding matters."""

    FINE = "fine"
    NOTE = "note"
    """Works, but may not be what was meant."""
    WRONG = "wrong"
    """Must be mended; the command's exit status is 1."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    level: Level
    subject: str
    """What was looked at, in a word or two."""
    text: str
    remedy: str | None = None
    """What to do; every finding that is not fine has one."""

    @property
    def sentence(self) -> str:
        """What was found and what to do, in one line."""
        return f"{self.text}. {self.remedy}" if self.remedy else self.text


def fine(subject: str, text: str) -> Finding:
    """All is well with it."""
    return Finding(Level.FINE, subject, text)


def note(subject: str, text: str, remedy: str) -> Finding:
    """It works, but may not be what was meant."""
    return Finding(Level.NOTE, subject, text, remedy)


def wrong(subject: str, text: str, remedy: str) -> Finding:
    """It must be mended."""
    return Finding(Level.WRONG, subject, text, remedy)
