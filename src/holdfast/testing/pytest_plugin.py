"""The pytest plugin: the fixture `holdfast_harness`. It is found by itself where holdfast is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

import holdfast.testing

if TYPE_CHECKING:
    from holdfast.testing.harness import Harness


@pytest.fixture
def holdfast_harness() -> Iterator[Callable[..., Harness]]:
    """Makes harnesses, for tests that are async and for tests that aren't; what is left open is closed after the test.

    ```python
    def test_order(holdfast_harness):
        with holdfast_harness(app) as h:
            assert h.run(fulfil, OrderPaid(order_id="o1", amount=5)).output == "never shipped"
    ```
    """
    made: list[Harness] = []

    def make(*apps: Any, **settings: Any) -> Harness:
        harness = holdfast.testing.Harness(*apps, **settings)
        made.append(harness)
        return harness

    yield make
    for harness in made:
        harness.__exit__(None, None, None)
