"""What all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SLOW = tuple(
    TESTS / part
    for part in ("cli", "compat", "dashboard/test_pages.py", "docs", "examples", "faults", "server/test_raw_sockets.py", "typing")
)
"""Tests that start processes, type-checkers or many servers: left out of `make test-fast`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(item.path.is_relative_to(part) for part in SLOW):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
