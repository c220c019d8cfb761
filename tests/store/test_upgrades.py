"""Versions that meet on one database: what newer nodes add, older ones work with; what older ones can't bear waits for their end."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
import threading
from collections.abc import Callable
from typing import Any

import pytest

from holdfast import App, Context, Event, RunHandle, StoreError, StoreVersionError
from holdfast.base.clock import SystemClock, monotonic
from holdfast.base.errors import StoreBusyError
from holdfast.base.findings import Level
from holdfast.cli.postgres_checks import postgres_store
from holdfast.compose import build_engine
from holdfast.core.rows import KEYS
from holdfast.engine.engine import EngineOptions
from holdfast.store.migrate import Migration, migrate_sqlite, migrations
from holdfast.store.postgres import PostgresStore, migrating
from holdfast.store.postgres import store as postgres_store_module
from holdfast.store.postgres.connection import connect, parse_url
from holdfast.store.postgres.migrating import migrate_postgres
from holdfast.store.reads import RunFilter

pytestmark = pytest.mark.anyio

clock = SystemClock()
NEXT = migrations("postgres")[-1].number + 1
ADDITIVE = Migration(
    NEXT,
    "more",
    "-- phase: pre\n"
    + "".join(
        f"ALTER TABLE {cls.TABLE} ADD COLUMN more text, ADD COLUMN counted bigint NOT NULL DEFAULT 0;\n" for cls in KEYS
    )
    + "CREATE TABLE more (id bigint PRIMARY KEY);\nCREATE INDEX more_runs ON runs (ended_at);\n",
)
KEYS_IN_ORDER = [cls.TABLE for cls in KEYS]
WAITING = "SELECT bool_or(NOT granted) FROM pg_locks WHERE pid = %s"
BREAKING = Migration(NEXT, "other", "-- phase: post\nALTER TABLE runs RENAME COLUMN lane TO line;\n")


@pytest.fixture
def version(monkeypatch) -> Callable[..., None]:
    """From here on, the code is of a version with these further migrations."""

    def be(*further: Migration) -> None:
        monkeypatch.setattr(migrating, "migrations", lambda dialect: [*migrations(dialect), *further])

    return be


def bring_up_to_date(url: str) -> None:
    settings = parse_url(url)
    with connect(settings, "test") as conn:
        migrate_postgres(conn, settings, 1)


def test_every_migration_says_how_it_goes_together_with_older_code():
    for dialect in ("sqlite", "postgres"):
        known = migrations(dialect)
        assert [migration.number for migration in known] == list(range(1, len(known) + 1))
        for migration in known:
            assert re.match(r"-- phase: (pre|post)\n", migration.sql), f"{dialect} {migration.number}"
    assert [m.number for m in migrations("sqlite")] == [m.number for m in migrations("postgres")]


def test_what_only_adds_is_declared_so_and_what_takes_away_is_not():
    taking = re.compile(r"\b(DROP|RENAME|SET NOT NULL|ALTER COLUMN|TRUNCATE|DELETE|UPDATE)\b|ADD COLUMN [^,;]* NOT NULL(?! DEFAULT)")
    for migration in [*migrations("sqlite"), *migrations("postgres"), ADDITIVE]:
        assert not migration.additive or not taking.search(re.sub("ON DELETE|BEFORE (UPDATE OR DELETE|UPDATE|DELETE|TRUNCATE)", "", migration.sql)), f"{migration.number} {migration.name}"
    assert taking.search(BREAKING.sql)
    assert not BREAKING.additive


# -- a rolling upgrade -----------------------------------------------------------------------------------------------------


class Go(Event, name="upgrade/go"):
    n: int


class Came(Event, name="upgrade/came"):
    n: int


def make_app() -> App:
    app = App("upgrade")

    @app.function(Go, concurrency=5)
    async def work(ctx: Context[Go]) -> int:
        n = ctx.event.data.n
        one, two = await asyncio.gather(ctx.step.run("one", lambda: n), ctx.step.run("two", lambda: n + 1))
        await ctx.step.sleep("a bit", 0.05)
        came = await ctx.step.wait_for_event("came", Came, where={"n": n}, since="run", timeout="5m")
        return one + two + came.data.n

    return app


async def test_old_nodes_go_on_and_start_beside_new_ones_that_have_added_to_the_schema(postgres_url, version):
    options = EngineOptions(linger_ms=0)

    def node() -> tuple[App, Any]:
        app = make_app()
        return app, build_engine([app], postgres_url, options=options)

    handles: list[RunHandle] = []

    async def start(app: App, numbers: range) -> None:
        handles.extend([await app.start(app.functions["work"], Go(n=n), id=f"go-{n}") for n in numbers])

    async with contextlib.AsyncExitStack() as stack:
        old_app, old = node()
        await stack.enter_async_context(old)
        await start(old_app, range(10))
        version(ADDITIVE)
        new_app, new = node()
        await stack.enter_async_context(new)
        assert await asyncio.to_thread(added, postgres_url)
        # both go on, with statements that were prepared before the columns came, and a node of the old version starts anew
        await start(old_app, range(10, 20))
        await start(new_app, range(20, 30))
        version()
        third_app, third = node()
        await stack.enter_async_context(third)
        await start(third_app, range(30, 40))
        for n in range(40):
            await (old_app, new_app, third_app)[n % 3].send(Came(n=n))
        for n, handle in enumerate(handles):
            assert await handle.result(timeout=60) == 3 * n + 1
        runs, _ = await old.reader.runs(RunFilter(), limit=100)
        assert [run.status for run in runs] == ["COMPLETED"] * 40
        # the doctor of the old version finds nothing wrong with it
        findings = list(await asyncio.to_thread(lambda: list(postgres_store(postgres_url))))
        assert not [finding for finding in findings if finding.level is Level.WRONG]
        assert "which newer nodes have added to" in " ".join(finding.text for finding in findings)


def added(url: str) -> bool:
    settings = parse_url(url)
    with connect(settings, "test") as conn:
        return conn.execute("SELECT to_regclass(%s) IS NOT NULL", [f'"{settings.schema}".more']).fetchone() == (True,)


def test_a_migration_that_older_nodes_would_not_survive_waits_for_their_end(postgres_url, version):
    old = PostgresStore(postgres_url, clock, ("app",))
    try:
        version(BREAKING)
        with pytest.raises(StoreVersionError, match=rf"migration {NEXT} \(other\) is not for older nodes.*process \d+. Stop them all"):
            PostgresStore(postgres_url, clock, ("app",))
        version()
        PostgresStore(postgres_url, clock, ("app",))._leave()  # nothing of it was applied
    finally:
        old._leave()
    version(BREAKING)
    PostgresStore(postgres_url, clock, ("app",))._leave()
    version()
    with pytest.raises(StoreVersionError, match=rf"newer holdfast \(schema {NEXT}; this one knows {NEXT - 1}\): upgrade holdfast, or restore"):
        PostgresStore(postgres_url, clock, ("app",))
    (found,) = postgres_store(postgres_url)
    assert found.level is Level.WRONG
    # what is added to it later doesn't make it any more compatible
    version(BREAKING, Migration(NEXT + 1, "more", "-- phase: pre\nCREATE TABLE more (id bigint);\n"))
    bring_up_to_date(postgres_url)
    version()
    with pytest.raises(StoreVersionError, match="newer holdfast"):
        PostgresStore(postgres_url, clock, ("app",))


def test_an_old_node_that_comes_while_such_a_migration_is_applied_leaves_again(postgres_url, version, monkeypatch):
    bury = postgres_store_module.bury

    def meanwhile(*arguments: Any) -> None:
        # it has found the schema to be its own, and is not enrolled yet
        bury(*arguments)
        version(BREAKING)
        bring_up_to_date(postgres_url)
        version()

    monkeypatch.setattr(postgres_store_module, "bury", meanwhile)
    with pytest.raises(StoreVersionError, match="newer holdfast"):
        PostgresStore(postgres_url, clock, ("app",))
    settings = parse_url(postgres_url)
    with connect(settings, "test") as conn:
        assert migrating.alive(conn, settings.schema) == []


def test_a_table_that_somebody_holds_is_not_waited_for_with_everybody_behind(postgres_url, version, monkeypatch):
    bring_up_to_date(postgres_url)
    settings = parse_url(postgres_url)
    monkeypatch.setattr(migrating, "_LOCK_TIMEOUT", "50ms")
    monkeypatch.setattr(migrating, "_TRIES", 2)
    version(ADDITIVE)
    with connect(settings, "dump") as dump, connect(settings, "test") as conn:
        with dump.transaction():
            dump.execute(f'SELECT count(*) FROM "{settings.schema}".runs')
            with pytest.raises(StoreBusyError, match=rf"migration {NEXT} \(more\) waits for a table that somebody holds"):
                migrate_postgres(conn, settings, 1)
        migrate_postgres(conn, settings, 1)
    assert added(postgres_url)


def test_a_migration_that_ends_in_a_deadlock_with_a_node_at_work_is_tried_again(postgres_url, version, monkeypatch):
    bring_up_to_date(postgres_url)
    settings = parse_url(postgres_url)
    monkeypatch.setattr(migrating, "_LOCK_TIMEOUT", "60s")
    version(ADDITIVE)
    first, last = KEYS_IN_ORDER[0], KEYS_IN_ORDER[-1]
    with connect(settings, "node") as node, connect(settings, "watch") as watch, connect(settings, "test") as conn:
        conn.execute("SET deadlock_timeout = '100ms'")  # it is this one that is ended
        node.execute("SET deadlock_timeout = '30s'")
        migration = threading.Thread(target=migrate_postgres, args=(conn, settings, 1))
        with node.transaction():
            node.execute(f'SELECT count(*) FROM "{settings.schema}".{last}')
            migration.start()
            deadline = monotonic() + 30
            while watch.execute(WAITING, [conn.info.backend_pid]).fetchone() != (True,):
                assert monotonic() < deadline
            node.execute(f'SELECT count(*) FROM "{settings.schema}".{first}')
        migration.join(60)
    assert added(postgres_url)


# -- going back ------------------------------------------------------------------------------------------------------------


def test_a_file_of_a_newer_version_is_refused_with_what_to_do(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as conn:
        migrate_sqlite(conn, 1, "a.db")
        conn.execute("INSERT INTO migrations VALUES (999, 'future', 'x', 0)")
        with pytest.raises(StoreVersionError, match=r"a.db was written by a newer holdfast \(schema 999.*upgrade holdfast, or restore the backup"):
            migrate_sqlite(conn, 1, "a.db")


def test_a_migration_without_a_phase_is_taken_for_one_that_breaks(tmp_path):
    assert not Migration(1, "x", "CREATE TABLE x (id bigint);").additive
    assert issubclass(StoreVersionError, StoreError)
