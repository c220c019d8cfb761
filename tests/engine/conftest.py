"""A real engine over a real database, and what it left behind read from outside. Every test runs on each store."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from holdfast import App
from holdfast.compose import build_engine
from holdfast.engine.engine import Engine, EngineOptions
from holdfast.store.postgres.connection import connect, parse_url

MakeEngine = Callable[..., AbstractAsyncContextManager[Engine]]
ON_SQLITE_ONLY = {"test_random_programs"}
"""Modules about the engine alone, whose hundreds of programs would only be slower elsewhere."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "store_kind" in metafunc.fixturenames:
        only = metafunc.config.getoption("--store")
        kinds = ["sqlite", "postgres"] if only is None else [only]
        if only is None and metafunc.module.__name__ in ON_SQLITE_ONLY:
            kinds = ["sqlite"]
        metafunc.parametrize("store_kind", kinds, indirect=True)


@pytest.fixture
def store_kind(request: pytest.FixtureRequest) -> str:
    """On which store the test runs."""
    return request.param


@pytest.fixture
def store_url(store_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of the test's own."""
    if store_kind == "sqlite":
        return f"sqlite:///{tmp_path / 'engine.db'}"
    return request.getfixturevalue("postgres_url")


@pytest.fixture
def engine_for(store_url: str) -> MakeEngine:
    def make(*apps: App, **options: Any) -> AbstractAsyncContextManager[Engine]:
        return build_engine(apps, store_url, options=EngineOptions(**options))

    return make


@pytest.fixture
def query(store_url: str) -> Callable[..., list[tuple[Any, ...]]]:
    """Read the database with plain SQL on a connection of its own."""

    def run(sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        if store_url.startswith("sqlite"):
            conn = sqlite3.connect(store_url.removeprefix("sqlite:///"))
            try:
                return conn.execute(sql, parameters).fetchall()
            finally:
                conn.close()
        settings = parse_url(store_url)
        with connect(settings, "test") as pg:
            pg.execute("SELECT set_config('search_path', %s, false)", [settings.schema])
            return pg.execute(sql.replace("%", "%%").replace("?", "%s"), parameters).fetchall()

    return run
