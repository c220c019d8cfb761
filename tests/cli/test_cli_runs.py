"""`holdfast send`, `runs` and `redrive` against a real server with real runs."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from commandline import PATIENCE, Cli, Result, environment

APP = """
from pathlib import Path
from holdfast import App, Backoff, Context, Cron, CronTick, Event

app = App("shop", backoff=Backoff.exponential(base=0.01, factor=1, jitter="none"))

class OrderPaid(Event, name="shop/order.paid"):
    order_id: str
    amount: int

class Broken(Event, name="shop/broken"):
    pass

class Nap(Event, name="shop/nap"):
    pass

@app.function(OrderPaid)
async def fulfil(ctx: Context[OrderPaid]) -> str:
    return await ctx.step.run("say", lambda: f"thanks for {ctx.event.data.amount}")

def fragile() -> str:
    if not Path("mended").exists():
        raise ValueError("no [bold]luck[/bold]")
    return "lucky"

@app.function(Broken, retries=1)
async def breaks(ctx: Context[Broken]) -> str:
    with open("ledger.txt", "a") as ledger:
        await ctx.step.run("first", lambda: ledger.write("first\\n"))
    return await ctx.step.run("fragile", fragile)

@app.function(Nap)
async def sleeper(ctx: Context[Nap]) -> None:
    await ctx.step.sleep("nap", 3600)

@app.function(Cron("0 9 * * mon", tz="Asia/Riyadh"), Cron("@yearly"))
async def report(ctx: Context[CronTick]) -> str:
    return ctx.event.data.cron

