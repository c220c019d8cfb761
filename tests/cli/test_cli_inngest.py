"""The options, variables and files with which people start `inngest dev`, given to `holdfast dev`."""

from __future__ import annotations

import json

import httpx
import pytest
from commandline import Cli

APP = """
from holdfast import App
app = App("shop")
"""


def started(cli: Cli, *args: str, port: int, **env: str):
    running = cli.start("dev", "--no-reload", "--store", "sqlite://", *args, **env)
    running.wait_for(rf"http://\S+:{port}")
    assert httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200
    return running


@pytest.mark.protocol("cli.flags")
def test_the_flags_with_which_suites_of_sdks_start_a_server(cli: Cli, free_port: int) -> None:
    flags = ["--no-discovery", "--no-poll", "-p", str(free_port), "--retry-interval", "1", "--tick", "10", "--queue-workers", "7"]
    running = started(cli, *flags, "--connect-gateway-port", "8289", "--persist", port=free_port)
    told = "\n".join(running.lines)
    assert "--tick means nothing here: nothing is polled for" in told
    assert "--connect-gateway-port means nothing here" in told
    assert "--persist means nothing here" in told
    assert running.end() == 0


@pytest.mark.protocol("cli.environment")
def test_variables_named_like_the_flags(cli: Cli, free_port: int, web) -> None:
    url = f"http://127.0.0.1:{free_port}"
    running = started(
        cli, port=free_port, INNGEST_PORT=str(free_port), INNGEST_NO_DISCOVERY="true", INNGEST_NO_POLL="1", INNGEST_TICK="10",
        INNGEST_SDK_URL="http://127.0.0.1:1/a,http://127.0.0.1:1/b http://127.0.0.1:1/c",
    )  # fmt: skip
    for path in "abc":
        running.wait_for(rf"http://127\.0\.0\.1:1/{path} could not be synced")
    assert httpx.get(f"{url}/dev", trust_env=False).status_code == 200
    assert running.end() == 0


@pytest.mark.protocol("cli.config")
def test_a_configuration_file_is_found_upwards_and_flags_win(cli: Cli, free_port: int) -> None:
    cli.write("inngest.json", json.dumps({"port": 1, "no-discovery": True, "sdk-url": ["http://127.0.0.1:1/told"], "signing-key": "no matter"}))
    running = started(cli, "--port", str(free_port), port=free_port)
    running.wait_for(r"http://127\.0\.0\.1:1/told could not be synced")
    assert running.end() == 0


@pytest.mark.protocol("cli.config")
def test_a_file_by_name(cli: Cli, free_port: int) -> None:
    cli.write("mine.json", json.dumps({"port": free_port, "discovery": False}))
    running = started(cli, "--config", "mine.json", port=free_port)
    assert running.end() == 0


@pytest.mark.protocol("cli.config")
@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("bad.json", "{port:", "can't be understood"),
        ("list.json", "[1]", "must hold an object of options"),
        ("gone.json", None, "can't be read: No such file"),
    ],
)
def test_a_file_that_is_of_no_use(cli: Cli, name: str, content: str | None, told: str) -> None:
    if content is not None:
        cli.write(name, content)
    result = cli.run("dev", "--config", name)
    assert result.code == 1
    assert told in result.err


@pytest.mark.protocol("cli.flags")
def test_the_store_by_a_directory(cli: Cli, free_port: int) -> None:
    running = cli.start("dev", "--no-reload", "--no-discovery", "--port", str(free_port), "--sqlite-dir", "kept")
    running.wait_for(r"Store +sqlite:///kept/holdfast\.db")
    assert running.end() == 0
    assert (cli.directory / "kept" / "holdfast.db").exists()
