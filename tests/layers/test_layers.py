"""The layers of the package, and the few things that only one place may do. Every rule is also shown to fail."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "holdfast"

ROWS = (
    {"__main__"},
    {"cli", "testing"},
    {"serve"},
    {"compose", "embedded"},
    {"server"},
    {"dashboard"},
    {"engine", "sinks", "neighbours"},
    {"sdk", "wire"},
    {"store"},
    {"core"},
    {"base"},
)
"""Top to bottom. A module imports from its own package and from rows below; packages of one row don't know each other."""

SURFACE_USERS = {"cli", "testing"}
"""Packages that, like users, may import `holdfast` itself. Below them it would be a way around the rows."""

LAZY_IMPORTS = {
    ("holdfast.sdk.app", "holdfast.compose"),
    ("holdfast.compose", "holdfast.store.postgres"),
    ("holdfast.compose", "holdfast.store.postgres.reader"),
    ("holdfast.cli.postgres_checks", "holdfast.store.postgres.inspection"),
    ("holdfast.cli.stores", "holdfast.store.postgres"),
    ("holdfast.cli.stores", "holdfast.store.postgres.copying"),
    ("holdfast.cli.stores", "holdfast.store.postgres.connection"),
}
"""Imports of holdfast inside a function: only where an app composes itself with an engine that it must not know, and where
a store needs a driver that not everybody has installed."""

CLOCKS = re.compile(
    r"time\.(time|time_ns|monotonic|monotonic_ns|perf_counter|perf_counter_ns|sleep)"
    r"|datetime\.datetime\.(now|utcnow|today)|datetime\.date\.today"
)
RANDOM = re.compile(r"random\.\w+(\.\w+)*")
TIME_AND_CHANCE_IN = {"holdfast.base.clock", "holdfast.base.ids", "holdfast.base.retry"}

SLEEP = "asyncio.sleep"
SLEEP_IN = {"cli", "server", "dashboard"}
"""Waits of the process itself, such as the pings of a stream or a supervisor's restarts, are in real time. Everything
that durable work depends on goes through `Clock.call_at`, so that a test's clock can move it. `asyncio.sleep(0)`
waits for nothing and is free to all."""

SQL = re.compile(
    r"\s*(SELECT\s|INSERT\s+(INTO|OR)\s|REPLACE\s+INTO\s|UPDATE\s|DELETE\s+FROM\b|WITH\s+(RECURSIVE\s+)?\w+\s+AS\b"
    r"|PRAGMA\s|(CREATE|ALTER|DROP)\s+(OR\s+REPLACE\s+)?(UNIQUE\s+)?(TEMP\s+)?(TABLE|INDEX|VIEW|TRIGGER|SCHEMA|TYPE|FUNCTION)\b)"
)
"""The start of a statement. `DELETE` and friends alone are HTTP methods and plain words."""

CODE_FROM_DATA = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}
CODE_FROM_TEXT = {"eval", "exec", "compile", "__import__"}


@dataclass
class Module:
    name: str
    tree: ast.Module
    is_package: bool
    imports: list[Import] = field(default_factory=list)

    @property
    def top(self) -> str:
        """The package or module of the table that it belongs to."""
        return self.name.split(".")[1] if "." in self.name else ""


@dataclass(frozen=True)
class Import:
    target: str
    line: int
    lazy: bool


# -- reading the tree ------------------------------------------------------------------------------------------------


def load(sources: Mapping[str, str]) -> dict[str, Module]:
    """Modules by name, from source text by path below `src`."""
    modules = {}
    for path, source in sources.items():
        parts = path.removesuffix(".py").split("/")
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        modules[name] = Module(name, ast.parse(source, path), is_package)
    for module in modules.values():
        module.imports = list(dict.fromkeys(holdfast_imports(module, modules)))
    return modules


def holdfast_imports(module: Module, modules: Mapping[str, Module]) -> Iterator[Import]:
    for node, lazy in walk(module.tree, in_function=False):
        for target in import_targets(node, module, modules):
            if target.split(".")[0] == "holdfast":
                yield Import(target, getattr(node, "lineno", 0), lazy)


def walk(node: ast.AST, *, in_function: bool) -> Iterator[tuple[ast.AST, bool]]:
    """Every node below one, and whether it is inside a function."""
    for child in ast.iter_child_nodes(node):
        yield child, in_function
        inside = in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from walk(child, in_function=inside)


