"""The group, keys, sending and the socket: what needs no server."""

from __future__ import annotations

import inspect
import json
import os
import re
import select
import socket
import sys
from pathlib import Path

import pytest
from commandline import Cli, reply

from holdfast.base.errors import ConfigurationError
from holdfast.cli.commands import COMMANDS, main
from holdfast.cli.keys import new_event_key, new_signing_key
from holdfast.cli.listening import PortInUseError, listen
from holdfast.cli.watching import SourceWatch
from holdfast.server.keys import check_signing_key


def test_help_names_every_command_and_each_explains_itself(cli: Cli) -> None:
    overview = cli.run("--help")
    assert overview.code == 0
    for name, (_, summary) in COMMANDS.items():
        assert re.search(rf"^  {name}\s+{re.escape(summary)}$", overview.out, re.MULTILINE), name
        command = main.get_command(None, name)  # type: ignore[arg-type]
        paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
        assert paragraphs[0] == summary
        assert len(paragraphs) >= 2
        assert paragraphs[-1].startswith("\b") and f"holdfast {name}" in paragraphs[-1], f"{name} shows no examples"


def test_help_imports_no_command(cli: Cli) -> None:
    code = "import sys; from holdfast.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n" \
        "print([m for m in sys.modules if m.startswith(('holdfast.cli.', 'holdfast.server', 'holdfast.engine', 'starlette', 'rich', 'cel', 'prompt_toolkit', 'uvicorn', 'jinja2'))])"
    result = cli.run_python(code)
    assert result.out.splitlines()[-1] == "['holdfast.cli.commands']"


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["dve"], "did you mean `holdfast dev`?"),
        (["app.py"], "`holdfast dev app.py`"),
        (["xyz"], "the commands are dev, start"),
    ],
)
def test_an_unknown_command_is_answered_with_a_remedy(cli: Cli, args: list[str], expected: str) -> None:
    result = cli.run(*args)
    assert (result.code, result.out) == (2, "")
    assert expected in result.err


def test_versions(cli: Cli) -> None:
    found = json.loads(cli.run("version", "--json").out)
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert cli.run("--version").out == f"holdfast {found['holdfast']}\n"


# -- keys ------------------------------------------------------------------------------------------------------------


def test_new_keys_are_an_environment_file_on_standard_output_alone(cli: Cli) -> None:
    result = cli.run("keys", "new")
    keys = dict(line.split("=", 1) for line in result.out.splitlines())
    assert set(keys) == {"INNGEST_EVENT_KEY", "INNGEST_SIGNING_KEY"}
    assert re.fullmatch(r"signkey-prod-[0-9a-f]{64}", keys["INNGEST_SIGNING_KEY"])
    assert re.fullmatch(r"[0-9a-f]{64}", keys["INNGEST_EVENT_KEY"])
    assert "shown once" in result.err
    for value in keys.values():
        assert value not in result.err


def test_keys_differ_and_are_accepted_by_the_server() -> None:
    assert len({new_event_key() for _ in range(100)} | {new_signing_key() for _ in range(100)}) == 200
    check_signing_key(new_signing_key(), "the key")


# -- sending ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "stdin", "expected"),
    [
        (["{order_id: o1}"], None, "Put single quotes around the whole"),
        (["not json"], None, "DATA is not JSON"),
        (["[1]"], None, "must be a JSON object such as {\"order_id\": \"o1\"}, not an array"),
        (["null"], None, "not null"),
        (["-"], "", "standard input is not JSON"),
        (["{}", "--at", "tomorrow"], None, "--at 'tomorrow' is not a time"),
        (["{}", "--url", "localhost:8288"], None, "'localhost:8288' is not the address of a server"),
    ],
)
def test_what_can_not_be_sent_is_a_sentence(cli: Cli, args: list[str], stdin: str | None, expected: str) -> None:
    result = cli.run("send", "a/b", *args, input=stdin)
    assert (result.code, result.out) == (1, "")
    assert expected in result.err
    assert result.err.startswith("error: ") and "Traceback" not in result.err


