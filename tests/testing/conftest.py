"""Harnesses on each store: by default only a proof of durability runs on both, with `--store` everything on the given one."""

from __future__ import annotations

import pytest

ON_EVERY_STORE = {"test_a_function_with_every_kind_of_step_survives_each_crash"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    only = metafunc.config.getoption("--store")
    if only is not None:
        metafunc.parametrize("harness_store", [only], indirect=True)
    elif metafunc.function.__name__ in ON_EVERY_STORE:
        metafunc.parametrize("harness_store", ["sqlite", "postgres"], indirect=True)
