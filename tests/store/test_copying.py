"""Copying a store into another one: every row of every table, whatever the databases are, or nothing."""

from __future__ import annotations

import contextlib
import itertools
import random
import sqlite3
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from holdfast import StoreError, StoreInUseError, StoreUnreachableError, StoreVersionError
from holdfast.base.errors import StoreNotEmptyError
from holdfast.cli.stores import opened_source, opened_target
from holdfast.core.rows import KEYS
from holdfast.store import copying
from holdfast.store.copying import LEFT_OUT, copy_rows, tables_to_copy
from holdfast.store.migrate import migrate_sqlite, migrations, tables_made
from holdfast.store.postgres import PostgresStore
from holdfast.store.postgres.connection import connect, parse_url
from holdfast.store.postgres.migrating import migrate_postgres
from holdfast.store.sqlite import copying as sqlite_copying
from holdfast.store.sqlite.files import tables_of

NEWEST = migrations("sqlite")[-1].number
END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
STRANGE_TEXT = ("", "plain", "a\0b", "\x1a", "\x1a0 and \x1a1", "tab\tline\nback\\slash", "é 漢 🐙", "\\N", "NULL", "'\"")


def value_of(kind: str, rng: random.Random, number: int) -> object:
    match kind:
        case "INTEGER":
            return number if rng.random() < 0.9 else -1
        case "REAL":
            return rng.choice([0.1, 1e300, -2.5, 3.0])
        case "BLOB":
            return number.to_bytes(4, "big") + rng.randbytes(rng.randrange(20))
        case _:
            return rng.choice(STRANGE_TEXT) + str(number)


def fill(path: Path, seed: int, rows: int = 40) -> None:
    """A database with something in every column of every table; made from its schema, so that no new one is forgotten."""
    rng = random.Random(seed)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as conn:
        migrate_sqlite(conn, 1, "filled")
        conn.execute("BEGIN")
        for table in tables_of(conn):
            if table in LEFT_OUT or table == "outbox":
                continue
            columns = conn.execute(f"PRAGMA table_info({table})").fetchall()
            for number in range(1, rows + 1):
                row = [
                    None if not required and not key and rng.random() < 0.3 else value_of(kind, rng, number)
                    for _, _, kind, required, _, key in columns
                ]
                conn.execute(f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * len(row))})", row)
        conn.execute("COMMIT")


def all_rows(url: str) -> dict[str, list[Any]]:
    with opened_source(url, alone=False) as source:
        return {
            table: sorted(source.rows(table, tuple(sorted(columns))), key=repr)
            for table, columns in source.tables().items()
            if table not in LEFT_OUT
        }


def copy(source_url: str, target_url: str, **options: Any) -> None:
    with opened_source(source_url, alone=True) as source, opened_target(target_url, source.schema, **options) as target:
        copy_rows(source, target, lambda table, rows: None)


# -- the tables ------------------------------------------------------------------------------------------------------------


