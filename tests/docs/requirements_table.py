"""The table of requirements: what each is, which tests name it, and where the dashboard shows it.

`python tests/docs/requirements_table.py` writes `docs/reference/requirements.md`. A test names a requirement in its own name
(`test_b7_...`), in its docstring, or in that of its class or module ("B3, B6: ...", "D1 to D7 on ...").
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "reference" / "requirements.md"
_PLACES = ("tests", "examples")


@dataclass(frozen=True)
class Requirement:
    """One line of what holdfast must do."""

    what: str
    on: str
    """The pages of the dashboard that show it, separated by commas; empty where there is nothing to show."""

    @property
    def pages(self) -> list[str]:
        return [page for page in self.on.split(", ") if page]


REQUIREMENTS = {
    "P1": Requirement("events are typed; a wrong name, field or type is an error at the call and for type checkers", "/events/send"),
    "P2": Requirement("a registry of functions and a serve route for each framework; a failed sync says why", "/apps"),
    "P3": Requirement("steps, sleeps, waits, signals, invoke, sending, parallel steps, races, retries, failure handlers", "/runs/{id}"),
    "P4": Requirement("a retry helper for calls outside of steps", ""),
    "P5": Requirement("one command for development with a dashboard; a production mode with keys and signatures", "/"),
    "P6": Requirement("the dashboard: live runs, retries, errors, dead letters, success rates, backlog; alerts", "/, /dead-letters"),
    "P7": Requirement("limits, throttle, rate limit, debounce, batching, priority, singleton, idempotency, cancelling, pausing", "/flow"),
    "P8": Requirement("a run's status, attempt, error and progress over HTTP, from Python, as a stream, and in Redis", "/runs/{id}"),
    "P9": Requirement("sending never waits for the work, whatever is queued", "/queue"),
    "P10": Requirement("the same functions in process, in workers over a shared store, or over HTTP", "/apps"),
    "R": Requirement("the presets: attempts, full jitter, what is transient, Retry-After", "/functions/{id}"),
    "A1": Requirement("storefront: a purchase is confirmed by e-mail, and its order fulfilled", "/runs/{id}"),
    "A2": Requirement("storefront: a refund is confirmed, and its order marked", "/runs/{id}"),
    "A3": Requirement("storefront: a new user is welcomed", "/runs/{id}"),
    "A4": Requirement("storefront: delays of 2^n seconds without jitter, then a dead letter", "/dead-letters"),
    "A5": Requirement("storefront: typed helpers that enqueue", "/events"),
    "A6": Requirement("storefront: the payment webhook and the signup answer at once, and send once", "/events/{id}"),
    "A7": Requirement("storefront: the log of e-mails, what a kill can do, and the README's queries", "/runs/{id}"),
    "A8": Requirement("storefront: the how-to of the pattern is executed", ""),
    "B1": Requirement("catalogue: its events, spelt as on the wire", "/events"),
    "B2": Requirement("catalogue: signed webhooks with a history; tokens are refreshed, one at a time", "/flow"),
    "B3": Requirement("catalogue: the import form starts a product and its event, or neither", "/events/{id}"),
    "B4": Requirement("catalogue: scraping by several providers, three tries, failures that are final at once", "/runs/{id}"),
    "B5": Requirement("catalogue: pictures without text are enhanced", "/runs/{id}"),
    "B6": Requirement("catalogue: the state of an import as JSON, for its owner only", ""),
    "B7": Requirement("catalogue: the status page polls, is pushed to, and lets a failed import be tried again once", ""),
    "B8": Requirement("catalogue: slow, failing, huge and odd pages of a real shop site", "/runs/{id}"),
    "C1": Requirement("studio: five kinds of jobs with a schema each", "/runs/{id}"),
    "C2": Requirement("studio: a real PDF, signed webhooks, a text model; three failures of each", "/dead-letters"),
    "C3": Requirement("studio: tests in four groups", ""),
    "D1": Requirement("inbox: its events, and priority", "/events"),
    "D2": Requirement("inbox: one recompute per client and bucket of time; nothing dirty is swallowed", "/flow"),
    "D3": Requirement("inbox: analytics are refreshed when their objective is missed", "/crons"),
    "D4": Requirement("inbox: the cron endpoint enqueues or does the work, once per request", "/crons"),
    "D5": Requirement("inbox: the status of each client's jobs in Redis", "/runs/{id}"),
    "D6": Requirement("inbox: retries, a cap, a version that rises by exactly one", "/flow"),
    "D7": Requirement("inbox: the backlog is measured and alerts; canary loads", "/"),
}
_ID = re.compile(r"\b(P10|P[1-9]|A[1-8]|B[1-8]|C[1-3]|D[1-7])\b(?:\s+(?:to|-)\s+(P10|P[1-9]|A[1-8]|B[1-8]|C[1-3]|D[1-7])\b)?|^(R)(?=[,:])")
_NAMED = re.compile(r"^test_((?:[a-dp]\d{1,2}_|r_)+)")


@dataclass(frozen=True)
class Test:
    """A test, and the requirements that it names."""

    file: str
    name: str
    ids: frozenset[str]


def named_in(text: str | None) -> set[str]:
    """The requirements that a docstring names."""
    found: set[str] = set()
    for first, last, presets in _ID.findall(text or ""):
        if presets:
            found.add(presets)
        elif last:
            found.update(f"{first[0]}{number}" for number in range(int(first[1:]), int(last[1:]) + 1))
        else:
            found.add(first)
    return found


def tests_of(path: Path) -> Iterator[Test]:
    """The tests of a file that name a requirement."""
    tree = ast.parse(path.read_text())
    outer = named_in(ast.get_docstring(tree))
    where = str(path.relative_to(ROOT))
    scopes: list[tuple[ast.Module | ast.ClassDef, set[str], str]] = [(tree, outer, "")]
    scopes += [
        (node, outer | named_in(ast.get_docstring(node)), f"{node.name}::") for node in tree.body if isinstance(node, ast.ClassDef)
    ]
    for scope, ids, prefix in scopes:
        for node in scope.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
                own = _NAMED.match(node.name)
                by_name = {part.upper() for part in own[1].split("_") if part} if own else set()
                # a test's own name and docstring are exact; those around it hold where it has none
                exact = by_name | named_in(ast.get_docstring(node))
                yield Test(where, prefix + node.name, frozenset(exact or ids))


@cache
def collected() -> list[Test]:
    """All tests that name a requirement."""
    files = sorted(path for place in _PLACES for path in (ROOT / place).rglob("test_*.py"))
    return [test for path in files for test in tests_of(path) if test.ids]


def rows() -> dict[str, list[str]]:
    """For each requirement, the files with tests that name it."""
    return {name: sorted({test.file for test in collected() if name in test.ids}) for name in REQUIREMENTS}


def table() -> str:
    """The page."""
    lines = [
        "# Requirements and their tests", "",
        "Generated by `python tests/docs/requirements_table.py`. P is the platform, R the retry presets; A to D are the four",
        "applications under `examples`, whose own pages are not in the last column.", "",
        "| | what | tests that name it | dashboard |", "|---|---|---|---|",
    ]  # fmt: skip
    for name, files in rows().items():
        one = REQUIREMENTS[name]
        tests = ", ".join(f"`{file}`" for file in files)
        page = ", ".join(f"`{page}`" for page in one.pages) or "-"
        lines.append(f"| {name} | {one.what} | {tests} | {page} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TABLE.write_text(table())