def test_no_server(cli: Cli, free_port: int) -> None:
    result = cli.run("runs", "--url", f"http://127.0.0.1:{free_port}")
    assert result.code == 1
    assert f"no holdfast server answers at http://127.0.0.1:{free_port}: connection refused" in result.err
    assert "holdfast dev" in result.err
    result = cli.run("runs", INNGEST_BASE_URL=f"http://127.0.0.1:{free_port}")
    assert "The address comes from INNGEST_BASE_URL" in result.err


def test_a_proxy_is_not_asked_about_this_machine(cli: Cli, free_port: int) -> None:
    result = cli.run("runs", "--url", f"http://127.0.0.1:{free_port}", http_proxy="http://127.0.0.1:1")
    assert f"127.0.0.1:{free_port}: connection refused" in result.err


def test_a_server_that_is_not_holdfast(cli: Cli, web) -> None:
    url = web(lambda h: reply(h, 200, "<html>", content_type="text/html"))
    assert "answers with text/html, not JSON: is that a holdfast server?" in cli.run("runs", "--url", url).err
    url = web(lambda h: reply(h, 404, "gone", content_type="text/plain"))
    assert "answers 404 with text/plain: is that a holdfast server?" in cli.run("runs", "--url", url).err
    url = web(lambda h: reply(h, 200, '{"data": [{"id": 1}], "metadata": {"fetched_at": ""}}'))
    assert "is it a holdfast server of the same version?" in cli.run("runs", "--url", url).err


# -- the socket ------------------------------------------------------------------------------------------------------


def test_a_port_in_use_names_who_has_it() -> None:
    with listen("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(PortInUseError) as caught:
            listen("127.0.0.1", port)
    assert f"port {port} on 127.0.0.1 is in use by" in str(caught.value)
    assert "--port" in str(caught.value)
    if sys.platform == "linux":
        assert f"(process {os.getpid()})" in str(caught.value)


def test_connections_wait_until_somebody_accepts_them() -> None:
    with listen("127.0.0.1", 0) as sock:
        with socket.create_connection(sock.getsockname(), timeout=5) as client:
            client.sendall(b"x")
            assert select.select([sock], [], [], 5)[0]
            server, _ = sock.accept()
            with server:
                assert server.recv(1) == b"x"


@pytest.mark.parametrize(("host", "expected"), [("no-such-host.invalid", "can't listen on"), ("192.0.2.1", "is no address of this machine")])
def test_an_address_that_can_not_be_used(host: str, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        listen(host, 0)


# -- watching --------------------------------------------------------------------------------------------------------


def test_written_made_and_removed_files_are_noticed_once(tmp_path: Path) -> None:
    kept, gone = tmp_path / "kept.py", tmp_path / "gone.py"
    kept.write_text("1")
    gone.write_text("1")
    watch = SourceWatch([tmp_path])
    assert watch.changed() == []
    kept.write_text("22")
    gone.unlink()
    (tmp_path / "new.py").write_text("1")
    (tmp_path / "data.txt").write_text("1")
    assert watch.changed() == [str(gone), str(kept), str(tmp_path / "new.py")]
    assert watch.changed() == []


def test_a_file_replaced_by_renaming_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "app.py"
    path.write_text("1")
    watch = SourceWatch([tmp_path])
    stat = path.stat()
    (tmp_path / "app.tmp").write_text("2")
    os.utime(tmp_path / "app.tmp", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (tmp_path / "app.tmp").rename(path)
    assert watch.changed() == [str(path)]


def test_a_directory_learnt_late_tells_what_was_written_since(tmp_path: Path) -> None:
    path = tmp_path / "app.py"
    path.write_text("1")
    written = path.stat().st_mtime_ns
    assert SourceWatch().add([str(tmp_path)], since=written - 1)
    assert not SourceWatch().add([str(tmp_path)], since=written)
    watch = SourceWatch([tmp_path])
    assert not watch.add([str(tmp_path)], since=0), "a directory already watched is passed over"


def test_a_directory_that_goes_and_comes_back(tmp_path: Path) -> None:
    directory = tmp_path / "package"
    watch = SourceWatch([directory])
    assert watch.changed() == []
    directory.mkdir()
    (directory / "a.py").write_text("1")
    assert watch.changed() == [str(directory / "a.py")]

