"""The tests of reading and of retention on both stores: each runs twice, but those marked `sqlite`, which are about its files and plans."""

from __future__ import annotations

import pytest
import reader_rows

ON_BOTH = {"test_reader_detail", "test_reader_figures", "test_reader_flow", "test_reader_runs", "test_retention"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__ in ON_BOTH and metafunc.definition.get_closest_marker("sqlite") is None:
        metafunc.parametrize("dialect", ["sqlite", "postgres"], indirect=True)


@pytest.fixture(autouse=True)
def dialect(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where `reader_rows.shelf` puts its rows."""
    chosen = getattr(request, "param", "sqlite")
    if chosen == "postgres":
        monkeypatch.setattr(reader_rows, "POSTGRES_URL", request.getfixturevalue("postgres_url"))
    return chosen
