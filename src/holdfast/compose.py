"""Putting the parts together: an engine over a store, in this process; or a way to one elsewhere."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, Literal, cast

from holdfast.base.clock import Clock, SystemClock, monotonic
from holdfast.base.errors import ConfigurationError, StoreError
from holdfast.engine.engine import Engine, EngineOptions
from holdfast.engine.outboxes import RemoteDelivery
from holdfast.engine.relays import Relays
from holdfast.neighbours.address import socket_path
from holdfast.neighbours.follower import Follower
from holdfast.neighbours.reception import Reception
from holdfast.neighbours.visitor import Visitor
from holdfast.sdk.app import App
from holdfast.sdk.databases import Database, as_database
from holdfast.sdk.http_sender import HttpSender
from holdfast.sdk.sender import Control, Sender
from holdfast.server.serve import bind, serving
from holdfast.server.settings import ServerSettings
from holdfast.store.sqlite import SqliteStore
from holdfast.store.sqlite.connection import StoreHeldError, database_path
from holdfast.store.sqlite.reader import SqliteReader
from holdfast.store.urls import is_postgres

DEFAULT_STORE = "sqlite:///.holdfast/holdfast.db"
_PORT_SECONDS, _PORT_STEP = 10.0, 0.1
"""How long a new owner waits for the port that its predecessor may still have."""
_log = logging.getLogger("holdfast")


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
        **store_settings: Passed to the store, where it is on SQLite.

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

    Of several processes that run the same apps on one SQLite file, the first has the engine; the others work through it,
    and one of them takes over when it ends.

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
    url = store or os.environ.get("HOLDFAST_STORE") or DEFAULT_STORE
    settings = None if serve is None else ServerSettings.at(serve, mode=mode)
    if settings is not None and mode == "start":
        options = replace(options or EngineOptions(), private_networks=settings.private_networks)
    every = [app, *apps]
    wanted = [as_database(given) for given in databases]
    path = None if is_postgres(url) else database_path(url)

    def build() -> Engine:
        engine = build_engine(every, url, options=options, clock=clock, databases=wanted, shared=True)
        if settings is not None:
            settings.sign_calls(engine.driver)
        return engine

    @asynccontextmanager
    async def own() -> AsyncIterator[Control]:
        async with _running(build(), settings, patient=True) as engine:
            yield cast("Control", engine)

    engine = _first(build)
    if engine is None and path is not None:
        async with Follower(every, socket_path(path), own):
            yield app
    elif engine is not None:
        async with _running(engine, settings):
            yield app


def _first(build: Callable[[], Engine]) -> Engine | None:
    """The engine, unless another process has the store and lets others work through it."""
    try:
        return build()
    except StoreHeldError as held:
        if not held.shared:
            raise
        return None


@asynccontextmanager
async def _running(
    engine: Engine, settings: ServerSettings | None, *, patient: bool = False
) -> AsyncIterator[Engine]:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(received(engine))
        if settings is not None and (sock := await _port(settings, patient=patient)) is not None:
            await stack.enter_async_context(serving(engine, settings, sockets=[sock]))
        yield engine


async def _port(settings: ServerSettings, *, patient: bool) -> socket.socket | None:
    """Listen. A process that has taken over from another waits for its port, and works on without if it can't have it."""
    until = monotonic() + _PORT_SECONDS
    while True:
        try:
            return bind(settings.host, settings.port)
        except ConfigurationError as error:
            if not patient:
                raise
            if monotonic() > until:
                _log.error("the dashboard and the event API are not served, runs go on: %s", error)
                return None
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), _PORT_STEP)


@asynccontextmanager
async def received(engine: Engine, *, server: bool = False) -> AsyncIterator[Engine]:
    """Run an engine. On an SQLite file that it shares, other processes of its apps can work through it meanwhile.

    Args:
        engine: Built with `shared=True` to be worked through.
        server: Whether this is a server process, which comes back to its file when it is restarted.
    """
    if not isinstance(engine.store, SqliteStore) or not engine.store.offered:
        async with engine:
            yield engine
        return

    def ready() -> bool:
        return engine.running and not engine.draining

    reception = Reception(cast("Control", engine), socket_path(engine.store.path), list(engine.apps), ready, server=server)
    try:
        async with engine:
            try:
                await reception.open()
            except StoreError as error:
                _log.warning("this process works alone: %s", error)
            try:
                yield engine
            finally:
                reception.shut()
    finally:
        await reception.disconnect()  # once the file is given up, so that whoever takes this for the word finds it free


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
    """A sender to the server that `INNGEST_DEV` or `INNGEST_BASE_URL` names, else to the process that has the store open.

    None where neither variable is set, and no process of an application listens beside the store: that of `HOLDFAST_STORE`,
    or `.holdfast/holdfast.db`.
    """
    dev = os.environ.get("INNGEST_DEV", "")
    base = os.environ.get("INNGEST_EVENT_API_BASE_URL") or os.environ.get("INNGEST_BASE_URL")
    if not base and dev and dev.lower() not in {"0", "false"}:
        base = dev if dev.startswith("http") else "http://127.0.0.1:8288"
    if not base:
        return _visitor()
    event_key = os.environ.get("INNGEST_EVENT_KEY") or "NO_EVENT_KEY_SET"
    return HttpSender(base, event_key, os.environ.get("INNGEST_SIGNING_KEY"))


def _visitor() -> Visitor | None:
    url = os.environ.get("HOLDFAST_STORE") or DEFAULT_STORE
    path = None if is_postgres(url) else database_path(url)
    if path is None or not socket_path(path).is_socket():
        return None
    return Visitor(socket_path(path))
