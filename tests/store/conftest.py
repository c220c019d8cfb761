"""The reader's tests on both stores: each runs twice, but those marked `sqlite`, which are about its files and plans."""

from __future__ import annotations

import pytest
import reader_rows

READER_TESTS = {"test_reader_detail", "test_reader_figures", "test_reader_runs"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__ in READER_TESTS and metafunc.definition.get_closest_marker("sqlite") is None:
        metafunc.parametrize("dialect", ["sqlite", "postgres"], indirect=True)


@pytest.fixture(autouse=True)
def dialect(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where `reader_rows.shelf` puts its rows."""
    chosen = getattr(request, "param", "sqlite")
    if chosen == "postgres":
        monkeypatch.setattr(reader_rows, "POSTGRES_URL", request.getfixturevalue("postgres_url"))
    return chosen
