"""Fixtures of the dashboard's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dashboard_kit import Shop, shop


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """One server for the tests of a module."""
    with shop(tmp_path_factory.mktemp("store") / "shop.db") as server:
        yield server
