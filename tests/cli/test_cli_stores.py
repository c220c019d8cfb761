"""`holdfast migrate`, `backup` and `restore`: the real commands, beside real processes that work on the store."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from commandline import Cli, Result, Running, environment
from load_app import Order, make_app

from holdfast.cli.commands import main
from holdfast.compose import build_engine
from holdfast.store.reads import RunFilter

pytestmark = pytest.mark.anyio


@pytest.fixture
def load(cli: Cli):
    """Starts the application under load; it is waited for until it has been taken so many events."""

    def start(url: str, count: int) -> Running:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "load_app.py"), url], cwd=cli.directory, env=environment(),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        running = Running(process)
        cli.started.append(running)
        running.wait_for(rf"taken {count}$", patience=60)
        return running

    return start


@pytest.fixture
def run(cli: Cli, monkeypatch: pytest.MonkeyPatch):
    """The command in this process, where it need not be one of its own."""
    monkeypatch.chdir(cli.directory)
    for name in [name for name in os.environ if name.startswith(("HOLDFAST_", "INNGEST_"))]:
        monkeypatch.delenv(name)

    def invoke(*args: str) -> Result:
        done = CliRunner().invoke(main, args)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return Result(done.exit_code, done.stdout, done.stderr)

    return invoke


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as conn:
        yield conn


def recorded(path: Path) -> dict[tuple[bytes, str], bytes]:
    """The results of steps that are on record."""
    with reading(path) as conn:
        return {(run, key): data for run, key, data in conn.execute("SELECT run_id, key, data FROM steps WHERE state = 0 AND kind = 0")}


def orders(path: Path) -> list[int]:
    with reading(path) as conn:
        return sorted(json.loads(row[0])["n"] for row in conn.execute("SELECT data FROM events WHERE name = 'load/order'"))


async def finish(url: str) -> Counter[tuple[str, str]]:
    """Let everything that is in a store go on to its end; how many runs of which function ended how."""
    engine = build_engine([make_app()], url)
    async with engine, asyncio.timeout(60):
        while True:
            found, cursor = [], None
            while True:
                runs, cursor = await engine.reader.runs(RunFilter(), limit=1000, cursor=cursor)
                found += runs
                if cursor is None:
                    break
            if all(run.ended_at for run in found):
                return Counter((run.function, run.status) for run in found)
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_a_backup_under_load_holds_all_that_was_taken_before_it_and_goes_on(cli: Cli, run, load, postgres_url, kind) -> None:
    url = f"sqlite:///{cli.directory}/live.db" if kind == "sqlite" else postgres_url
    taken = 60
    running = load(url, taken)
    backups = []
    for number in range(2 if kind == "sqlite" else 1):
        done = cli.run("backup", f"{number}.backup", "--store", url)
        assert (done.code, done.out) == (0, ""), done.err
        assert f"{number}.backup is a backup, checked and on disk" in done.err
        backups.append((cli.directory / f"{number}.backup", taken))
        taken = int(running.wait_for(r"taken (\d+)$")[1])
    running.kill()
    for path, before in backups:
        found = orders(path)
        assert found == list(range(len(found))), "it is not the state of one moment"
        assert len(found) > before
        assert sorted(p.name for p in cli.directory.iterdir() if p.name.startswith(path.name)) == [path.name]
    path, _ = backups[-1]
    restored = f"sqlite:///{cli.directory}/restored.db" if kind == "sqlite" else f"{postgres_url}_restored"
    assert run("restore", path.name, "--store", restored).code == 0
    count = len(orders(path))
    assert await finish(restored) == {("load-fulfil", "COMPLETED"): count, ("load-note", "COMPLETED"): count}
    # what was on record was not executed again
    assert run("backup", "after.backup", "--store", restored).code == 0
    after = recorded(cli.directory / "after.backup")
    on_record = recorded(path)
    assert len(on_record) > 20
    assert {key: after[key] for key in on_record} == on_record
    assert len(after) == 3 * count


async def test_moving_from_sqlite_to_postgresql_and_back(cli: Cli, run, load, postgres_url) -> None:
    running = load("sqlite:///a.db", 60)
    refused = run("migrate", "--from", "a.db", "--to", postgres_url)
    assert refused.code == 1
    assert f"a.db is being used by process {running.process.pid}: stop it first" in refused.err
    running.kill()
    count = len(orders(cli.directory / "a.db"))
    before = recorded(cli.directory / "a.db")
    done = cli.run("migrate", "--from", "a.db", "--to", postgres_url)
    assert done.code == 0, done.err
    assert re.search(r"^events +\d+$", done.out, re.MULTILINE), done.out
    assert "and not with sqlite:///a.db again" in done.err
    assert recorded(cli.directory / "a.db") == before
    assert await finish(postgres_url) == {("load-fulfil", "COMPLETED"): count, ("load-note", "COMPLETED"): count}
    back = run("migrate", "--from", postgres_url, "--to", "b.db")
    assert back.code == 0, back.err
    again = make_app()
    async with build_engine([again], f"sqlite:///{cli.directory}/b.db"):
        assert (await again.send(Order(n=0), id="order-0")).duplicate
        assert not (await again.send(Order(n=count), id="order-new")).duplicate
    found = recorded(cli.directory / "b.db")
    assert {key: found[key] for key in before} == before


# -- what is refused -------------------------------------------------------------------------------------------------------


async def make_store(path: Path, *numbers: int) -> None:
    app = make_app()
    async with build_engine([app], f"sqlite:///{path}"):
        for n in numbers:
            await app.send(Order(n=n))


async def test_a_restore_replaces_nothing_without_force_and_nothing_that_is_used(cli: Cli, run) -> None:
    await make_store(cli.directory / "one.db", 1)
    await make_store(cli.directory / "two.db", 2, 3)
    assert run("backup", "one.backup", "--store", "one.db").code == 0
    refused = run("restore", "one.backup", "--store", "two.db")
    assert refused.code == 1 and "is not empty: there is something in" in refused.err and "--force" in refused.err
    assert orders(cli.directory / "two.db") == [2, 3]
    async with build_engine([make_app()], f"sqlite:///{cli.directory}/two.db"):
        used = run("restore", "one.backup", "--store", "two.db", "--force")
    assert used.code == 1 and "two.db is being used by process" in used.err
    forced = run("restore", "one.backup", "--store", "two.db", "--force")
    assert forced.code == 0 and "is as one.backup was" in forced.err
    assert orders(cli.directory / "two.db") == [1]
    assert await finish(f"sqlite:///{cli.directory}/two.db") == {("load-fulfil", "COMPLETED"): 1, ("load-note", "COMPLETED"): 1}


async def test_a_damaged_backup_is_not_restored_and_a_failed_backup_leaves_the_old_one(cli: Cli, run) -> None:
    await make_store(cli.directory / "one.db", *range(50))
    assert run("backup", "one.backup", "--store", "one.db").code == 0
    good = (cli.directory / "one.backup").read_bytes()
    damaged = bytearray(good)
    damaged[len(damaged) // 2 : len(damaged) // 2 + 5000] = bytes(5000)
    cli.write("damaged.backup", "")
    (cli.directory / "damaged.backup").write_bytes(damaged)
    result = run("restore", "damaged.backup", "--store", "new.db")
    assert result.code == 1 and ("is damaged" in result.err or "malformed" in result.err), result.err
    assert not (cli.directory / "new.db").exists()
    (cli.directory / "live.db").write_bytes(damaged)
    assert run("backup", "one.backup", "--store", "live.db").code == 1
    assert (cli.directory / "one.backup").read_bytes() == good
    assert not list(cli.directory.glob("*.incoming*"))


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["migrate", "--from", "nothing.db", "--to", "b.db"], "there is no nothing.db"),
        (["migrate", "--from", "sqlite://", "--to", "b.db"], "a store in memory has no copy"),
        (["migrate", "--from", "a.db", "--to", "sqlite:///a.db"], "are the same store"),
        (["migrate", "--from", "app.txt", "--to", "b.db"], "is it an SQLite file"),
        (["migrate", "--from", "mysql://x/y", "--to", "b.db"], "is not understood"),
        (["backup", "b.backup", "--store", "nothing.db"], "there is no nothing.db"),
        (["restore", "app.txt", "--store", "b.db"], "is it an SQLite file"),
    ],
)
async def test_what_can_not_be_done_says_why(cli: Cli, run, args: list[str], expected: str) -> None:
    cli.write("app.txt", "not a database, but long enough to be taken for one" * 50)
    result = run(*args)
    assert result.code in {1, 2} and expected in result.err, result.err
    assert not (cli.directory / "b.db").exists()
    assert not (cli.directory / "b.backup").exists()


async def test_a_backup_does_not_take_the_place_of_a_database(cli: Cli, run) -> None:
    await make_store(cli.directory / "one.db", 1)
    await make_store(cli.directory / "two.db", 2)
    result = run("backup", "two.db", "--store", "one.db")
    assert result.code == 1 and "has been a server's database, not a backup" in result.err
    assert orders(cli.directory / "two.db") == [2]


async def test_a_backup_is_read_where_nothing_may_be_written(cli: Cli, run) -> None:
    await make_store(cli.directory / "one.db", 1)
    assert run("backup", "shelf/one.backup", "--store", "one.db").code == 0
    with reading(cli.directory / "shelf" / "one.backup") as conn:
        assert conn.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_progress_is_shown_on_a_terminal() -> None:
    from io import StringIO

    from rich.console import Console

    from holdfast.cli import stores

    console = Console(file=StringIO(), force_terminal=True, width=100)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stores, "err", lambda: console)
        with stores.progress("copying", 200) as advance:
            advance(100, "runs")
        with stores.page_progress("backing up") as told:
            told(3, 4)
    shown = console.file.getvalue()
    assert "copying runs" in shown and "50%" in shown
    assert "backing up" in shown and "75%" in shown
