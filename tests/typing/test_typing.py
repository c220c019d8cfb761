"""P1: what mypy and pyright say about code that uses holdfast: which lines are errors, and what every type is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EXAMPLES = sorted(path for path in HERE.glob("*.py") if not path.name.startswith("test_"))
README_TYPES = {
    "    await ctx.step.sleep(": [("charge", "str"), ("parcel", "int"), ("order", "OrderPaid")],
    "    if shipped is None:": [("shipped", "ReceivedEvent[OrderShipped] | None")],
    "async def main() -> None:": [("fulfil", "Function[OrderPaid, str]"), ("make_receipt", "Function[ReceiptWanted, str]")],
}

Errors = dict[tuple[str, int], list[str]]
"""File name and line -> messages."""


@cache
def mypy(paths: tuple[Path, ...]) -> Errors:
    # of its own, so that no other process writes it at the same time
    cache = ROOT / ".mypy_cache" / f"typing-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-pretty", "--no-error-summary", f"--cache-dir={cache}", *map(str, paths)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    names = {path.name for path in paths}
    errors: Errors = defaultdict(list)
    for line in done.stdout.splitlines():
        found = re.match(r"(.+?):(\d+): error: (.*)", line)
        if found and Path(found[1]).name in names:
            errors[Path(found[1]).name, int(found[2])].append(found[3])
    return errors


@cache
def pyright(paths: tuple[Path, ...]) -> Errors:
    folder = paths[0].parent
    config = json.loads((HERE / "pyrightconfig.json").read_text()) | {"extraPaths": [str(ROOT / "src")]}
    if folder != HERE:
        (folder / "pyrightconfig.json").write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "--project", str(folder)],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    names = {path.name for path in paths}
    errors: Errors = defaultdict(list)
    for found in json.loads(done.stdout)["generalDiagnostics"]:
        name = Path(found["file"]).name
        if found["severity"] == "error" and name in names:
            errors[name, found["range"]["start"]["line"] + 1].append(found["message"])
    return errors


CHECKERS = [pytest.param(mypy, id="mypy"), pytest.param(pyright, id="pyright")]


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.parametrize("checker", CHECKERS)
def test_exactly_the_marked_lines_are_errors(checker, path):
    marked = {number for number, line in enumerate(path.read_text().splitlines(), 1) if line.endswith("# error")}
    errors = {line: messages for (name, line), messages in checker(tuple(EXAMPLES)).items() if name == path.name}
    missed = marked - errors.keys()
    unexpected = {line: messages for line, messages in errors.items() if line not in marked}
    assert not missed, f"accepted, though marked as an error: {path.name}, lines {sorted(missed)}"
    assert not unexpected
    assert bool(marked) == path.name.startswith("reject_")


@pytest.mark.slow
@pytest.mark.parametrize("checker", CHECKERS)
def test_every_type_in_the_example_is_known(checker, tmp_path):
    lines = ["from typing import assert_type", "from holdfast import Function, ReceivedEvent"]
    expected = dict(README_TYPES)
    for line in (HERE / "readme_example.py").read_text().splitlines():
        for start in [start for start in expected if line.startswith(start)]:
            indent = " " * (len(line) - len(line.lstrip()))
            lines += [f"{indent}assert_type({name}, {kind})" for name, kind in expected.pop(start)]
        lines.append(line)
    assert not expected, "the example has changed; say again where its types are to be looked at"
    copy = tmp_path / "example_with_types.py"
    copy.write_text("\n".join(lines) + "\n")
    assert checker((copy,)) == {}
    wrong = tmp_path / "example_with_a_wrong_type.py"
    wrong.write_text("\n".join(lines).replace("assert_type(charge, str)", "assert_type(charge, int)") + "\n")
    assert len(checker((wrong,))) == 1, "the check itself must be able to fail"


@pytest.mark.slow
@pytest.mark.parametrize("package", ["base", "sdk"])
def test_pyright_finds_nothing_in_what_users_see(package):
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, f"src/holdfast/{package}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_the_readme_shows_the_example():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert (HERE / "readme_example.py").read_text() in blocks


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "src/holdfast/py.typed").exists()
