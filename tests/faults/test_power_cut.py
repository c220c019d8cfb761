"""The power fails: what was not synced is gone, or half there. What was acknowledged and recorded is not.

kill -9 alone can't show this, as the kernel keeps what a dead process wrote; fault_disk.c takes that away as well.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import fault_disk
import pytest
from fault_disk import Counters

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

KILLED = -9


def life_with_a_cut(nursery, case, at: int, keep: random.Random | None) -> bool:
    """Take the power at the nth write or sync, restart, and finish. Whether the power failed at all."""
    counters = Counters(case.directory / "counters")
    counters["die_at"] = at
    config = {**case.config, "counters": str(counters.path)}
    status = nursery.run(config)
    if status == KILLED:
        fault_disk.power_cut(case.database, keep)
        case.observed.look()
        status = nursery.run(config)
        assert status == 0, f"restart after the power failed at operation {at}:\n{case.words}"
        return True
    assert status == 0, f"operation {at}:\n{case.words}"
    return False


def check_cuts(make_case: Callable, nursery, seed: int, stride: int, *, torn: bool) -> int:
    """A power cut at every so-manieth operation until one is not reached; how many there were."""

    def one(at: int) -> bool:
        case = make_case()
        keep = random.Random(seed * 1_000_003 + at) if torn else None
        cut = life_with_a_cut(nursery, case, at, keep)
        assert case.broken() == [], f"HOLDFAST_SEED={seed}: power cut at operation {at} ({case.directory})"
        return cut

    cuts = 0
    first = 1 + seed % stride
    with ThreadPoolExecutor(4) as pool:
        for chunk in count(0):
            points = [first + stride * (4 * chunk + i) for i in range(4)]
            reached = sum(pool.map(one, points))
            cuts += reached
            if reached < 4:
                return cuts
    raise AssertionError("unreachable")


@pytest.mark.parametrize("torn", [False, True], ids=["lost", "torn"])
def test_power_cuts_lose_nothing_that_was_promised(faulty_nursery, make_case, seed, torn):
    assert check_cuts(make_case, faulty_nursery, seed, 12, torn=torn) >= 10


@pytest.mark.long
@pytest.mark.parametrize("torn", [False, True], ids=["lost", "torn"])
@pytest.mark.timeout(900)
def test_a_power_cut_at_every_operation(faulty_nursery, make_case, seed, torn):
    assert check_cuts(make_case, faulty_nursery, seed, 1, torn=torn) >= 100


def test_without_the_sync_the_same_cuts_lose_acknowledged_events(faulty_nursery, make_case):
    """The proof that the test above sees the fsync: with `synchronous=OFF` it must go red."""
    lost: list[str] = []
    for at in range(150, 650, 50):
        case = make_case(synchronous="OFF")
        assert life_with_a_cut(faulty_nursery, case, at, None), f"the power did not fail; found until then: {lost}"
        lost += case.broken()
        if all(any(words in sentence for sentence in lost) for words in ("was acknowledged and is not there", "promise 2")):
            return
    pytest.fail(f"events or results that were synced by nobody were not missed: {lost}")
