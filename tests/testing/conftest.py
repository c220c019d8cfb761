"""Harnesses on each store: by default only the proof of durability runs on both, with `--store` everything on the given one."""

from __future__ import annotations

import itertools

import pytest

from holdfast.testing.async_harness import AsyncHarness

ON_EVERY_STORE = {"test_durability"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    only = metafunc.config.getoption("--store")
    if only is not None:
        metafunc.parametrize("harness_store", [only], indirect=True)
    elif metafunc.module.__name__ in ON_EVERY_STORE:
        metafunc.parametrize("harness_store", ["sqlite", "postgres"], indirect=True)


@pytest.fixture(autouse=True)
def harness_store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the harnesses of a test keep their state."""
    kind = getattr(request, "param", "sqlite")
    if kind == "postgres":
        url = request.getfixturevalue("postgres_url")
        count = itertools.count(1)
        monkeypatch.setattr(AsyncHarness, "new_store", staticmethod(lambda directory: f"{url}_{next(count)}"))
    return kind
