"""`holdfast functions`, `limits`, `pause`, `resume` and `flush` against a real server with runs that wait."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from commandline import Cli, Result

APP = """
import asyncio
from pathlib import Path
from holdfast import App, Concurrency, Context, Debounce

app = App("shop")

async def until_open() -> None:
    while not Path("open").exists():
        await asyncio.sleep(0.05)

@app.function("shop/work", id="fulfil", concurrency=Concurrency(1, key="event.data.who"))
async def fulfil(ctx: Context) -> None:
    await ctx.step.run("wait", until_open)

@app.function("shop/quiet", debounce=Debounce("1h", key="event.data.who"))
async def quiet(ctx: Context) -> str:
    return "flushed"

@app.function("shop/plain")
async def plain(ctx: Context) -> None: ...
"""

Shop = tuple[Cli, str]


@pytest.fixture
def shop(cli: Cli) -> Iterator[Shop]:
    cli.write("app.py", APP)
    running = cli.start("dev", "app.py", "--port", "0", "--no-reload")
    yield cli, running.url()
    cli.write("open", "")
    assert running.end() == 0


def command(shop: Shop, *args: str, code: int = 0) -> Result:
    cli, url = shop
    done = cli.run(*args, INNGEST_BASE_URL=url)
    assert done.code == code, done.err
    return done


def send(shop: Shop, name: str, who: str) -> str:
    return command(shop, "send", name, json.dumps({"who": who}), "--json").out


def test_what_waits_is_listed_and_a_limit_is_changed(shop: Shop):
    for _ in range(3):
        send(shop, "shop/work", "user-7")
    listed = command(shop, "functions").out
    assert re.search(r"shop-fulfil +running +2 .* 1 +concurrency 2", listed)
    assert re.search(r"shop-plain +running +0", listed)
    (fulfil,) = [one for one in json.loads(command(shop, "functions", "--json").out) if one["function"] == "shop-fulfil"]
    assert fulfil["backlog"]["delayed"] == {"concurrency": 2}
    limits = command(shop, "limits").out
    assert re.search(r"concurrency +1 +1 +2 .*at most 1 step at once, for each event.data.who", limits)
    assert re.search(r"user-7 +1 +2", limits)
    assert "debounce" in limits
    assert "shop-plain" not in limits
    runs = json.loads(command(shop, "runs", "--json").out)
    (last, *_) = runs
    assert "Concurrency key user-7: 1 of 1 place taken, 2nd in line." in command(shop, "runs", last["run_id"]).out
    assert "2 (code: 1)" in command(shop, "limits", "fulfil", "--set", "concurrency=2").out
    (changed,) = json.loads(command(shop, "limits", "shop-fulfil", "--json").out)
    assert (changed["rules"][0]["limit"], changed["rules"][0]["declared"]) == (2, 1)
    assert "(code:" not in command(shop, "limits", "fulfil", "--reset", "concurrency").out
    assert "limits are declared in code" in command(shop, "limits", "plain").err


def test_a_function_is_paused_and_resumed(shop: Shop):
    assert "shop-plain is not paused" in command(shop, "resume", "plain").out
    assert command(shop, "pause", "plain").out.startswith("shop-plain is paused: 0 in line.")
    send(shop, "shop/plain", "a")
    assert re.search(r"shop-plain +paused +1 .*paused 1", command(shop, "functions").out)
    assert "events that come start nothing" in command(shop, "pause", "shop-plain", "--skip").out
    assert "paused, skipping events" in command(shop, "functions").out
    assert command(shop, "resume", "plain").out == "shop-plain goes on.\n"
    assert re.search(r"shop-plain +running", command(shop, "functions").out)


def test_a_debounce_is_flushed_alone_or_with_all(shop: Shop):
    for who in "abc":
        send(shop, "shop/quiet", who)
    assert "No debounce or batch of key 'z'" in command(shop, "flush", "quiet", "--key", "z").out
    assert command(shop, "flush", "quiet", "--key", "a").out == "Started 1 run of shop-quiet.\n"
    assert command(shop, "flush", "shop-quiet").out == "Started 2 runs of shop-quiet.\n"
    assert len(json.loads(command(shop, "runs", "--json", "--function", "quiet").out)) == 3


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (["pause", "zzz"], 1, "there is no function 'zzz'; `holdfast functions` lists those there are"),
        (["pause", "shop-fulfill"], 1, "did you mean 'shop-fulfil'?"),
        (["limits", "fulfil", "--set", "throttle=3"], 1, "has no limit 'throttle'; it has concurrency"),
        (["limits", "fulfil", "--set", "concurrency=0"], 1, "a limit is a whole number of 1 or more, not 0"),
        (["limits", "fulfil", "--set", "concurrency"], 2, "--set takes RULE=N, such as concurrency=10, not 'concurrency'"),
        (["limits", "--set", "concurrency=3"], 2, "name the function whose limit is to change"),
    ],
)
def test_what_is_not_possible_is_said_in_a_sentence(shop: Shop, args: list[str], code: int, told: str):
    done = command(shop, *args, code=code)
    assert told in " ".join(done.err.split())
    assert "Traceback" not in done.err


@pytest.mark.parametrize("args", [["functions"], ["limits"], ["pause", "x"], ["resume", "x"], ["flush", "x"]])
def test_without_a_server_each_says_so(cli: Cli, free_port: int, args: list[str]):
    done = cli.run(*args, "--url", f"http://127.0.0.1:{free_port}")
    assert done.code == 1
    assert "no holdfast server answers" in done.err
