"""What really happened, line by line, in one file that all processes append to. Its time is the machine's own."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any


def now() -> int:
    """Microseconds of the machine's clock, whatever a process believes the time to be."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME) // 1000


class Ledger:
    """Lines of JSON. A line that was written survives the death of whoever wrote it, as the system's cache does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, what: str, **fields: Any) -> None:
        """Append one line, at once."""
        line = json.dumps({"what": what, "at": now(), "pid": os.getpid(), **fields}) + "\n"
        os.write(self._fd, line.encode())

    def lines(self) -> list[dict[str, Any]]:
        """Everything so far, in the order it was written."""
        raw = self.path.read_bytes()
        return [json.loads(line) for line in raw[: raw.rfind(b"\n") + 1].splitlines()]
