"""An append-only file of what really happened, written by step bodies and clients, read by the checker."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any


class Ledger:
    """Lines of JSON. A line that was written survives the death of whoever wrote it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None
        self._pid = 0

    def write(self, what: str, **fields: Any) -> None:
        """Append one line, on disk when this returns."""
        if self._fd is None or self._pid != os.getpid():
            self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._pid = os.getpid()
        line = json.dumps({"what": what, "at": time.time_ns() // 1_000_000, **fields}) + "\n"
        os.write(self._fd, line.encode())
        os.fsync(self._fd)

    def lines(self) -> list[dict[str, Any]]:
        """Everything so far. A torn last line is one that was not written."""
        if not self.path.exists():
            return []
        raw = self.path.read_bytes()
        return [json.loads(line) for line in raw[: raw.rfind(b"\n") + 1].splitlines()]

    def has(self, what: str, **fields: Any) -> bool:
        """Whether such a line is there."""
        if not self.path.exists():
            return False
        start = json.dumps({"what": what})[:-1].encode()
        found = (json.loads(line) for line in self.path.read_bytes().splitlines() if line.startswith(start))
        return any(fields.items() <= line.items() for line in found)