def import_targets(node: ast.AST, module: Module, modules: Mapping[str, Module]) -> Iterator[str]:
    match node:
        case ast.Import():
            yield from (alias.name for alias in node.names)
        case ast.ImportFrom():
            base = node.module or ""
            if node.level:
                package = module.name.split(".") if module.is_package else module.name.split(".")[:-1]
                base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
            for alias in node.names:
                submodule = f"{base}.{alias.name}"
                yield submodule if submodule in modules else base
        case ast.Call(func=ast.Name(id="import_module") | ast.Attribute(attr="import_module")) if node.args:
            if isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
                yield node.args[0].value


def qualified_uses(module: Module) -> Iterator[tuple[str, ast.ImportFrom | ast.Attribute]]:
    """Every dotted name that starts at an import, spelled in full: `t.sleep` after `import time as t` is `time.sleep`."""
    known: dict[str, str] = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                known[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield f"{node.module}.{alias.name}", node
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute):
            parts: list[str] = []
            inner: ast.expr = node
            while isinstance(inner, ast.Attribute):
                parts.append(inner.attr)
                inner = inner.value
            if isinstance(inner, ast.Name) and inner.id in known:
                yield ".".join([known[inner.id], *reversed(parts)]), node


# -- the rules -------------------------------------------------------------------------------------------------------


def layer_violations(modules: Mapping[str, Module]) -> list[str]:
    row_of = {name: index for index, row in enumerate(ROWS) for name in row}
    found: list[str] = []
    for module in modules.values():
        if module.name == "holdfast":
            continue  # the public surface
        if module.top not in row_of:
            found.append(f"{module.name}: {module.top!r} has no row in the table of layers")
            continue
        for item in module.imports:
            target = item.target.split(".")[1] if "." in item.target else ""
            if not target:
                if module.top in SURFACE_USERS:
                    continue
                found.append(
                    f"{module.name}:{item.line} imports the public surface; import the module that defines the name"
                )
            elif target == module.top or (module.name, item.target) in LAZY_IMPORTS:
                continue
            elif target not in row_of:
                found.append(
                    f"{module.name}:{item.line} imports {item.target}, which has no row in the table of layers"
                )
            elif row_of[target] <= row_of[module.top]:
                found.append(f"{module.name}:{item.line} imports {item.target}, which is not in a row below")
    return found


def lazy_violations(modules: Mapping[str, Module]) -> list[str]:
    return [
        f"{module.name}:{item.line} imports {item.target} inside a function"
        for module in modules.values()
        for item in module.imports
        if item.lazy and (module.name, item.target) not in LAZY_IMPORTS
    ]


def cycles(modules: Mapping[str, Module]) -> list[str]:
    """Import cycles between modules, those for type checkers only and the lazy ones included."""
    edges = {
        module.name: sorted(
            {i.target for i in module.imports if i.target in modules and (module.name, i.target) not in LAZY_IMPORTS}
        )
        for module in modules.values()
    }
    found: list[str] = []
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            found.append(" -> ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for target in edges[name]:
                visit(target, [*path, name])
            done.add(name)

    for name in sorted(edges):
        visit(name, [])
    return found


def time_violations(modules: Mapping[str, Module]) -> list[str]:
    found: list[str] = []
    for module in modules.values():
        if module.name in TIME_AND_CHANCE_IN:
            continue
        zero_sleeps = {
            id(node.func)
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Call) and [ast.dump(arg) for arg in node.args] == [ast.dump(ast.Constant(0))]
        }
        for name, node in qualified_uses(module):
            if name == SLEEP:
                bad = module.top not in SLEEP_IN and id(node) not in zero_sleeps
            else:
                bad = bool(CLOCKS.fullmatch(name) or RANDOM.fullmatch(name))
            if bad:
                found.append(f"{module.name}:{node.lineno} uses {name}; take a Clock, an IdFactory or an Rng instead")
    return found


