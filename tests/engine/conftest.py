"""A real engine over a real database file, and what it left behind read from outside."""

from __future__ import annotations

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

MakeEngine = Callable[..., AbstractAsyncContextManager[Engine]]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "engine.db"


@pytest.fixture
def engine_for(database: Path) -> MakeEngine:
    def make(*apps: App, clock: Clock | None = None, **options: Any) -> AbstractAsyncContextManager[Engine]:
        return build_engine(apps, f"sqlite:///{database}", clock=clock, options=EngineOptions(**options))

    return make


@pytest.fixture
def query(database: Path) -> Callable[..., list[tuple[Any, ...]]]:
    """Read the database with plain SQL on a connection of its own."""

    def run(sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        conn = sqlite3.connect(database)
        try:
            return conn.execute(sql, parameters).fetchall()
        finally:
            conn.close()

    return run


@pytest.fixture
def query_of():
    """Ask the database of a harness."""

    def ask(harness, sql: str, *parameters):
        return harness.engine.store._committed.execute(sql, parameters).fetchall()

    return ask
