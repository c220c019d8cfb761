"""Writes protocol-coverage.md: the rows of protocol_rows.toml, each with the tests that say they show it.

Usage: python docs/reference/protocol_coverage.py [--check]
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = HERE / "protocol-coverage.md"
INTRODUCTION = """# The protocol, and the tests that show it

What Inngest's SDKs and the tools around them may rely on when holdfast is their server, and the tests that show it. Those
of `tests/compat` run the official SDKs for Python and TypeScript (versions 3 and 4) against `holdfast dev`, in full behind
FastAPI and Express, and a selection behind the other frameworks. `python docs/reference/protocol_coverage.py` writes this
page; a test fails when a row has no test.

Not there yet: workers that connect by websocket, realtime channels and streams, deferred functions, scores, metadata and experiments.
"""


def rows() -> dict[str, dict[str, str]]:
    """Rows by section: id and sentence."""
    sections = tomllib.loads((HERE / "protocol_rows.toml").read_text())["section"]
    return {section["title"]: section["rows"] for section in sections}


@cache
def shown() -> dict[str, list[str]]:
    """The tests that show each row."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        if "node_modules" in path.parts:
            continue
        for test, ids in _marked(ast.parse(path.read_text())):
            for row in ids:
                found[row].add(f"{path.relative_to(ROOT)}::{test}")
    return {row: sorted(tests) for row, tests in found.items()}


def _marked(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, list[str]]]:
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        name = prefix + node.name
        ids = [
            str(argument.value)
            for decorator in node.decorator_list
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.protocol"
            for argument in decorator.args
            if isinstance(argument, ast.Constant)
        ]
        if ids:
            yield name, ids
        if isinstance(node, ast.ClassDef):
            yield from _marked(node, f"{name}::")


def page() -> str:
    """The page as it should be."""
    tests = shown()
    parts = [INTRODUCTION]
    for title, section in rows().items():
        parts.append(f"\n## {title}\n\n| | shown by |\n|---|---|\n")
        for row, sentence in section.items():
            parts.append(f"| {sentence} | {_linked(tests.get(row, []))} |\n")
    return "".join(parts)


def _linked(tests: list[str]) -> str:
    out = []
    for test in tests:
        path, _, name = test.partition("::")
        out.append(f"[{name.rpartition('::')[2]}](../../{path})")
    return "<br>".join(out)


def main() -> None:
    if "--check" in sys.argv:
        sys.exit(0 if PAGE.read_text() == page() else f"{PAGE.name} is out of date; run python {sys.argv[0]}")
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
