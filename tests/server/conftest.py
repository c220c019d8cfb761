"""Fixtures of the server's tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from server_kit import Start, running


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts a server: `async with start(**settings) as server`."""

    def starting(headers: dict[str, str] | None = None, **settings: Any):
        return running(tmp_path / "test.db", headers, **settings)

    return starting
