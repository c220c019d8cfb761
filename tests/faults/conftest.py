"""Fixtures of the fault tests."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fault_disk
import fault_postgres
import pytest
from fault_app import EXPECTED
from fault_checker import Checker, Observed, copy_files
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
    """One store, its ledger, and the configuration of the processes that use them.

    Args:
        directory: Where its files are.
        store: The URL of a schema on PostgreSQL; without, the store is an SQLite file of its own.
    """

    def __init__(self, directory: Path, store: str | None = None, **config: Any) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.database = directory / "faults.db"
        self.store = store
        self.ledger = Ledger(directory / "ledger")
        self.observed = Observed(self.copy, self.ledger)
        self.config = {
            "database": str(self.database),
            "ledger": str(self.ledger.path),
            "log": str(directory / "log"),
            **({"store": store} if store else {}),
            **config,
        }

    @property
    def words(self) -> str:
        """What its processes wrote to standard error."""
        log = Path(self.config["log"])
        return log.read_text(errors="replace")[-6000:] if log.exists() else ""

    def copy(self, file: Path) -> bool:
        """Copy the store into a new SQLite file, changing nothing; whether it has anything."""
        return copy_files(self.database, file) if self.store is None else fault_postgres.copy(self.store, file)

    def broken(self, expected: dict[str, dict[str, int]] = EXPECTED) -> list[str]:
        """The promises that were not kept."""
        database = self.database
        if self.store is not None:
            database = self.directory / "postgres.db"
            database.unlink(missing_ok=True)
            self.copy(database)
        return Checker(database, self.ledger, expected).check(self.observed)


@pytest.fixture(params=["sqlite", "postgres"])
def fault_store(request: pytest.FixtureRequest) -> str:
    """Which store cases are on; those of tests that don't ask are on SQLite."""
    return request.param


@pytest.fixture
def make_case(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Case]:
    """Cases in directories and stores of their own."""
    count = itertools.count(1)
    postgres = None
    if "fault_store" in request.fixturenames and request.getfixturevalue("fault_store") == "postgres":
        # a node that was killed is given up after a second
        postgres = f"{request.getfixturevalue('postgres_url')}_{{}}&lease_seconds=1"

    def make(**config: Any) -> Case:
        number = next(count)
        return Case(tmp_path / str(number), postgres and postgres.format(number), **config)

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