def sql_violations(modules: Mapping[str, Module]) -> list[str]:
    found: list[str] = []
    for module in modules.values():
        if module.top == "store":
            continue
        prose = {id(node.value) for node in ast.walk(module.tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
                if SQL.match(node.value):
                    found.append(f"{module.name}:{node.lineno} has SQL outside the store: {node.value.strip()[:40]!r}")
    return found


def code_violations(modules: Mapping[str, Module]) -> list[str]:
    found: list[str] = []
    for module in modules.values():
        for node in ast.walk(module.tree):
            match node:
                case ast.Import():
                    names = {alias.name.split(".")[0] for alias in node.names} & CODE_FROM_DATA
                case ast.ImportFrom():
                    names = {(node.module or "").split(".")[0]} & CODE_FROM_DATA
                case ast.Name():
                    names = {node.id} & CODE_FROM_TEXT
                case _:
                    continue
            found.extend(
                f"{module.name}:{node.lineno} uses {name}, which can turn stored data into code" for name in names
            )
    return found


Rule = Callable[[Mapping[str, Module]], list[str]]
RULES: tuple[Rule, ...] = (layer_violations, lazy_violations, cycles, time_violations, sql_violations, code_violations)


# -- the package -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def package() -> dict[str, Module]:
    paths = sorted(PACKAGE.rglob("*.py"))
    assert paths, f"no modules found in {PACKAGE}"
    return load({path.relative_to(PACKAGE.parent).as_posix(): path.read_text("utf-8") for path in paths})


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps_the_rule(rule: Rule, package: dict[str, Module]) -> None:
    assert rule(package) == []


# -- the rules themselves --------------------------------------------------------------------------------------------

BROKEN: dict[str, tuple[Rule, dict[str, str], list[str]]] = {
    "upward": (
        layer_violations,
        {"holdfast/core/a.py": "from holdfast.store.b import x", "holdfast/store/b.py": ""},
        ["holdfast.core.a:1 imports holdfast.store.b, which is not in a row below"],
    ),
    "sideways": (
        layer_violations,
        {"holdfast/sdk/a.py": "import holdfast.wire.b", "holdfast/wire/b.py": ""},
        ["holdfast.sdk.a:1 imports holdfast.wire.b, which is not in a row below"],
    ),
    "upward, relative": (
        layer_violations,
        {"holdfast/core/a.py": "from ..store import b", "holdfast/store/b.py": ""},
        ["holdfast.core.a:1 imports holdfast.store.b, which is not in a row below"],
    ),
    "upward, relative, from a package": (
        layer_violations,
        {"holdfast/core/__init__.py": "from ..store.b import x", "holdfast/store/b.py": ""},
        ["holdfast.core:1 imports holdfast.store.b, which is not in a row below"],
    ),
    "dashboard to server": (
        layer_violations,
        {"holdfast/dashboard/a.py": "from holdfast.server import b", "holdfast/server/b.py": ""},
        ["holdfast.dashboard.a:1 imports holdfast.server.b, which is not in a row below"],
    ),
    "for type checkers": (
        layer_violations,
        {"holdfast/base/a.py": "if TYPE_CHECKING:\n    from holdfast.core import b", "holdfast/core/b.py": ""},
        ["holdfast.base.a:2 imports holdfast.core.b, which is not in a row below"],
    ),
    "by name": (
        layer_violations,
        {
            "holdfast/base/a.py": "import importlib\nb = importlib.import_module('holdfast.core.b')",
            "holdfast/core/b.py": "",
        },
        ["holdfast.base.a:2 imports holdfast.core.b, which is not in a row below"],
    ),
    "public surface": (
        layer_violations,
        {"holdfast/__init__.py": "", "holdfast/base/a.py": "from holdfast import App"},
        ["holdfast.base.a:1 imports the public surface; import the module that defines the name"],
    ),
    "unknown package": (
        layer_violations,
        {"holdfast/utils/a.py": ""},
        ["holdfast.utils.a: 'utils' has no row in the table of layers"],
    ),
    "lazy": (
        lazy_violations,
        {
            "holdfast/store/a.py": "class A:\n    async def f(self):\n        from holdfast.base import b",
            "holdfast/base/b.py": "",
        },
        ["holdfast.store.a:3 imports holdfast.base.b inside a function"],
    ),
    "lazy, another module of sdk": (
        lazy_violations,
        {"holdfast/sdk/steps.py": "def f():\n    import holdfast.compose", "holdfast/compose.py": ""},
        ["holdfast.sdk.steps:2 imports holdfast.compose inside a function"],
    ),
    "cycle of two": (
        cycles,
        {"holdfast/core/a.py": "from holdfast.core import b", "holdfast/core/b.py": "from holdfast.core.a import x"},
        ["holdfast.core.a -> holdfast.core.b -> holdfast.core.a"],
    ),
    "cycle of three, partly for type checkers, partly lazy": (
        cycles,
        {
            "holdfast/core/a.py": "from holdfast.core.b import x",
            "holdfast/core/b.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .c import y",
            "holdfast/core/c.py": "def f():\n    from holdfast.core.a import z",
        },
        ["holdfast.core.a -> holdfast.core.b -> holdfast.core.c -> holdfast.core.a"],
    ),
    "cycle through a package": (
        cycles,
        {
            "holdfast/core/__init__.py": "from holdfast.core.a import x",
            "holdfast/core/a.py": "from holdfast.core import x",
        },
        ["holdfast.core -> holdfast.core.a -> holdfast.core"],
    ),
    "clock": (
        time_violations,
        {"holdfast/engine/a.py": "import time\nnow = time.time()"},
        ["holdfast.engine.a:2 uses time.time; take a Clock, an IdFactory or an Rng instead"],
    ),
    "clock under another name": (
        time_violations,
        {"holdfast/engine/a.py": "import time as t\nclock = t.monotonic"},
        ["holdfast.engine.a:2 uses time.monotonic; take a Clock, an IdFactory or an Rng instead"],
    ),
    "clock imported by name": (
        time_violations,
        {"holdfast/base/a.py": "from time import perf_counter"},
        ["holdfast.base.a:1 uses time.perf_counter; take a Clock, an IdFactory or an Rng instead"],
    ),
    "datetime": (
        time_violations,
        {"holdfast/server/a.py": "from datetime import datetime as d\nnow = d.now()"},
        ["holdfast.server.a:2 uses datetime.datetime.now; take a Clock, an IdFactory or an Rng instead"],
    ),
    "random": (
        time_violations,
        {"holdfast/core/a.py": "import random\nx = random.random()"},
        ["holdfast.core.a:2 uses random.random; take a Clock, an IdFactory or an Rng instead"],
    ),
    "sleep": (
        time_violations,
        {"holdfast/engine/a.py": "import asyncio\nasync def f():\n    await asyncio.sleep(1)"},
        ["holdfast.engine.a:3 uses asyncio.sleep; take a Clock, an IdFactory or an Rng instead"],
    ),
    "SQL": (
        sql_violations,
        {"holdfast/engine/a.py": "q = '''\n  SELECT id FROM runs'''"},
        ["holdfast.engine.a:1 has SQL outside the store: 'SELECT id FROM runs'"],
    ),
    "SQL in an f-string": (
        sql_violations,
        {"holdfast/server/a.py": "def q(t):\n    return f'DELETE FROM {t}'"},
        ["holdfast.server.a:2 has SQL outside the store: 'DELETE FROM'"],
    ),
    "SQL under WITH": (
        sql_violations,
        {"holdfast/core/a.py": "q = 'WITH due AS (SELECT 1) SELECT * FROM due'"},
        ["holdfast.core.a:1 has SQL outside the store: 'WITH due AS (SELECT 1) SELECT * FROM due'"],
    ),
    "pickle": (
        code_violations,
        {"holdfast/store/a.py": "from pickle import loads"},
        ["holdfast.store.a:1 uses pickle, which can turn stored data into code"],
    ),
    "eval": (
        code_violations,
        {"holdfast/core/a.py": "f = eval\nf('1')"},
        ["holdfast.core.a:1 uses eval, which can turn stored data into code"],
    ),
    "exec": (
        code_violations,
        {"holdfast/cli/a.py": "def f(x):\n    exec(x)"},
        ["holdfast.cli.a:2 uses exec, which can turn stored data into code"],
    ),
    "compile": (
        code_violations,
        {"holdfast/core/a.py": "code = compile('1', '', 'eval')"},
        ["holdfast.core.a:1 uses compile, which can turn stored data into code"],
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_the_rule_notices(case: str) -> None:
    rule, sources, expected = BROKEN[case]
    assert rule(load(sources)) == expected


def test_what_is_allowed_passes_every_rule() -> None:
    modules = load(
        {
            "holdfast/__init__.py": "from holdfast.sdk.app import App\n\n__version__ = '1'",
            "holdfast/__main__.py": "from holdfast.cli.main import main",
            "holdfast/cli/__init__.py": "from holdfast import __version__",
            "holdfast/cli/main.py": "import asyncio\nfrom holdfast.compose import up\n\nasync def f():\n    await asyncio.sleep(1)",
            "holdfast/compose.py": "from holdfast.server.app import app\nfrom holdfast.sdk.app import App\nup = app",
            "holdfast/server/app.py": "from holdfast.dashboard import pages\n\napp = {'methods': ['DELETE'], 'doc': 'SELECTED'}",
            "holdfast/dashboard/__init__.py": "",
            "holdfast/dashboard/pages.py": "from . import parts",
            "holdfast/dashboard/parts.py": "",
            "holdfast/engine/loop.py": "import asyncio\n\nasync def turn():\n    await asyncio.sleep(0)",
            "holdfast/sdk/app.py": "class App:\n    def start(self):\n        from holdfast.compose import up\n        return up",
            "holdfast/store/runs.py": "from holdfast.base import clock\n\nRUNS = 'SELECT id FROM runs'",
            "holdfast/core/names.py": '"""\nCREATE TABLE is only spoken of here."""\nimport re\n\nNAME = re.compile("x")',
            "holdfast/base/clock.py": "import time\n\ndef now():\n    return time.time()",
        }
    )
    assert {rule.__name__: rule(modules) for rule in RULES} == {rule.__name__: [] for rule in RULES}
