"""The documentation is true: its blocks run, its links lead somewhere, and the reference leaves nothing out.

A block ```` ```python run ```` is executed as a program of its own, with the real engine; a ```` ```text output ```` after it is
what it prints. ```` ```python file=name ```` is saved first, for the blocks and commands after it. Other blocks are parsed.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from ports import free_port

import holdfast
from holdfast import HoldfastError
from holdfast.base import errors
from holdfast.compose import EngineOptions
from holdfast.serve.settings import ServeOptions
from holdfast.server.app import OPERATIONS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)


@dataclass
class Block:
    page: Path
    info: str
    body: str
    line: int

    @property
    def words(self) -> list[str]:
        return self.info.split()


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(page, found["info"].strip(), textwrap.dedent(found["body"]), text[: found.start()].count("\n") + 1)
        for found in FENCE.finditer(text)
    ]


def title(value: Block | Path) -> str:
    if isinstance(value, Path):
        return str(value.relative_to(ROOT))
    return f"{value.page.relative_to(ROOT)}:{value.line}"


ALL = [(page, blocks_of(page)) for page in PAGES]
RUNNABLE = [
    (block, following.body if following is not None and following.words == ["text", "output"] else None)
    for _, blocks in ALL
    for block, following in zip(blocks, [*blocks[1:], None], strict=False)
    if block.words[:2] == ["python", "run"]
]
PARSED = [block for _, blocks in ALL for block in blocks if block.words[:1] == ["python"] and "run" not in block.words]


def on_a_free_port(code: str) -> str:
    return code.replace("127.0.0.1:8288", f"127.0.0.1:{free_port()}")


def named_files(page: Path) -> list[tuple[str, Block]]:
    return [(word[5:], block) for block in blocks_of(page) for word in block.words if word.startswith("file=")]


@pytest.mark.parametrize(("block", "output"), RUNNABLE, ids=lambda value: title(value) if isinstance(value, Block) else "")
def test_a_block_runs_and_prints_what_the_page_says(block, output, tmp_path):
    for name, other in named_files(block.page):
        if other.line < block.line:
            (tmp_path / name).write_text(other.body)
    for other in blocks_of(block.page):
        name = re.search(r"\bfile=(\S+)", other.info)
        if name and other.line < block.line:
            (tmp_path / name[1]).write_text(other.body)
    (tmp_path / "block.py").write_text(on_a_free_port(block.body))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("INNGEST_", "HOLDFAST_"))}
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "block.py"], cwd=tmp_path, env=environment, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert output is None or done.stdout == output


@pytest.mark.parametrize("block", PARSED, ids=title)
def test_a_fragment_is_python(block):
    code = block.body
    if re.search(r"^@app\.function\(.*\n(?=@|\Z)", code, re.MULTILINE):
        # decorators on their own, to be compared with each other
        code = re.sub(r"^(@app\.function\(.*)$", r"\1\ndef function(): ...", code, flags=re.MULTILINE)
    compile(code, title(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_there_are_blocks_that_run():
    assert len(RUNNABLE) > 8
    assert sum(output is not None for _, output in RUNNABLE) > 8


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(FENCE, "", page.read_text())):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        goal = (page.parent / path).resolve() if path else page
        assert goal.exists(), f"{title(page)} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", goal.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{title(page)} links to {target}; {goal.name} has {sorted(slugs)}"


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_pages_keep_to_the_house(page):
    text = page.read_text()
    assert text.startswith("# ")
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert not re.search(r"/work/|/tmp/|localhost:(?!8288|8080|8000)", text)


def test_every_page_is_in_the_index():
    index = (DOCS / "index.md").read_text()
    missing = [page for page in DOCS.rglob("*.md") if page.name != "index.md" and str(page.relative_to(DOCS)) not in index]
    assert not missing


def reference(name: str) -> str:
    return (DOCS / "reference" / name).read_text()


def headings(name: str) -> set[str]:
    return set(re.findall(r"^#+ `?([^`\n]+)`?$", reference(name), re.MULTILINE))


@pytest.mark.parametrize("name", [name for name in holdfast.__all__ if not name.startswith("_")])
def test_every_public_name_is_in_the_reference(name):
    value = getattr(holdfast, name)
    if inspect.isclass(value) and issubclass(value, BaseException):
        assert f"`{name}`" in reference("errors.md")
    else:
        assert name in headings("api.md"), f"docs/reference/api.md has no section for {name}"


def public_members() -> list[tuple[str, str]]:
    classes = [value for name in holdfast.__all__ if inspect.isclass(value := getattr(holdfast, name))]
    skipped = {"bind", "unbind", "declare_all", "outgoing"}
    return [
        (cls.__name__, member)
        for cls in classes
        if not issubclass(cls, BaseException)
        for member, value in vars(cls).items()
        if not member.startswith(("_", "model_")) and callable(getattr(value, "__func__", value)) and member not in skipped
        and cls.__name__ not in {"StepCall"}
    ]  # fmt: skip


@pytest.mark.parametrize(("cls", "member"), public_members())
def test_every_public_method_is_in_the_reference(cls, member):
    assert re.search(rf"\b{member}\b", reference("api.md")), f"docs/reference/api.md does not mention {cls}.{member}"


def test_every_setting_of_a_function_is_in_the_reference():
    text = reference("api.md")
    assert [name for name in holdfast.FunctionSettings.__annotations__ if f"`{name}`" not in text] == []


def every_error() -> list[type[HoldfastError]]:
    return [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, HoldfastError)]


@pytest.mark.parametrize("error", every_error(), ids=lambda error: error.__name__)
def test_every_error_is_in_the_reference_with_its_code(error):
    row = next((line for line in reference("errors.md").splitlines() if line.startswith(f"| `{error.__name__}`")), None)
    assert row is not None
    assert f"`{error.code}`" in row


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
def test_every_route_is_in_the_reference(operation):
    assert f"`{operation.method} {operation.path}`" in reference("http-api.md")
    mentioned = set(re.findall(r"`(?:GET|POST|DELETE|PUT) ([^`?]+)`", reference("http-api.md")))
    known = {known.path for known in OPERATIONS} | {"/e/{key}", "/openapi.json", "/docs", "/login", "/logout"}
    assert mentioned <= known


def test_every_command_and_option_is_in_the_reference():
    text = reference("cli.md")
    # a subprocess, because that is how it is used, and it loads its commands one by one
    commands = [
        "dev", "start", "send", "runs", "cancel", "rerun", "crons", "crons run", "redrive", "nodes", "functions", "limits", "pause", "resume",
        "flush", "audit", "keys new", "migrate", "backup", "restore", "doctor", "version",
    ]
    for command in commands:
        assert f"## `holdfast {command}" in text
        done = subprocess.run([sys.executable, "-m", "holdfast", *command.split(), "--help"], capture_output=True, text=True, check=True)
        section = text.split(f"## `holdfast {command}")[1].split("\n## ")[0]
        for option in re.findall(r"^  (?:-\w, )?(--[a-z-]+)", done.stdout, re.MULTILINE):
            assert option == "--help" or option in section, f"holdfast {command} {option}"
    listed = subprocess.run([sys.executable, "-m", "holdfast", "--help"], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^  (\w+)  ", listed.split("Commands:")[1], re.MULTILINE)
    assert {command.split()[0] for command in commands} == set(found)
    assert click  # the commands are click's


def test_every_environment_variable_is_in_the_reference():
    text = reference("configuration.md")
    found: set[str] = set()
    for source in (ROOT / "src/holdfast").rglob("*.py"):
        found |= set(re.findall(r"[\"'`](?:HOLDFAST|INNGEST)_[A-Z_]+\b", source.read_text()))
    assert [name for name in sorted({name[1:] for name in found}) if f"`{name}`" not in text] == []


def test_every_option_of_a_serve_route_is_in_the_reference():
    section = reference("configuration.md").split("## Serve routes")[1].split("\n## ")[0]
    assert [name for name in ServeOptions.__annotations__ if f"`{name}`" not in section] == []


def test_every_option_of_the_engine_is_in_the_reference():
    text = reference("configuration.md")
    units = {"keep_runs_ms": "7 days", "keep_dead_letters_ms": "90 days"}
    for option in dataclasses.fields(EngineOptions):
        row = next((line for line in text.splitlines() if line.startswith(f"| `{option.name}` |")), None)
        assert row is not None, option.name
        default = f"{option.default:g}" if type(option.default) in {int, float} else option.default
        assert f"| {units.get(option.name, default)} |" in row


def test_every_metric_is_in_the_reference():
    text = reference("metrics.md")
    found: set[str] = set()
    for source in ("engine/metrics.py", "server/metrics.py"):
        found |= set(re.findall(r"\"(holdfast_[a-z_]+)\"", (ROOT / "src/holdfast" / source).read_text()))
    assert len(found) > 8
    assert [name for name in sorted(found - {"holdfast_"}) if f"`{name}" not in text] == []