@app.function(Cron("30 4 1 1 *"))
async def single(ctx: Context[CronTick]) -> None: ...
"""

Shop = tuple[Cli, str]


@pytest.fixture
def shop(cli: Cli) -> Iterator[Shop]:
    """A running server with the app, and its address."""
    cli.write("app.py", APP)
    running = cli.start("dev", "app.py", "--port", "0", "--no-reload")
    url = running.url()
    yield cli, url
    assert running.end() == 0


def command(shop: Shop, *args: str, input: str | None = None) -> Result:  # noqa: A002
    cli, url = shop
    return cli.run(*args, input=input, INNGEST_BASE_URL=url)


def runs(shop: Shop, *args: str) -> list[dict[str, object]]:
    result = command(shop, "runs", "--json", *args)
    assert result.code == 0, result.err
    return json.loads(result.out)


def wait_for_runs(shop: Shop, count: int, *args: str) -> list[dict[str, object]]:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = runs(shop, *args)
        if len(found) == count:
            return found
    pytest.fail(f"there are not {count} runs {args}: {runs(shop)}")


# -- sending ---------------------------------------------------------------------------------------------------------


def test_an_event_from_arguments_and_from_standard_input(shop: Shop) -> None:
    assert command(shop, "send", "shop/order.paid", '{"order_id": "o1", "amount": 5}').code == 0
    assert command(shop, "send", "shop/order.paid", "-", input='{"order_id": "ö2", "amount": 12345678901234567890}').code == 0
    found = wait_for_runs(shop, 2, "--status", "completed")
    assert {json.loads(command(shop, "runs", str(run["run_id"]), "--json").out)["run"]["output"] for run in found} == {
        "thanks for 5", "thanks for 12345678901234567890",
    }


def test_the_same_id_starts_a_function_once(shop: Shop) -> None:
    for _ in range(3):
        assert command(shop, "send", "shop/order.paid", '{"order_id": "o1", "amount": 5}', "--id", "payment-1").code == 0
    assert len(wait_for_runs(shop, 1, "--status", "COMPLETED")) == 1
    assert len(runs(shop)) == 1


def test_the_answer_as_json(shop: Shop) -> None:
    answer = json.loads(command(shop, "send", "a/b", "--json").out)
    assert answer["status"] == 200 and re.fullmatch(r"[0-9A-Z]{26}", answer["ids"][0])


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["shop/order.paid", '{"order_id": "o1"}'], "amount"),
        (["inngest/x"], "event name is reserved for internal use: inngest/x"),
        ([""], "event name is empty"),
        (["a/b", '{"x": NaN}'], "is not JSON"),
        (["a/b", "--at", "1975-01-01"], "timestamp is before"),
    ],
    ids=["schema", "reserved", "empty", "NaN", "too old"],
)
def test_what_the_server_refuses_is_told_as_a_sentence(shop: Shop, args: list[str], expected: str) -> None:
    result = command(shop, "send", *args)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("error: ") and expected in result.err


def test_an_event_for_later(shop: Shop) -> None:
    assert command(shop, "send", "shop/order.paid", '{"order_id": "o1", "amount": 5}', "--at", "2090-01-01T00:00:00+01:00").code == 0
    (run,) = wait_for_runs(shop, 1)
    assert run["status"] in {"Queued", "Waiting"} and run["started_at"] is None


# -- runs ------------------------------------------------------------------------------------------------------------


def test_a_list_of_runs(shop: Shop) -> None:
    result = command(shop, "runs")
    assert (result.code, result.out) == (0, "")
    assert "No runs yet. Send an event: holdfast send" in result.err

    for name, data in (("shop/order.paid", '{"order_id": "o1", "amount": 5}'), ("shop/broken", "{}"), ("shop/nap", "{}")):
        assert command(shop, "send", name, data).code == 0
    wait_for_runs(shop, 1, "--status", "COMPLETED")
    wait_for_runs(shop, 1, "--status", "FAILED")
    wait_for_runs(shop, 1, "--status", "WAITING")
    table = command(shop, "runs").out
    for pattern in (r"COMPLETED +shop-fulfil", r"FAILED +shop-breaks.*ValueError: no \[bold\]luck\[/bold\]", r"WAITING +shop-sleeper"):
        assert re.search(pattern, table), table
    assert len(runs(shop, "--function", "fulfil")) == len(runs(shop, "--function", "shop-fulfil")) == 1
    assert len(runs(shop, "--event", "shop/nap")) == 1
    assert len(runs(shop, "--status", "FAILED", "--status", "WAITING")) == 2
    assert len(runs(shop, "--limit", "2")) == 2
    assert "No run matches" in command(shop, "runs", "--event", "nothing/like.it").err


def test_more_runs_than_a_page(shop: Shop) -> None:
    cli, url = shop
    code = (
        "import json, urllib.request\n"
        "events = [{'name': 'shop/order.paid', 'data': {'order_id': str(n), 'amount': n}} for n in range(250)]\n"
        f"request = urllib.request.Request('{url}/e/dev', json.dumps(events).encode(), {{'content-type': 'application/json'}})\n"
        "urllib.request.urlopen(request).close()"
    )
    assert cli.run_python(code).code == 0
    found = wait_for_runs(shop, 250, "--limit", "1000")
    assert len({run["run_id"] for run in found}) == 250
    assert [run["run_id"] for run in runs(shop, "--limit", "120")] == [run["run_id"] for run in found[:120]]


def test_one_run_with_its_steps_attempts_and_error(shop: Shop) -> None:
    command(shop, "send", "shop/broken")
    (run,) = wait_for_runs(shop, 1, "--status", "FAILED")
    view = command(shop, "runs", str(run["run_id"])).out
    for pattern in (
        r"^FAILED +shop-breaks +[0-9A-Z]{26}$",
        r"^event shop/broken [0-9A-Z]{26}$",
        r"^ first +run +done +\S+ ms +1 +6",
        r"^ fragile +run +failed +\S+ ms +2 +ValueError: no \[bold\]luck\[/bold\]",
        r"failed +1 +ValueError: no \[bold\]luck\[/bold\], again at \d\d:\d\d:\d\d",
        r"^ +File \".*app\.py\", line \d+, in fragile",
    ):
        assert re.search(pattern, view, re.MULTILINE), (pattern, view)


def test_an_unknown_run(shop: Shop) -> None:
    result = command(shop, "runs", "01JB8Z5T2M6W0Q4X9C3V7N1K8R")
    assert result.code == 1 and "there is no run 01JB8Z5T2M6W0Q4X9C3V7N1K8R" in result.err
    result = command(shop, "runs", "../../health?x=")
    assert result.code == 1 and result.err.startswith("error: ") and "Traceback" not in result.err


def test_watching_a_run_ends_with_it_and_watching_the_list_with_ctrl_c(shop: Shop) -> None:
    cli, url = shop
    command(shop, "send", "shop/nap")
    (run,) = wait_for_runs(shop, 1, "--status", "WAITING")
    watching = cli.start("runs", str(run["run_id"]), "--watch", "--url", url)
    watching.wait_for(r"WAITING +shop-sleeper")
    listing = cli.start("runs", "--watch", "--url", url)
    listing.wait_for(r"^[0-9A-Z]{26} +WAITING +shop-sleeper$")
    code = f"import urllib.request as r; r.urlopen(r.Request('{url}/v1/runs/{run['run_id']}', method='DELETE')).close()"
    assert cli.run_python(code).code == 0
    watching.wait_for(r"CANCELLED +shop-sleeper")
    assert watching.wait() == 0
    listing.wait_for(r"CANCELLED +shop-sleeper")
    assert listing.end(signal.SIGINT) == 0
    assert not any("Traceback" in line or "Aborted" in line for line in listing.lines)


def test_watching_on_a_terminal_renews_the_table_until_ctrl_c(shop: Shop) -> None:
    cli, url = shop
    command(shop, "send", "shop/nap")
    wait_for_runs(shop, 1, "--status", "WAITING")
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "holdfast", "runs", "--watch", "--url", url],
        cwd=cli.directory, env={**environment(), "TERM": "xterm", "COLUMNS": "120"}, start_new_session=True,
        stdin=terminal, stdout=terminal, stderr=terminal,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(terminal)
    try:
        seen = b""

        def read_until(wanted: bytes) -> None:
            nonlocal seen
            while wanted not in seen:
                assert select.select([master], [], [], PATIENCE)[0], seen
                seen += os.read(master, 65536)

        read_until(b"shop-sleeper")
        command(shop, "send", "shop/order.paid", '{"order_id": "o1", "amount": 5}')
        read_until(b"shop-fulfil")
        os.write(master, b"\x03")
        assert process.wait(PATIENCE) == 0
        assert b"Traceback" not in seen
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_output_that_nobody_reads_to_the_end_is_no_error(shop: Shop) -> None:
    cli, url = shop
    for _ in range(2):
        command(shop, "send", "shop/nap")
    wait_for_runs(shop, 2)
    done = subprocess.run(
        f"{sys.executable} -m holdfast runs --watch --url {url} | head -1",
        shell=True, cwd=cli.directory, env=environment(), capture_output=True, text=True, timeout=60,
    )
    assert "shop-sleeper" in done.stdout
    assert done.stderr == ""


# -- redriving -------------------------------------------------------------------------------------------------------


def break_some(shop: Shop, count: int) -> list[str]:
    for _ in range(count):
        assert command(shop, "send", "shop/broken").code == 0
    return [str(run["run_id"]) for run in wait_for_runs(shop, count, "--status", "FAILED")]


def test_redriving_one_goes_on_after_its_finished_steps_and_twice_is_once(shop: Shop) -> None:
    cli, _ = shop
    (failed,) = break_some(shop, 1)
    cli.write("mended", "")
    first = command(shop, "redrive", failed)
    again = command(shop, "redrive", failed)
    assert first.code == again.code == 0
    assert first.out == again.out
    assert re.fullmatch(rf"{failed} -> [0-9A-Z]{{26}}\n", first.out)
    (done,) = wait_for_runs(shop, 1, "--status", "COMPLETED")
    assert done["original_run_id"] == failed
    assert (cli.directory / "ledger.txt").read_text() == "first\n"


def test_redriving_all_says_how_many_and_asks(shop: Shop) -> None:
    cli, _ = shop
    failed = break_some(shop, 3)
    shown = command(shop, "redrive", "--all", "--dry-run")
    assert shown.code == 0 and all(run_id in shown.out for run_id in failed)
    refused = command(shop, "redrive", "--all", input="n\n")
    assert refused.code == 1 and "Run 3 dead letters again? [y/N]" in refused.out
    nobody = command(shop, "redrive", "--all")
    assert nobody.code == 1, "without an answer nothing is done"
    assert len(runs(shop)) == 3

    cli.write("mended", "")
    done = command(shop, "redrive", "--function", "breaks", "--limit", "2", input="y\n")
    assert done.code == 0 and done.out.count(" -> ") == 2
    done = command(shop, "redrive", "--all", "--yes")
    assert done.code == 0 and done.out.count(" -> ") == 1
    wait_for_runs(shop, 3, "--status", "COMPLETED")
    nothing = command(shop, "redrive", "--all", "--yes")
    assert nothing.code == 0 and "There are no dead letters" in nothing.err


def test_what_can_not_be_redriven(shop: Shop) -> None:
    command(shop, "send", "shop/nap")
    (run,) = wait_for_runs(shop, 1, "--status", "WAITING")
    result = command(shop, "redrive", str(run["run_id"]), "nonsense")
    assert (result.code, result.out) == (1, "")
    assert "is no dead letter" in result.err and "'nonsense' is not the id of a run" in result.err
    assert "2 runs of 2 could not be redriven" in result.err
    assert command(shop, "redrive").code == 2
    assert command(shop, "redrive", "--all", "--function", "x").code == 2


def test_the_audit_log_knows(shop: Shop) -> None:
    (failed,) = break_some(shop, 1)
    assert command(shop, "redrive", failed).code == 0
    with urllib.request.urlopen(f"{shop[1]}/audit", timeout=10) as response:
        text = response.read().decode()
    assert "run.redrive" in text and failed in text
    printed = command(shop, "audit")
    assert printed.code == 0
    assert "run.redrive" in printed.out and "command line" in printed.out
    (entry,) = json.loads(command(shop, "audit", "--json", "--limit", "1").out)
    assert (entry["target"], entry["origin"]) == (failed, "127.0.0.1, command line")


def test_the_doctor_finds_the_server_and_the_owner_of_its_store(shop: Shop) -> None:
    cli, url = shop
    result = command(shop, "doctor", "app.py", "--check")
    assert result.code == 0, result.out
    assert re.search(rf"ok +server +{url} is healthy", result.out)
    assert re.search(r"ok +owner +process \d+ has it open \(app shop\)", result.out)
    assert "SQLite's check of the whole file found nothing wrong" in result.out
    assert Path(cli.directory / ".holdfast").exists()


def test_schedules_are_listed_and_fired(shop: Shop) -> None:
    listed = command(shop, "crons")
    assert listed.code == 0, listed.err
    for text in ("shop-report", "Asia/Riyadh", "09:00", "shop-single", "04:30"):
        assert text in listed.out
    rows = json.loads(command(shop, "crons", "--json").out)
    assert {(row["function"], row["schedule"]) for row in rows} == {
        ("shop-report", "TZ=Asia/Riyadh 0 9 * * mon"), ("shop-report", "@yearly"), ("shop-single", "30 4 1 1 *"),
    }  # fmt: skip
    cli, url = shop
    fired = cli.run("crons", "run", "single", "--url", url).out.strip()
    named = json.loads(command(shop, "crons", "run", "shop-report", "@yearly", "--json").out)
    found = {run["run_id"]: run["function"] for run in wait_for_runs(shop, 2, "--status", "completed")}
    assert found == {fired: "shop-single", named["run_id"]: "shop-report"}
    refused = command(shop, "crons", "run", "report")
    assert refused.code == 1
    assert "several schedules" in refused.err
