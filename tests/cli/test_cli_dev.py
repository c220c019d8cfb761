"""P5: `holdfast dev`: the real command, real files, real signals. Waiting is for facts: a line, an answer, a ledger."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import sqlite3
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from commandline import PATIENCE, Cli, Running

HEAD = """
import asyncio
from pathlib import Path
from holdfast import App, Context, Event

app = App("shop")

class OrderPaid(Event, name="shop/order.paid"):
    order_id: str

def ledger(line: str) -> None:
    with open("ledger.txt", "a") as file:
        file.write(line + "\\n")
"""

ANSWER = HEAD + """
@app.function(OrderPaid)
async def fulfil(ctx: Context[OrderPaid]) -> str:
    return await ctx.step.run("say", lambda: "{answer}")
"""

SLOW = HEAD + """
async def work() -> None:
    ledger("started")
    while not Path("go").exists():
        await asyncio.sleep(0.02)
    ledger("finished")

@app.function(OrderPaid)
async def fulfil(ctx: Context[OrderPaid]) -> str:
    await ctx.step.run("work", work)
    return "done"
"""


def eventually(fact: Callable[[], object], what: str, patience: float = PATIENCE) -> object:
    """The fact, as soon as it is true."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if found := fact():
            return found
        time.sleep(0.02)
    pytest.fail(f"did not come true: {what}")


def lines(cli: Cli) -> list[str]:
    path = cli.directory / "ledger.txt"
    return path.read_text().splitlines() if path.exists() else []


def runs(cli: Cli, url: str, *args: str) -> list[dict[str, object]]:
    return json.loads(cli.run("runs", "--json", "--url", url, *args).out)


def outputs(cli: Cli, url: str) -> list[object]:
    """What all runs returned, oldest first."""
    found = []
    for run in reversed(runs(cli, url)):
        found.append(json.loads(cli.run("runs", str(run["run_id"]), "--json", "--url", url).out)["run"]["output"])
    return found


def send(cli: Cli, url: str, order: str = "o1") -> None:
    result = cli.run("send", "shop/order.paid", json.dumps({"order_id": order}), "--url", url)
    assert result.code == 0, result.err


