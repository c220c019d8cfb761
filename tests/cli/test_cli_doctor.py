"""`holdfast doctor`: each thing that can be wrong on a machine is made wrong, and named with its remedy."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

import pytest
from commandline import Cli, reply

from holdfast.cli.checks import sync_times_ms

APP = 'from holdfast import App\napp = App("shop")\n'


@pytest.fixture
def store(cli: Cli) -> Path:
    """A store that a server has made and closed again."""
    cli.write("app.py", APP)
    running = cli.start("dev", "app.py", "--port", "0", "--no-reload", "--store", "shop.db")
    running.url()
    assert running.end() == 0
    return cli.directory / "shop.db"


def finding(cli: Cli, subject: str, *args: str, **env: str) -> tuple[str, str, str]:
    """Level, text and remedy of what the doctor says about a subject, the worst if it says several things."""
    found = json.loads(cli.run("doctor", "--json", *args, **env).out)
    about = [item for item in found if item["subject"] == subject]
    assert about, found
    worst = max(about, key=lambda item: ["fine", "note", "wrong"].index(item["level"]))
    return worst["level"], worst["text"], worst["remedy"] or ""


def test_a_machine_on_which_nothing_is_wrong(cli: Cli, free_port: int) -> None:
    result = cli.run("doctor")
    for subject in ("Python", "holdfast", "SQLite", "store", "disk", "fsync", "keys", "app"):
        assert re.search(rf"^ +(ok|note) +{subject} ", result.out, re.MULTILINE), result.out
    assert not (cli.directory / ".holdfast").exists(), "it changes nothing"


def test_a_store_at_rest(cli: Cli, store: Path) -> None:
    before = {path.name: path.read_bytes() for path in cli.directory.iterdir() if path.is_file() and path.suffix != ".py"}
    assert finding(cli, "store", "--store", "shop.db", "--check")[0] == "fine"
    assert finding(cli, "owner", "--store", "sqlite:///shop.db")[:2] == ("fine", "no process has it open; it belongs to app shop")
    after = {path.name: path.read_bytes() for path in cli.directory.iterdir() if path.is_file() and path.suffix != ".py"}
    assert before == {name: after[name] for name in before}, "it changes nothing"


def test_a_newer_store(cli: Cli, store: Path) -> None:
    database = sqlite3.connect(store)
    database.execute("INSERT INTO migrations (number, name, checksum, applied_at) VALUES (9999, 'future', 'x', 0)")
    database.commit()
    database.close()
    level, text, remedy = finding(cli, "store", "--store", "shop.db")
    assert level == "wrong" and "from a newer holdfast (schema 9999" in text and "Upgrade holdfast" in remedy
    assert cli.run("doctor", "--store", "shop.db").code == 1


def test_a_damaged_store(cli: Cli, store: Path) -> None:
    database = sqlite3.connect(store)
    database.executemany(
        "INSERT INTO events (id, name, ts, received_at, data) VALUES (?, 'x/y', 0, 0, ?)",
        [(number.to_bytes(16, "big"), b"{}" + b" " * 2000) for number in range(200)],
    )
    database.commit()
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    raw = bytearray(store.read_bytes())
    assert len(raw) > 200_000
    raw[-120_000:-40_000] = b"\xff" * 80_000
    store.write_bytes(raw)
    level, text, remedy = finding(cli, "store", "--store", "shop.db", "--check")
    assert level == "wrong" and ("is damaged" in text or "malformed" in text) and "restore a backup" in remedy


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [("notes.db", b"not a database at all" * 100, "is it an SQLite file")],
)
def test_a_file_that_is_no_database(cli: Cli, name: str, content: bytes, expected: str) -> None:
    (cli.directory / name).write_bytes(content)
    level, text, _ = finding(cli, "store", "--store", name)
    assert level == "wrong" and expected in text


def test_somebody_elses_database(cli: Cli) -> None:
    database = sqlite3.connect(cli.directory / "other.db")
    database.execute("CREATE TABLE customers (id INTEGER)")
    database.close()
    level, text, remedy = finding(cli, "store", "--store", "other.db")
    assert level == "wrong" and "not one of holdfast's" in text and "--store" in remedy


def test_a_store_url_that_is_not_understood(cli: Cli) -> None:
    level, text, _ = finding(cli, "store", HOLDFAST_STORE="mysql://localhost/x")
    assert level == "wrong" and "mysql://localhost/x" in text


def test_a_store_in_memory_is_noted(cli: Cli) -> None:
    assert finding(cli, "store", "--store", "sqlite://")[0] == "note"


def test_how_fast_the_disk_syncs_is_measured(tmp_path: Path) -> None:
    times = sync_times_ms(tmp_path)
    assert len(times) == 16 and all(0 <= ms < 10_000 for ms in times)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("env", "level", "text"),
    [
        ({}, "fine", "none set"),
        ({"INNGEST_SIGNING_KEY": "signkey-prod-" + "ab" * 32, "INNGEST_EVENT_KEY": "x" * 32}, "fine", "well formed"),
        ({"INNGEST_SIGNING_KEY": "signkey-prod-zz"}, "wrong", "INNGEST_SIGNING_KEY is not a signing key"),
        ({"INNGEST_SIGNING_KEY_FALLBACK": "abc"}, "wrong", "INNGEST_SIGNING_KEY_FALLBACK is not a signing key"),
        ({"INNGEST_EVENT_KEY": "long-enough-to-be-a-key,s3cr3t"}, "wrong", "could be guessed"),
    ],
    ids=["none", "good", "malformed", "fallback", "short"],
)
def test_the_form_of_keys(cli: Cli, env: dict[str, str], level: str, text: str) -> None:
    found = finding(cli, "keys", **env)
    assert found[0] == level and text in found[1]
    output = cli.run("doctor", **env)
    assert not any(value in output.out + output.err for value in env.values()), "keys are never shown"


def test_no_server_where_one_was_said_to_be(cli: Cli, free_port: int) -> None:
    level, text, remedy = finding(cli, "server", "--url", f"http://127.0.0.1:{free_port}")
    assert level == "wrong" and "connection refused" in text and remedy


def test_another_program_on_the_port(cli: Cli, web) -> None:
    url = web(lambda h: reply(h, 404, "<html>", content_type="text/html"))
    level, text, remedy = finding(cli, "server", "--url", url)
    assert level == "wrong" and "is that a holdfast server?" in text and "port" in remedy


def test_a_server_that_accepts_nothing(cli: Cli, web) -> None:
    url = web(lambda h: reply(h, 503, '{"status": 503, "error": "the disk reported a failed fsync"}', content_type="application/json"))
    level, text, remedy = finding(cli, "server", "--url", url)
    assert level == "wrong" and "accepts nothing: the disk reported a failed fsync" in text and "restart" in remedy


def test_an_app_with_a_mistake(cli: Cli) -> None:
    cli.write("app.py", APP + "@app.function('a/b', retrys=3)\nasync def f(ctx): ...\n")
    level, text, _ = finding(cli, "app")
    assert level == "wrong" and "app.py:3" in text and "did you mean 'retries'?" in text
