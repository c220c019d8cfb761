"""Noticing that source files changed: by asking the file system, which works on every disk, container and editor."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

_Stamp: TypeAlias = tuple[int, int, int]


class SourceWatch:
    """The Python files of a growing set of directories, and which of them changed since one last looked."""

    def __init__(self, directories: Iterable[Path] = ()) -> None:
        self._known: dict[str, dict[str, _Stamp]] = {}
        for directory in directories:
            self._known[str(directory)] = _stamps(str(directory))

    def add(self, directories: Iterable[str], since: int) -> bool:
        """Watch more directories.

        Args:
            directories: Ones already watched are passed over.
            since: Nanoseconds since 1970. A file of a new directory that was written later counts as changed.

        Returns:
            Whether there is such a file.
        """
        late = False
        for directory in directories:
            if directory not in self._known:
                self._known[directory] = stamps = _stamps(directory)
                late = late or any(stamp[0] > since for stamp in stamps.values())
        return late

    def changed(self) -> list[str]:
        """Files that were written, made or removed since the last call."""
        out = []
        for directory, before in self._known.items():
            after = _stamps(directory)
            if after != before:
                self._known[directory] = after
                out += [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
        return sorted(out)


def _stamps(directory: str) -> dict[str, _Stamp]:
    out: dict[str, _Stamp] = {}
    try:
        entries = os.scandir(directory)
    except OSError:  # it went away; it may come back
        return out
    with entries:
        for entry in entries:
            if entry.name.endswith(".py"):
                try:
                    stat = entry.stat()
                except OSError:  # an editor replaces files by renaming
                    continue
                out[entry.path] = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
    return out