def page(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as response:
        return str(response.read().decode())


def dev(cli: Cli, *args: str, **env: str) -> tuple[Running, str]:
    running = cli.start("dev", "--port", "0", *args, **env)
    return running, running.url()


# -- starting --------------------------------------------------------------------------------------------------------


def test_the_banner_says_where_what_and_how(cli: Cli) -> None:
    cli.write("app.py", ANSWER.replace("{answer}", "one"))
    running, url = dev(cli, "app.py")
    assert running.wait_for(r"Event API +(\S+)").group(1) == f"{url}/e/dev"
    assert running.wait_for(r"Store +(\S+)").group(1) == "sqlite:///.holdfast/holdfast.db"
    running.wait_for(r"shop +app\.py")
    running.wait_for(r"fulfil +shop/order\.paid +4 retries")
    command = running.wait_for(r"^ +holdfast (send .*)$").group(1)

    result = cli.run(*shlex.split(command))
    assert result.code == 0, result.err
    event_url = result.out.splitlines()[-1].strip()
    assert event_url.startswith(f"{url}/events/")
    assert "shop/order.paid" in page(event_url)
    eventually(lambda: outputs(cli, url) == ["one"], "the run that the command started completed")

    assert (cli.directory / ".holdfast" / "holdfast.db").exists()
    assert (cli.directory / ".holdfast" / ".gitignore").read_text() == "*\n"
    assert running.end() == 0


def test_without_an_app_it_says_what_it_looked_for_and_finds_it_later(cli: Cli) -> None:
    running, url = dev(cli)
    running.wait_for(r"No app in this directory: none of app\.py, main\.py")
    assert cli.run("send", "a/b", "--url", url).code == 0
    cli.write("main.py", ANSWER.replace("{answer}", "late"))
    running.wait_for(r"Reloaded, main\.py changed: 1 app, 1 function")
    send(cli, url)
    eventually(lambda: "late" in outputs(cli, url), "the function of the new file ran")
    assert running.end() == 0


def test_an_app_that_can_not_be_loaded_ends_it_when_nothing_is_watched(cli: Cli) -> None:
    cli.write("app.py", "import nowhere_to_be_found\n")
    result = cli.run("dev", "app.py", "--no-reload", "--port", "0")
    assert result.code == 1
    assert "No module named 'nowhere_to_be_found'" in result.err
    assert "app.py:1" in result.err
    assert "Traceback" not in result.err


def test_production_keys_in_the_environment_do_not_lock_a_developer_out(cli: Cli) -> None:
    cli.write("app.py", ANSWER.replace("{answer}", "one"))
    running, url = dev(cli, "app.py", INNGEST_EVENT_KEY="e" * 32, INNGEST_SIGNING_KEY="signkey-prod-" + "0" * 64)
    send(cli, url)
    assert "shop" in page(url)
    assert running.end() == 0


def test_development_is_not_open_to_the_network(cli: Cli) -> None:
    result = cli.run("dev", "--host", "0.0.0.0", "--port", "0")
    assert result.code == 1
    assert "HOLDFAST_DASHBOARD_PASSWORD" in result.err


# -- refusing --------------------------------------------------------------------------------------------------------


def test_a_port_in_use_names_its_owner(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = cli.run("dev", "--port", str(port))
    assert (result.code, result.out) == (1, "")
    assert f"port {port} on 127.0.0.1 is in use by" in result.err
    assert f"(process {os.getpid()})" in result.err
    assert f"--port {port + 1}" in result.err


@pytest.mark.parametrize("reload", ["--reload", "--no-reload"])
def test_a_store_from_a_newer_holdfast_is_refused(cli: Cli, reload: str) -> None:
    cli.write("app.py", ANSWER.replace("{answer}", "one"))
    running, _ = dev(cli, "app.py")
    assert running.end() == 0
    database = sqlite3.connect(cli.directory / ".holdfast" / "holdfast.db")
    database.execute("INSERT INTO migrations (number, name, checksum, applied_at) VALUES (9999, 'future', 'x', 0)")
    database.commit()
    database.close()
    result = cli.run("dev", "app.py", "--port", "0", reload)
    assert result.code == 1
    assert "was written by a newer holdfast (schema 9999" in result.err
    assert "upgrade holdfast" in result.err
    assert result.err.count("error:") == 1 and "Traceback" not in result.err


@pytest.mark.parametrize("reload", ["--reload", "--no-reload"])
def test_a_second_application_on_one_store_is_refused(cli: Cli, reload: str) -> None:
    cli.write("app.py", ANSWER.replace("{answer}", "one"))
    running, _ = dev(cli, "app.py")
    assert running.end() == 0
    cli.write("other.py", 'from holdfast import App\napp = App("warehouse")\n')
    result = cli.run("dev", "other.py", "--port", "0", reload)
    assert result.code == 1
    assert "belongs to app shop, not to warehouse" in result.err
    assert "--store" in result.err


def test_a_store_that_another_process_has_open_is_refused(cli: Cli) -> None:
    cli.write("app.py", ANSWER.replace("{answer}", "one"))
    running, url = dev(cli, "app.py")
    result = cli.run("dev", "app.py", "--port", "0")
    assert result.code == 1
    assert "is in use by process" in result.err and "(app shop)" in result.err
    send(cli, url)
    eventually(lambda: outputs(cli, url) == ["one"], "the first one is unharmed")
    assert running.end() == 0


def test_a_store_that_is_no_database_is_refused(cli: Cli) -> None:
    cli.write("notes.db", "these are my notes, and nothing of SQLite's\n" * 100)
    result = cli.run("dev", "--port", "0", "--store", "notes.db")
    assert result.code == 1
    assert "notes.db" in result.err and "is it an SQLite file" in result.err
    assert (cli.directory / "notes.db").read_text().startswith("these are my notes")


# -- reloading -------------------------------------------------------------------------------------------------------


def test_a_change_is_loaded_and_no_request_is_lost_meanwhile(cli: Cli) -> None:
    cli.write("app.py", ANSWER.replace("{answer}", "one"))
    running, url = dev(cli, "app.py")
    send(cli, url, "before")
    eventually(lambda: outputs(cli, url) == ["one"], "the first version answered")

    statuses: list[int] = []
    lost: list[OSError] = []
    enough = threading.Event()

    def keep_sending() -> None:
        body = json.dumps({"name": "unheard/of", "data": {}}).encode()
        while not enough.is_set():
            request = urllib.request.Request(f"{url}/e/dev", body, {"content-type": "application/json"})
            try:
                with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                    statuses.append(response.status)
            except OSError as error:
                lost.append(error)

    senders = [threading.Thread(target=keep_sending) for _ in range(4)]
    for sender in senders:
        sender.start()
    try:
        for version in ("two", "three", "four"):
            count = len(statuses)
            eventually(lambda: len(statuses) > count + 10, "requests flow")
            cli.write("app.py", ANSWER.replace("{answer}", version))
            running.wait_for(r"Reloaded, app\.py changed: 1 app, 1 function")
    finally:
        enough.set()
        for sender in senders:
            sender.join()
    assert lost == []
    assert set(statuses) == {200}

    send(cli, url, "after")
    eventually(lambda: outputs(cli, url) == ["one", "four"], "the last version answered")
    assert running.end() == 0


def test_a_change_in_an_imported_module_of_another_directory_is_seen(cli: Cli) -> None:
    cli.write("parts/texts.py", 'ANSWER = "one"\n')
    cli.write("app.py", ANSWER.replace('lambda: "{answer}"', "lambda: texts.ANSWER").replace("import asyncio", "import asyncio\nfrom parts import texts"))
    running, url = dev(cli, "app.py")
    send(cli, url)
    eventually(lambda: outputs(cli, url) == ["one"], "the first version answered")
    cli.write("parts/texts.py", 'ANSWER = "two"\n')
    running.wait_for(r"Reloaded, parts/texts\.py changed")
    send(cli, url)
    eventually(lambda: outputs(cli, url) == ["one", "two"], "the second version answered")
    assert running.end() == 0


def test_an_import_error_shows_in_the_terminal_and_on_the_dashboard_and_goes_with_the_next_change(cli: Cli) -> None:
    cli.write("app.py", ANSWER.replace("{answer}", "one"))
    running, url = dev(cli, "app.py")
    cli.write("app.py", ANSWER.replace("{answer}", "two") + "\nraise RuntimeError('half <b>typed</b>')\n")
    running.wait_for(r"app\.py can't be loaded: RuntimeError: half <b>typed</b>")
    running.wait_for(r"^  app\.py:\d+, in <module>")
    running.wait_for(r"goes on without the app")
    home = page(url)
    assert "half &lt;b&gt;typed&lt;/b&gt;" in home
    assert json.loads(page(f"{url}/health"))["status"] == 200

    cli.write("app.py", ANSWER.replace("{answer}", "three"))
    running.wait_for(r"Reloaded")
    assert "half" not in page(url)
    send(cli, url)
    eventually(lambda: outputs(cli, url) == ["three"], "the mended version answered")
    assert running.end() == 0


def test_events_sent_while_the_app_is_broken_start_its_functions_later(cli: Cli) -> None:
    cli.write("app.py", ANSWER.replace("{answer}", "one"))
    running, url = dev(cli, "app.py")
    cli.write("app.py", "def broken(:\n")
    running.wait_for(r"goes on without the app")
    send(cli, url)
    (waiting,) = runs(cli, url)
    assert waiting["status"] == "Queued"
    cli.write("app.py", ANSWER.replace("{answer}", "two"))
    running.wait_for(r"Reloaded")
    eventually(lambda: outputs(cli, url) == ["two"], "the event was not lost")
    assert running.end() == 0


def test_a_run_that_was_cut_short_waits_for_its_broken_app(cli: Cli) -> None:
    cli.write("app.py", SLOW)
    running, url = dev(cli, "app.py")
    send(cli, url)
    eventually(lambda: lines(cli) == ["started"], "the step runs")
    cli.write("app.py", "def broken(:\n")
    os.kill(server_pid(cli), signal.SIGKILL)
    running.wait_for(r"goes on without the app")
    (cut,) = runs(cli, url)
    assert cut["status"] in {"Queued", "Running", "Waiting"}
    cli.write("go", "")
    cli.write("app.py", SLOW)
    running.wait_for(r"Reloaded")
    eventually(lambda: outputs(cli, url) == ["done"], "the run went on")
    assert not any("Traceback" in line or "KeyError" in line for line in running.lines)
    assert running.end() == 0


def test_starting_with_a_broken_app_waits_for_it_to_be_mended(cli: Cli) -> None:
    cli.write("app.py", "def broken(:\n")
    running = cli.start("dev", "app.py", "--port", "0")
    running.wait_for(r"app\.py can't be loaded: app\.py:1: SyntaxError")
    url = running.url()
    cli.write("app.py", ANSWER.replace("{answer}", "one"))
    running.wait_for(r"Reloaded")
    send(cli, url)
    eventually(lambda: outputs(cli, url) == ["one"], "the mended version answered")
    assert running.end() == 0


def test_an_app_whose_lifespan_fails_is_shown_and_mended(cli: Cli) -> None:
    lifespan = (
        "from contextlib import asynccontextmanager\n@asynccontextmanager\nasync def resources(app):\n"
        "    raise ConnectionError('the database is asleep')\n    yield\n"
    )
    text = ANSWER.replace("{answer}", "one")
    cli.write("app.py", lifespan + text.replace('App("shop")', 'App("shop", lifespan=resources)'))
    running = cli.start("dev", "app.py", "--port", "0")
    running.wait_for(r"the app can't start: ConnectionError: the database is asleep")
    url = running.url()
    assert "the database is asleep" in page(url)
    cli.write("app.py", text)
    running.wait_for(r"Reloaded")
    send(cli, url)
    eventually(lambda: outputs(cli, url) == ["one"], "the mended version answered")
    assert running.end() == 0


def test_an_app_renamed_while_it_runs_is_told_and_can_be_named_back(cli: Cli) -> None:
    cli.write("app.py", ANSWER.replace("{answer}", "one"))
    running, url = dev(cli, "app.py")
    cli.write("app.py", ANSWER.replace("{answer}", "one").replace('App("shop")', 'App("market")'))
    running.wait_for(r"belongs to app shop, not to market")
    running.wait_for(r"goes on without the app")
    assert "belongs to app shop, not to market" in page(url)
    cli.write("app.py", ANSWER.replace("{answer}", "two"))
    running.wait_for(r"Reloaded")
    send(cli, url)
    eventually(lambda: outputs(cli, url) == ["two"], "it runs under its own name again")
    assert running.end() == 0


def test_a_reload_lets_a_running_step_finish(cli: Cli) -> None:
    cli.write("app.py", SLOW)
    running, url = dev(cli, "app.py")
    send(cli, url)
    eventually(lambda: lines(cli) == ["started"], "the step runs")
    cli.write("app.py", SLOW + "\nVERSION = 2\n")
    running.wait_for(r"Waiting for 1 run to finish the current step")
    cli.write("go", "")
    running.wait_for(r"Reloaded")
    eventually(lambda: outputs(cli, url) == ["done"], "the run went on in the new process")
    assert lines(cli) == ["started", "finished"], "the step was not done twice"
    assert running.end() == 0


def test_a_reload_does_not_wait_for_ever(cli: Cli) -> None:
    cli.write("app.py", SLOW)
    running, url = dev(cli, "app.py")
    send(cli, url)
    eventually(lambda: lines(cli) == ["started"], "the step runs")
    cli.write("app.py", SLOW + "\nVERSION = 2\n")
    running.wait_for(r"A step is still running; the process is ended now, and that step will run again")
    running.wait_for(r"Reloaded")
    eventually(lambda: lines(cli) == ["started", "started"], "the step runs again")
    cli.write("go", "")
    eventually(lambda: outputs(cli, url) == ["done"], "and the run completes")
    assert running.end() == 0


# -- stopping --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reload", ["--reload", "--no-reload"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_a_running_step(cli: Cli, reload: str, number: int) -> None:
    cli.write("app.py", SLOW)
    running, url = dev(cli, "app.py", reload)
    send(cli, url)
    eventually(lambda: lines(cli) == ["started"], "the step runs")
    # as a terminal does it: the whole process group
    os.killpg(running.process.pid, number) if number == signal.SIGINT else running.process.send_signal(number)
    running.wait_for(r"aiting for 1 run to finish the current step")
    assert running.process.poll() is None
    cli.write("go", "")
    assert running.wait() == 0
    assert lines(cli) == ["started", "finished"]
    assert not any("Traceback" in line for line in running.lines)

    running, url = dev(cli, "app.py", reload)
    eventually(lambda: outputs(cli, url) == ["done"], "the run goes on after the recorded step")
    assert lines(cli) == ["started", "finished"], "the step was not done twice"
    assert running.end() == 0


@pytest.mark.parametrize("reload", ["--reload", "--no-reload"])
def test_a_second_signal_stops_at_once(cli: Cli, reload: str) -> None:
    cli.write("app.py", SLOW)
    running, url = dev(cli, "app.py", reload)
    send(cli, url)
    eventually(lambda: lines(cli) == ["started"], "the step runs")
    running.process.send_signal(signal.SIGINT)
    running.wait_for(r"aiting for 1 run to finish the current step")
    assert running.end(signal.SIGINT) == 130
    assert any("Stopped at once" in line for line in running.lines)

    cli.write("go", "")
    running, url = dev(cli, "app.py", reload)
    eventually(lambda: outputs(cli, url) == ["done"], "the run goes on at the next start")
    assert lines(cli) == ["started", "started", "finished"]
    assert running.end() == 0


def test_the_drain_has_a_limit(cli: Cli) -> None:
    cli.write("app.py", SLOW)
    running, url = dev(cli, "app.py", "--no-reload", "--drain", "0.5")
    send(cli, url)
    eventually(lambda: lines(cli) == ["started"], "the step runs")
    assert running.end() == 0
    assert lines(cli) == ["started"]


# -- dying -----------------------------------------------------------------------------------------------------------


def server_pid(cli: Cli) -> int:
    """The process that owns the store: the server, not its supervisor."""
    return int(json.loads((cli.directory / ".holdfast" / "holdfast.db-lock").read_text())["pid"])


def test_a_server_process_that_dies_is_started_again_and_its_runs_go_on(cli: Cli) -> None:
    cli.write("app.py", SLOW)
    running, url = dev(cli, "app.py")
    send(cli, url)
    eventually(lambda: lines(cli) == ["started"], "the step runs")
    os.kill(server_pid(cli), signal.SIGKILL)
    running.wait_for(r"The server process was ended by SIGKILL\. It starts again")
    cli.write("go", "")
    eventually(lambda: outputs(cli, url) == ["done"], "the run went on")
    assert lines(cli) == ["started", "started", "finished"]
    assert running.end() == 0


def test_the_server_process_does_not_outlive_its_supervisor(cli: Cli) -> None:
    cli.write("app.py", ANSWER.replace("{answer}", "one"))
    running, url = dev(cli, "app.py")
    child = server_pid(cli)
    assert child != running.process.pid
    running.process.kill()
    running.process.wait()
    eventually(lambda: not Path(f"/proc/{child}").exists(), "the server process ended")
    with socket.create_server(("127.0.0.1", int(url.rpartition(":")[2]))):
        pass  # the port is free again


def test_it_works_as_installed_with_a_file_named_like_a_library(cli: Cli) -> None:
    """The console script does not put the working directory before the libraries, and neither may the server process."""
    cli.write("json.py", "raise RuntimeError('imported in place of the standard library')\n")
    cli.write("app.py", ANSWER.replace("{answer}", "one"))
    running, url = dev(cli, "app.py", PYTHONSAFEPATH="1")
    assert running.end() == 0
