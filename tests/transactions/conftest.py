"""An application's own database, and holdfast on each of its stores beside it."""

from __future__ import annotations

import itertools
from pathlib import Path

import psycopg
import pytest
from callers import make_orders

from holdfast.testing.async_harness import AsyncHarness

_databases = itertools.count(1)


@pytest.fixture(autouse=True)
def django_on_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of every kind of connection use Django's like the others; that it is used from threads has a test of its own."""
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")


@pytest.fixture
def new_database(postgres_server: str):
    """Makes PostgreSQL databases; the URL of each."""

    def make() -> str:
        name = f"shop_{next(_databases)}"
        with psycopg.connect(postgres_server, autocommit=True) as conn:
            conn.execute(f"CREATE DATABASE {name}".encode())
        return postgres_server.replace("/postgres?", f"/{name}?")

    return make


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The application's database, which has a table `orders`; `holdfast` says where the harness keeps its state.

    The parameter is `<database> with <store>`; `same` is the very database that has holdfast's schema.
    """
    shop, _, store = request.param.partition(" with ")
    url = f"sqlite:///{tmp_path / 'shop.db'}" if shop == "sqlite" else request.getfixturevalue("new_database")()
    make_orders(url)
    if store != "sqlite":
        base = url if store == "same" else request.getfixturevalue("new_database")()
        monkeypatch.setattr(AsyncHarness, "new_store", staticmethod(lambda directory: base))
        monkeypatch.setitem(AsyncHarness.__init__.__kwdefaults__, "patience", 60.0)
    return url
