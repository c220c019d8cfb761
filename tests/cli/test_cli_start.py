"""P5: `holdfast start`: production, with keys."""

from __future__ import annotations

import json
import signal
import sqlite3
import urllib.error
import urllib.request

import pytest
from commandline import Cli, Running

EVENT_KEY = "canary-event-key-0123456789abcdef"
SIGNING_DIGITS = "c0ffee" * 10 + "cafe"
KEYS = {"INNGEST_EVENT_KEY": EVENT_KEY, "INNGEST_SIGNING_KEY": f"signkey-prod-{SIGNING_DIGITS}"}

APP = """
from holdfast import App, Context, Event

app = App("shop")

class OrderPaid(Event, name="shop/order.paid"):
    order_id: str

@app.function(OrderPaid, retries=0)
async def fulfil(ctx: Context[OrderPaid]) -> str:
    ctx.logger.info("fulfilling %s", ctx.event.data.order_id)
    return await ctx.step.run("say", lambda: "done")
"""


def start(cli: Cli, *args: str, **env: str) -> tuple[Running, str]:
    running = cli.start("start", "--host", "127.0.0.1", "--port", "0", *args, **env)
    return running, running.url()


@pytest.mark.protocol("cli.keys")
@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, ["INNGEST_EVENT_KEY and INNGEST_SIGNING_KEY", "holdfast keys new"]),
        ({"INNGEST_EVENT_KEY": EVENT_KEY}, ["needs INNGEST_SIGNING_KEY", "holdfast keys new"]),
        ({"INNGEST_SIGNING_KEY": KEYS["INNGEST_SIGNING_KEY"]}, ["needs INNGEST_EVENT_KEY", "holdfast keys new"]),
        ({**KEYS, "INNGEST_EVENT_KEY": " , "}, ["needs INNGEST_EVENT_KEY", "holdfast keys new"]),
        ({**KEYS, "INNGEST_SIGNING_KEY": "signkey-prod-xyz"}, ["INNGEST_SIGNING_KEY is not a signing key", "holdfast keys new"]),
    ],
    ids=["none", "event key only", "signing key only", "empty event keys", "malformed"],
)
def test_it_refuses_to_start_without_keys(cli: Cli, env: dict[str, str], expected: list[str]) -> None:
    cli.write("app.py", APP)
    result = cli.run("start", "app.py", "--port", "0", **env)
    assert (result.code, result.out) == (1, "")
    for text in expected:
        assert text in result.err
    assert "Traceback" not in result.err
    assert not (cli.directory / ".holdfast").exists(), "nothing was opened or written"


def test_an_app_that_can_not_be_loaded_is_refused(cli: Cli) -> None:
    cli.write("app.py", "import nowhere_to_be_found\n")
    result = cli.run("start", "app.py", "--port", "0", **KEYS)
    assert result.code == 1
    assert "No module named 'nowhere_to_be_found'" in result.err


def test_a_newer_store_is_refused(cli: Cli) -> None:
    cli.write("app.py", APP)
    running, _ = start(cli, "app.py", "--store", "shop.db", **KEYS)
    assert running.end() == 0
    database = sqlite3.connect(cli.directory / "shop.db")
    database.execute("INSERT INTO migrations (number, name, checksum, applied_at) VALUES (9999, 'future', 'x', 0)")
    database.commit()
    database.close()
    result = cli.run("start", "app.py", "--port", "0", "--store", "shop.db", **KEYS)
    assert result.code == 1
    assert "was written by a newer holdfast (schema 9999" in result.err


def test_keys_made_by_the_command_start_it_and_open_it(cli: Cli) -> None:
    cli.write("app.py", APP)
    keys = dict(line.split("=", 1) for line in cli.run("keys", "new").out.splitlines())
    running, url = start(cli, "app.py", **keys)
    sent = cli.run("send", "shop/order.paid", '{"order_id": "o1"}', "--url", url, **keys)
    assert sent.code == 0, sent.err
    listed = cli.run("runs", "--url", url, **keys)
    assert listed.code == 0, listed.err
    assert "shop-fulfil" in listed.out
    assert running.end() == 0


def test_keys_may_be_arguments(cli: Cli) -> None:
    running, url = start(
        cli, "--event-key", "first-" + EVENT_KEY, "--event-key", "second-" + EVENT_KEY,
        "--signing-key", KEYS["INNGEST_SIGNING_KEY"], "--store", "sqlite://",
    )
    for key in ("first-", "second-"):
        assert cli.run("send", "a/b", "--url", url, "--event-key", key + EVENT_KEY).code == 0
    assert cli.run("runs", "--url", url, "--signing-key", SIGNING_DIGITS).code == 0
    assert running.end() == 0


def test_without_the_right_key_it_is_closed(cli: Cli) -> None:
    running, url = start(cli, **KEYS, HOLDFAST_STORE="sqlite://")
    for args in (["send", "a/b"], ["runs"], ["redrive", "--all", "--yes"]):
        for env in ({}, {"INNGEST_EVENT_KEY": "wrong" * 8, "INNGEST_SIGNING_KEY": "signkey-prod-" + "ab" * 32}):
            result = cli.run(*args, "--url", url, **env)
            assert (result.code, result.out) == (1, ""), args
            assert "refused the key" in result.err and "INNGEST_SIGNING_KEY" in result.err
            assert "wrongwrong" not in result.err and "abab" not in result.err
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{url}/v1/runs", timeout=10)
    caught.value.close()
    assert caught.value.code == 401
    assert running.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_json_logs_carry_the_run_and_no_keys(cli: Cli, number: int) -> None:
    cli.write("app.py", APP)
    running, url = start(cli, "app.py", "--log-format", "json", "--log-level", "debug", **KEYS)
    assert cli.run("send", "shop/order.paid", '{"order_id": "o1"}', "--url", url, **KEYS).code == 0
    line = json.loads(running.wait_for(r'"message": "fulfilling o1"').string)
    assert line["level"] == "info" and line["function_id"] == "shop-fulfil" and line["attempt"] == 0
    (run,) = json.loads(cli.run("runs", "--json", "--url", url, **KEYS).out)
    assert line["run_id"] == run["run_id"]
    assert running.end(number) == 0
    output = "\n".join(running.lines)
    assert EVENT_KEY not in output and SIGNING_DIGITS not in output
    logged = [text for text in running.lines if text.startswith("{")]
    assert logged and all({"time", "level", "logger", "message"} <= set(json.loads(text)) for text in logged)
