"""Fixtures of the fault tests."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fault_disk
import pytest
from fault_app import EXPECTED
from fault_checker import Checker, Observed
from fault_ledger import Ledger
from fault_processes import Nursery
from fault_shop import Shop


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def seed(record_property) -> int:
    """The seed of everything random in the test: `HOLDFAST_SEED`, or a new one, printed with a failure."""
    given = os.environ.get("HOLDFAST_SEED")
    chosen = int(given) if given else random.SystemRandom().randrange(1 << 32)
    record_property("seed", chosen)
    print(f"HOLDFAST_SEED={chosen}")
    return chosen


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """Processes on the machine's own disk."""
    parent = Nursery()
    yield parent
    parent.close()


@pytest.fixture(scope="session")
def disk_library() -> Path:
    """The disk that can fail."""
    library = fault_disk.library()
    if library is None:
        pytest.fail("the failing disk needs Linux and the ziglang package (dev group) or a C compiler")
    return library


@pytest.fixture(scope="module")
def faulty_nursery(disk_library: Path) -> Iterator[Nursery]:
    """Processes whose disk can fail."""
    parent = Nursery(preload=True)
    yield parent
    parent.close()


class Case:
    """One database, its ledger, and the configuration of the processes that use them."""

    def __init__(self, directory: Path, **config: Any) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.database = directory / "faults.db"
        self.ledger = Ledger(directory / "ledger")
        self.observed = Observed(self.database, self.ledger)
        self.config = {
            "database": str(self.database),
            "ledger": str(self.ledger.path),
            "log": str(directory / "log"),
            **config,
        }

    @property
    def words(self) -> str:
        """What its processes wrote to standard error."""
        log = Path(self.config["log"])
        return log.read_text(errors="replace")[-6000:] if log.exists() else ""

    def broken(self, expected: dict[str, dict[str, int]] = EXPECTED) -> list[str]:
        """The promises that were not kept."""
        return Checker(self.database, self.ledger, expected).check(self.observed)


@pytest.fixture
def make_case(tmp_path: Path) -> Callable[..., Case]:
    """Cases in directories of their own."""
    count = 0

    def make(**config: Any) -> Case:
        nonlocal count
        count += 1
        return Case(tmp_path / str(count), **config)

    return make


@pytest.fixture
def shop(faulty_nursery, make_case):
    """Servers over disks that can fail."""
    shops = []

    def open_shop(**config) -> Shop:
        shops.append(Shop(faulty_nursery, make_case(), **config))
        return shops[-1]

    yield open_shop
    for one in shops:
        one.child.kill()