def test_every_table_of_both_databases_is_copied_or_left_out_for_a_reason(tmp_path, postgres_url):
    settings = parse_url(postgres_url)
    with connect(settings, "test") as conn:
        migrate_postgres(conn, settings, 1)
        in_postgres = {row[0] for row in conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", [settings.schema])}
    fill(tmp_path / "a.db", 1, rows=1)
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as conn:
        in_sqlite = set(tables_of(conn))
    copied = in_sqlite - LEFT_OUT.keys()
    assert in_postgres - LEFT_OUT.keys() == copied
    assert in_sqlite | in_postgres >= LEFT_OUT.keys()  # nothing is left out that isn't there
    assert {cls.TABLE for cls in KEYS} - LEFT_OUT.keys() <= copied
    assert {*tables_made(migrations("postgres")), "migrations"} == in_postgres
    with opened_source(f"sqlite:///{tmp_path / 'a.db'}", alone=False) as one, opened_source(postgres_url, alone=False) as other:
        assert set(tables_to_copy(one, other)) == copied


def test_a_table_or_column_that_only_one_of_them_has_is_refused(tmp_path):
    fill(tmp_path / "a.db", 1)
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as conn:
        conn.execute("CREATE TABLE mine (id INTEGER)")
        conn.execute("ALTER TABLE runs ADD COLUMN mine INTEGER")
    with pytest.raises(StoreError, match="differ in mine, runs"):
        copy(f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/b.db")
    assert not (tmp_path / "b.db").exists()


@pytest.mark.parametrize("ways", [("sqlite", "postgres", "sqlite"), ("sqlite", "postgres", "postgres", "sqlite", "sqlite")])
def test_every_value_comes_back_as_it_was(tmp_path, postgres_url, ways):
    names = itertools.count(1)
    fill(tmp_path / "0.db", 7)
    before = (tmp_path / "0.db").read_bytes()
    urls = [f"sqlite:///{tmp_path}/0.db"]
    for way in ways[1:]:
        number = next(names)
        urls.append(f"sqlite:///{tmp_path}/{number}.db" if way == "sqlite" else f"{postgres_url}_{number}")
        copy(urls[-2], urls[-1])
    assert (tmp_path / "0.db").read_bytes() == before
    expected = all_rows(urls[0])
    with opened_source(urls[0], alone=False) as source:
        position = sorted(source.tables()["queue"]).index("owner")
    expected["queue"] = sorted(((*row[:position], 0, *row[position + 1 :]) for row in expected["queue"]), key=repr)
    expected["lanes"] = []
    found = all_rows(urls[-1])
    lanes, found["lanes"] = found["lanes"], []
    assert found == expected
    assert all(blocked != 1 for blocked, *_ in lanes)
    assert len(lanes) == len(all_rows(urls[0])["lanes"])


def test_new_functions_get_numbers_that_are_free(tmp_path, postgres_url):
    fill(tmp_path / "a.db", 3)
    copy(f"sqlite:///{tmp_path}/a.db", postgres_url)
    settings = parse_url(postgres_url)
    with connect(settings, "test") as conn:
        conn.execute(f'SET search_path TO "{settings.schema}"')
        (most,) = conn.execute("SELECT max(id) FROM functions").fetchone()
        (new,) = conn.execute(
            "INSERT INTO functions (app, slug, name, version, config, created_at) VALUES ('a', 'new', 'n', 1, '{}', 0) RETURNING id"
        ).fetchone()
        assert new == most + 1
        # a lease of the old database is nobody's here: numbers of nodes begin anew
        assert conn.execute("SELECT count(*) FROM queue WHERE owner <> 0").fetchone() == (0,)


# -- what is refused -------------------------------------------------------------------------------------------------------


def test_a_source_that_is_used_is_refused_by_both(tmp_path, postgres_url):
    from holdfast.store.sqlite import SqliteStore
    from holdfast.base.clock import SystemClock

    url = f"sqlite:///{tmp_path}/live.db"
    live = SqliteStore(url, SystemClock(), ("app",))
    with pytest.raises(StoreInUseError, match=r"live.db is being used by process \d+: stop it first"):
        copy(url, postgres_url)
    live._ownership.release()
    node = PostgresStore(postgres_url, SystemClock(), ("app",))
    try:
        with pytest.raises(StoreInUseError, match=r"is being used by .* process \d+: stop them first"):
            copy(postgres_url, f"sqlite:///{tmp_path}/b.db")
        with pytest.raises(StoreInUseError, match="they would go on with what is gone"):
            copy(url, postgres_url, overwrite=True)
    finally:
        node._leave()
    assert not (tmp_path / "b.db").exists()


def test_no_engine_comes_to_a_source_while_it_is_copied(tmp_path, postgres_url):
    from holdfast.base.clock import SystemClock
    from holdfast.store.sqlite import SqliteStore

    fill(tmp_path / "a.db", 3)
    with opened_source(f"sqlite:///{tmp_path}/a.db", alone=True), pytest.raises(StoreInUseError, match="being copied"):
        SqliteStore(f"sqlite:///{tmp_path}/a.db", SystemClock(), ("app",))
    copy(f"sqlite:///{tmp_path}/a.db", postgres_url)
    settings = parse_url(postgres_url)
    with opened_source(postgres_url, alone=True), connect(settings, "test") as conn:
        conn.execute("SET lock_timeout = '100ms'")
        with pytest.raises(Exception, match="lock timeout"):
            conn.execute(f'INSERT INTO "{settings.schema}".nodes (name) VALUES (%s)', ["a node that starts"])


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_target_with_something_in_it_is_refused_and_stays_as_it_is(tmp_path, postgres_url, kind):
    source = f"sqlite:///{tmp_path}/a.db"
    target = f"sqlite:///{tmp_path}/b.db" if kind == "sqlite" else postgres_url
    fill(tmp_path / "a.db", 3)
    copy(source, target)
    before = all_rows(target)
    with pytest.raises(StoreNotEmptyError, match=r"is not empty: there is something in \w+"):
        copy(source, target)
    assert all_rows(target) == before


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_target_where_nothing_has_happened_is_empty_and_tables_of_others_stay(tmp_path, postgres_url, kind):
    fill(tmp_path / "a.db", 3)
    if kind == "postgres":
        target, settings = postgres_url, parse_url(postgres_url)
        with connect(settings, "test") as conn:
            migrate_postgres(conn, settings, 1)
            conn.execute(f'CREATE TABLE "{settings.schema}".users_own (id bigint)')
        with pytest.raises(StoreError, match="differ in users_own"):
            copy(f"sqlite:///{tmp_path}/a.db", target)
        with connect(settings, "test") as conn:
            conn.execute(f'DROP TABLE "{settings.schema}".users_own')
    else:
        target = f"sqlite:///{tmp_path}/b.db"
        with contextlib.closing(sqlite3.connect(tmp_path / "b.db", isolation_level=None)) as conn:
            migrate_sqlite(conn, 1, "b")
    copy(f"sqlite:///{tmp_path}/a.db", target)
    assert len(all_rows(target)["runs"]) == 40


def newer(url: str) -> None:
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as conn:
            migrate_sqlite(conn, 1, "newer")
            conn.execute("INSERT INTO migrations VALUES (999, 'future', 'x', 0)")
        return
    settings = parse_url(url)
    with connect(settings, "test") as conn:
        migrate_postgres(conn, settings, 1)
        conn.execute(f"INSERT INTO \"{settings.schema}\".migrations VALUES (999, 'future', 'x', 0)")


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_what_a_newer_holdfast_wrote_is_refused(tmp_path, postgres_url, kind):
    url = f"sqlite:///{tmp_path}/newer.db" if kind == "sqlite" else postgres_url
    newer(url)
    with pytest.raises(StoreVersionError, match="written by a newer holdfast .schema 999"):
        copy(url, f"sqlite:///{tmp_path}/b.db")
    if kind == "postgres":
        fill(tmp_path / "a.db", 3)
        with pytest.raises(StoreVersionError, match="written by a newer holdfast .schema 999"):
            copy(f"sqlite:///{tmp_path}/a.db", url, overwrite=True)


def test_a_store_of_an_older_holdfast_is_copied_as_it_is_and_brought_up_to_date_by_the_next_start(tmp_path, postgres_url):
    with contextlib.closing(sqlite3.connect(tmp_path / "old.db", isolation_level=None)) as conn:
        migrate_sqlite(conn, 1, "old", up_to=2)
        conn.execute("INSERT INTO functions VALUES (7, 'a', 'a-f', 'f', 1, '{}', 0, 0, 1)")
    copy(f"sqlite:///{tmp_path}/old.db", postgres_url)
    copy(postgres_url, f"sqlite:///{tmp_path}/back.db")
    with opened_source(postgres_url, alone=False) as source:
        assert source.schema == 2
    settings = parse_url(postgres_url)
    with connect(settings, "test") as conn:
        migrate_postgres(conn, settings, 2)
        assert conn.execute(f'SELECT id, limits FROM "{settings.schema}".functions').fetchall() == [(7, "{}")]
    with contextlib.closing(sqlite3.connect(tmp_path / "back.db", isolation_level=None)) as conn:
        migrate_sqlite(conn, 2, "back")
        assert conn.execute("SELECT id, limits FROM functions").fetchall() == [(7, "{}")]


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_what_is_not_a_store_is_said_to_be_none(tmp_path, postgres_url, kind):
    url = postgres_url
    if kind == "sqlite":
        url = f"sqlite:///{tmp_path}/other.db"
        with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as conn:
            conn.execute("CREATE TABLE mine (id INTEGER)")
    with pytest.raises(StoreError, match="holds no holdfast|is not there"):
        copy(url, f"sqlite:///{tmp_path}/b.db")
    assert not (tmp_path / "other.db-lock").exists()


@pytest.mark.parametrize("lost", ["from", "to"])
def test_a_connection_that_is_lost_names_its_database_and_leaves_nothing(tmp_path, postgres_url, lost):
    fill(tmp_path / "a.db", 3, rows=200)
    source_url, target_url = f"{postgres_url}_source", f"{postgres_url}_target"
    copy(f"sqlite:///{tmp_path}/a.db", source_url)
    ended = []

    def cut(table: str, rows: int) -> None:
        if table == "runs" and not ended:
            with connect(parse_url(postgres_url), "test") as conn:
                ended.append(conn.execute(END, [f"holdfast copying {lost}"]).fetchall())

    url = source_url if lost == "from" else target_url
    with pytest.raises(StoreUnreachableError, match=rf"schema={parse_url(url).schema} can't be reached"):
        with opened_source(source_url, alone=True) as source, opened_target(target_url, source.schema) as target:
            copy_rows(source, target, cut)
    assert ended == [[(True,)]]
    copy(source_url, target_url)
    assert all_rows(target_url) == all_rows(source_url)


# -- what was written is what was read -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_row_that_changes_on_the_way_is_found_and_nothing_is_kept(tmp_path, postgres_url, kind, monkeypatch):
    fill(tmp_path / "a.db", 3)
    target_url = f"sqlite:///{tmp_path}/b.db" if kind == "sqlite" else postgres_url

    def written(rows: Any) -> Any:
        for number, row in enumerate(rows):
            yield (*row[:-1], None) if number == 20 and row[-1] is not None else row

    with opened_source(f"sqlite:///{tmp_path}/a.db", alone=True) as source, pytest.raises(StoreError, match="is not what was written: 40 rows"):
        with opened_target(target_url, source.schema) as target:
            real = target.write
            monkeypatch.setattr(target, "write", lambda table, columns, rows: real(table, columns, written(rows) if table == "steps" else rows))
            copy_rows(source, target, lambda table, rows: None)
    if kind == "sqlite":
        assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("b.db")) == ["b.db-lock"]
    else:
        with connect(parse_url(postgres_url), "test") as conn:
            assert conn.execute("SELECT count(*) FROM pg_namespace WHERE nspname = %s", [parse_url(postgres_url).schema]).fetchone() == (0,)


def test_progress_is_told_to_the_last_row(tmp_path):
    fill(tmp_path / "a.db", 3, rows=1234)
    told: dict[str, int] = {}
    with opened_source(f"sqlite:///{tmp_path}/a.db", alone=True) as source, opened_target(f"sqlite:///{tmp_path}/b.db", source.schema) as target:
        copied = copy_rows(source, target, lambda table, rows: told.__setitem__(table, told.get(table, 0) + rows))
    assert {one.table: 2 * one.rows for one in copied} == told
    assert told["runs"] == 2468
    assert copying._TELL_EVERY < 1234


def test_what_is_not_copied_follows_from_the_rows(tmp_path, postgres_url):
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as conn:
        migrate_sqlite(conn, 1, "a")
        for number, held in enumerate(["lx\nr1\nlx", "ly", "", "r1"], 1):
            conn.execute("INSERT INTO queue VALUES (?, ?, 2, '1', 0, 0, 5, 1, 0, 0, 0, ?)", (bytes([number]), bytes([number]), held))
        for number, lookup in enumerate(["a/b", "a/b\0n\x001", "a/b\0n\x002", "a\x1a0\0x\x1a\0'v'", "inngest/function.finished\0run\0ff", "\0signal\0s"]):
            conn.execute("INSERT INTO waits VALUES (?, 'k', ?, NULL, NULL, NULL, 0)", (bytes([number]), lookup))
    copy(f"sqlite:///{tmp_path}/a.db", postgres_url)
    from holdfast.base.clock import SystemClock

    node = PostgresStore(postgres_url, SystemClock(), ("app",))
    try:
        assert {name: set(node.wait_paths(name)) for name in ("a/b", "a\x1a0", "", "inngest/function.finished")} == {
            "a/b": {"", "n"}, "a\x1a0": {"x\x1a"}, "": {"signal"}, "inngest/function.finished": set()
        }
        with connect(node.settings, "test") as conn:
            found = conn.execute(f'SELECT gate, used FROM "{node.settings.schema}".lease_counts ORDER BY gate').fetchall()
        assert found == [("lx", 2), ("ly", 1)]
        assert len(node.leased_by_others()) == 4
    finally:
        node._leave()


@pytest.mark.slow
def test_a_copy_holds_a_few_rows_in_memory_at_a_time(tmp_path, postgres_url):
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as conn:
        migrate_sqlite(conn, 1, "a")
        conn.execute("BEGIN")
        for number in range(600):
            conn.execute(
                "INSERT INTO steps (run_id, key, seq, state, kind, started_at, attempt, data) VALUES (?, 'k', 1, 0, 0, 0, 0, randomblob(40000))",
                (number.to_bytes(16, "big"),),
            )
        conn.execute("COMMIT")
    urls = [f"sqlite:///{tmp_path}/a.db", postgres_url, f"sqlite:///{tmp_path}/b.db"]
    for source, target in itertools.pairwise(urls):
        tracemalloc.start()
        try:
            copy(source, target)
            assert tracemalloc.get_traced_memory()[1] < 8_000_000  # of 24
        finally:
            tracemalloc.stop()


# -- backups of a file -----------------------------------------------------------------------------------------------------


def test_a_backup_is_of_one_moment_and_does_not_begin_anew_when_somebody_writes(tmp_path, monkeypatch):
    fill(tmp_path / "a.db", 3, rows=300)
    monkeypatch.setattr(sqlite_copying, "PAGES_AT_ONCE", 20)
    told: list[int] = []
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        before = writer.execute("SELECT count(*) FROM notes").fetchone()

        def write(done: int, total: int) -> None:
            told.append(done)
            writer.execute("INSERT INTO notes VALUES (randomblob(16), 1, 1, 'meanwhile')")
            writer.execute("UPDATE runs SET error = 'meanwhile'")
            writer.execute("PRAGMA wal_checkpoint")

        sqlite_copying.back_up(tmp_path / "a.db", tmp_path / "a.backup", write)
    assert len(told) > 5
    assert told == sorted(set(told)), "it began anew"
    with contextlib.closing(sqlite3.connect(tmp_path / "a.backup")) as conn:
        assert conn.execute("SELECT count(*) FROM notes").fetchone() == before
        assert conn.execute("SELECT count(*) FROM runs WHERE error = 'meanwhile'").fetchone() == (0,)
        assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_what_was_in_the_log_of_a_replaced_database_does_not_come_back(tmp_path):
    fill(tmp_path / "a.db", 3)
    sqlite_copying.back_up(tmp_path / "a.db", tmp_path / "a.backup", lambda done, total: None)
    # a process that was killed leaves its log behind
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as conn:
        conn.execute("PRAGMA journal_mode = WAL")
        conn.execute("DELETE FROM runs")
        for ending in ("", "-wal"):
            (tmp_path / f"b.db{ending}").write_bytes((tmp_path / f"a.db{ending}").read_bytes())
    sqlite_copying.restore_file(tmp_path / "a.backup", tmp_path / "b.db", lambda done, total: None, overwrite=True)
    assert not (tmp_path / "b.db-wal").exists()
    assert len(all_rows(f"sqlite:///{tmp_path}/b.db")["runs"]) == 40


def test_events_in_the_outbox_come_along_and_are_not_stranded_on_sqlite(tmp_path, postgres_url):
    fill(tmp_path / "a.db", 3, rows=2)
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as conn:
        conn.execute("INSERT INTO outbox VALUES (x'01', x'02')")
    copy(f"sqlite:///{tmp_path}/a.db", postgres_url)
    assert all_rows(postgres_url)["outbox"] == [(b"\x02", b"\x01")]
    with pytest.raises(StoreError, match="1 events that transactions have sent are not taken yet"):
        copy(postgres_url, f"sqlite:///{tmp_path}/b.db")
    assert not (tmp_path / "b.db").exists()
    with pytest.raises(StoreError, match="would be stranded in .*restore it to PostgreSQL"):
        sqlite_copying.restore_file(tmp_path / "a.db", tmp_path / "b.db", lambda done, total: None, overwrite=False)
    assert not (tmp_path / "b.db").exists()
