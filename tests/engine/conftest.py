"""A real engine over a real database, and what it left behind read from outside. Every test runs on each store."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from holdfast import App
from holdfast.base.clock import Clock
from holdfast.compose import build_engine
from holdfast.engine.engine import Engine, EngineOptions
from holdfast.store.postgres.connection import connect, parse_url

MakeEngine = Callable[..., AbstractAsyncContextManager[Engine]]
ON_SQLITE_ONLY = {"test_random_programs"}
"""Modules about the engine alone, whose hundreds of programs would only be slower elsewhere."""
WITH_HARNESSES = {"test_flow_control"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "store_kind" in metafunc.fixturenames:
        only = metafunc.config.getoption("--store")
        kinds = ["sqlite", "postgres"] if only is None else [only]
        if "database" in metafunc.fixturenames or (only is None and metafunc.module.__name__ in ON_SQLITE_ONLY):
            kinds = ["sqlite"]
        metafunc.parametrize("store_kind", kinds, indirect=True)
    elif metafunc.module.__name__ in WITH_HARNESSES:
        only = metafunc.config.getoption("--store")
        metafunc.parametrize("harness_store", ["sqlite", "postgres"] if only is None else [only], indirect=True)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """The file of a test that is about a file: it runs on SQLite only."""
    return tmp_path / "engine.db"


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
    def make(*apps: App, clock: Clock | None = None, **options: Any) -> AbstractAsyncContextManager[Engine]:
        return build_engine(apps, store_url, clock=clock, options=EngineOptions(**options))

    return make


def ask_postgres(store_url: str, sql: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    settings = parse_url(store_url)
    with connect(settings, "test") as conn:
        conn.execute("SELECT set_config('search_path', %s, false)", [settings.schema])
        sql = re.sub(r"CAST\((\w+) AS TEXT\)", r"convert_from(\1, 'UTF8')", sql)
        sql = re.sub(r"hex\((\w+)\)", r"encode(\1, 'hex')", sql)
        return conn.execute(sql.replace("%", "%%").replace("?", "%s"), parameters).fetchall()


@pytest.fixture
def query(store_url: str) -> Callable[..., list[tuple[Any, ...]]]:
    """Read the database with plain SQL on a connection of its own."""

    def run(sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        if store_url.startswith("postgres"):
            return ask_postgres(store_url, sql, parameters)
        conn = sqlite3.connect(store_url.removeprefix("sqlite:///"))
        try:
            return conn.execute(sql, parameters).fetchall()
        finally:
            conn.close()

    return run


@pytest.fixture
def query_of() -> Callable[..., list[tuple[Any, ...]]]:
    """Read a harness's database with plain SQL."""

    def ask(harness: Any, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        store = harness.engine.store
        if harness._store.startswith("postgres"):
            return ask_postgres(harness._store, sql, parameters)
        return store._committed.execute(sql, parameters).fetchall()

    return ask
