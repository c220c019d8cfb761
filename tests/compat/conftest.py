"""Applications on the official SDKs, and a holdfast of its own process that calls them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]
for part in ("cli", "serve", "compat"):
    if str(TESTS / part) not in sys.path:
        sys.path.append(str(TESTS / part))

from live_server import Server, start_server  # noqa: E402

StartServer = Callable[..., Server]


@pytest.fixture(scope="session")
def start_holdfast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Start `holdfast`; it is stopped with the session, if it hasn't been before."""
    started: list[Server] = []

    def start(*args: str, port: int, **options: Any) -> Server:
        directory = options.pop("directory", None) or tmp_path_factory.mktemp("holdfast")
        started.append(start_server(directory, *args, port=port, **options))
        return started[-1]

    yield start
    for server in started:
        server.stop()
