"""A test that hangs must not take the whole run with it.

pytest-timeout raises in the test once its limit is over. What the test is waiting in can swallow that: a callback of an event
loop, code that catches everything, a call into C. Past a grace, the process ends, with the stacks of all its threads on standard
error; under xdist another one takes its place, the test counts as failed, and all others are run.
"""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Generator
from typing import TextIO

import pytest

GRACE = 60.0
_stderr: TextIO | None = None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--hang-grace", type=float, default=GRACE, help="seconds past its time limit after which a test ends its process")


def pytest_configure(config: pytest.Config) -> None:
    global _stderr  # noqa: PLW0603 - of the process, like what it stands for
    # tests have standard error captured; this is where it really goes
    _stderr = os.fdopen(os.dup(sys.__stderr__.fileno()), "w")


def pytest_unconfigure() -> None:
    if _stderr is not None:
        _stderr.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    limit = _limit(item)
    if limit <= 0:
        return (yield)
    faulthandler.dump_traceback_later(limit + item.config.getoption("--hang-grace"), exit=True, file=_stderr)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _limit(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    if marker is not None and marker.args:
        return float(marker.args[0])
    given = item.config.getoption("timeout", None)
    return float(item.config.getini("timeout") or 0) if given is None else float(given)
