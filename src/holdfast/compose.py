"""Putting the parts together: an engine over a store, in this process; or a way to one elsewhere."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any, Literal

from holdfast.base.clock import Clock, SystemClock
from holdfast.base.errors import ConfigurationError
from holdfast.engine.engine import Engine, EngineOptions
from holdfast.engine.outboxes import RemoteDelivery
from holdfast.engine.relays import Relays
from holdfast.sdk.app import App
from holdfast.sdk.databases import Database, as_database
from holdfast.sdk.http_sender import HttpSender
from holdfast.sdk.sender import Sender
from holdfast.server.serve import serving
from holdfast.server.settings import ServerSettings
from holdfast.store.sqlite import SqliteStore
from holdfast.store.sqlite.reader import SqliteReader
from holdfast.store.urls import is_postgres

DEFAULT_STORE = "sqlite:///.holdfast/holdfast.db"


def build_engine(
    apps: Sequence[App],
    store_url: str | None = None,
    *,
    clock: Clock | None = None,
    options: EngineOptions | None = None,
    app_errors: Sequence[str] = (),
    databases: Sequence[Database] = (),
    **store_settings: Any,
) -> Engine:
    """Assemble an engine over a store; `async with` boots and stops it.

    Args:
        apps: The apps whose functions it executes.
        store_url: Default: the environment's `HOLDFAST_STORE`, else `.holdfast/holdfast.db`.
        clock: The wall clock unless given; on PostgreSQL, the database's.
        options: How it behaves.
        app_errors: Why apps could not be loaded, to be shown on the dashboard.
        databases: The application's own, beside those its apps name.
        **store_settings: Passed to the store.

    Raises:
        StoreError: the database can't be opened, belongs to somebody else, or is newer than this holdfast.
        ConfigurationError: the URL is not understood.
    """
    url = store_url or os.environ.get("HOLDFAST_STORE") or DEFAULT_STORE
    ids = tuple(app.id for app in apps)
    if is_postgres(url):
        return _on_postgres(apps, url, ids, clock, options, app_errors, databases)
    clock = clock or SystemClock()
    store = SqliteStore(url, clock, ids, **store_settings)
    reader = SqliteReader(store.path, clock, leased=store.leased)
    return Engine(apps, store, reader, clock=clock, options=options, app_errors=app_errors, databases=databases)


def _on_postgres(
    apps: Sequence[App],
    url: str,
    ids: tuple[str, ...],
    clock: Clock | None,
    options: EngineOptions | None,
    app_errors: Sequence[str],
    databases: Sequence[Database],
) -> Engine:
    if find_spec("psycopg") is None:
        raise ConfigurationError(
            "the store is on PostgreSQL, and psycopg is not installed: pip install 'holdfast[postgres]'"
        )
    from holdfast.store.postgres import PostgresStore
    from holdfast.store.postgres.reader import PostgresReader

    # without a clock of the caller's, all nodes go by the database's
    store = PostgresStore(url, clock, ids)
    reader = PostgresReader(url, store.clock)
    return Engine(
        apps, store, reader, clock=store.clock, options=options, app_errors=app_errors, databases=databases
    )


@asynccontextmanager
async def embedded(
    app: App,
    *,
    store: str | None = None,
    serve: str | None = None,
    mode: Literal["dev", "start"] = "dev",
    options: EngineOptions | None = None,
    clock: Clock | None = None,
    apps: Sequence[App] = (),
    databases: Sequence[Database | str] = (),
) -> AsyncIterator[App]:
    """Run an app in this process; see `App.running`.

    Args:
        app: The app.
        store: Where its state is.
        serve: `host:port` to serve the event API and the dashboard on, in this process as well.
        mode: How it is served: `dev` asks for no keys on loopback; `start`, production, requires them (see `ServerSettings`).
        options: How the engine behaves.
        clock: The wall clock unless given.
        apps: Further apps to run beside it, in the same store.
        databases: The application's own databases, in whose transactions it sends, beside those the apps name.
    """
    settings = None if serve is None else ServerSettings.at(serve, mode=mode)
    engine = build_engine(
        [app, *apps], store, options=options, clock=clock, databases=[as_database(given) for given in databases]
    )
    async with engine:
        if settings is None:
            yield app
        else:
            async with serving(engine, settings):
                yield app


@asynccontextmanager
async def relaying(app: App, databases: Sequence[Database | str] = ()) -> AsyncIterator[App]:
    """Bring the events of an app's databases to where the app sends; see `App.relaying`."""
    every_ms = EngineOptions().relay_every_ms
    wanted = [*app.databases, *(as_database(given) for given in databases)]
    relays = Relays(SystemClock(), wanted, RemoteDelivery(app), every_ms)
    await relays.start([app])
    try:
        yield app
    finally:
        await relays.stop([app])


def sender_from_environment() -> Sender | None:
    """A sender to the server that `INNGEST_DEV` or `INNGEST_BASE_URL` names, or None where neither is set."""
    dev = os.environ.get("INNGEST_DEV", "")
    base = os.environ.get("INNGEST_EVENT_API_BASE_URL") or os.environ.get("INNGEST_BASE_URL")
    if not base and dev and dev.lower() not in {"0", "false"}:
        base = dev if dev.startswith("http") else "http://127.0.0.1:8288"
    if not base:
        return None
    event_key = os.environ.get("INNGEST_EVENT_KEY") or "NO_EVENT_KEY_SET"
    return HttpSender(base, event_key, os.environ.get("INNGEST_SIGNING_KEY"))
