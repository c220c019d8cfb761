"""The reader's tests on both stores: each runs twice, but those marked `sqlite`, which are about its files and plans."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import reader_rows

READER_TESTS = {"test_reader_detail", "test_reader_figures", "test_reader_runs"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__ in READER_TESTS and metafunc.definition.get_closest_marker("sqlite") is None:
        metafunc.fixturenames.append("dialect")
        metafunc.parametrize("dialect", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
def dialect(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where `reader_rows.shelf` puts its rows."""
    if request.param == "postgres":
        monkeypatch.setattr(reader_rows, "POSTGRES_URL", request.getfixturevalue("postgres_url"))
    return request.param
