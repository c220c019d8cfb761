"""The process dies without warning before and after every commit, one commit at a time, until a life is untouched.

Each crash point has a database of its own. The restart finishes all work, then every promise is checked.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
from fault_worker import EXIT_AT_POINT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

AT_ONCE = 4
"""Crash points tried at the same time: most of a life is waiting, for disks and timers."""


def each_until_untouched(one_point: Callable[[int], bool], start: int = 1, step: int = 1) -> int:
    """Try the points `start`, `start + step`, ...; the first that was not reached."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for first in count(start, AT_ONCE * step):
            points = range(first, first + AT_ONCE * step, step)
            for n, untouched in zip(points, pool.map(one_point, points), strict=True):
                if untouched:
                    return n
    raise AssertionError("unreachable")


@pytest.mark.parametrize("side", ["before", "after"])
def test_death_at_every_commit(nursery, make_case, side):
    check_every_commit(nursery, make_case, side)


@pytest.mark.parametrize("fault_store", ["postgres"], indirect=True)
@pytest.mark.parametrize("side", ["before", "after"])
def test_death_at_every_seventh_commit_on_postgresql(nursery, make_case, fault_store, side, seed):
    check_every_commit(nursery, make_case, side, start=seed % 7 + 1, step=7)


@pytest.mark.long
@pytest.mark.parametrize("fault_store", ["postgres"], indirect=True)
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.timeout(1800)
def test_death_at_every_commit_on_postgresql(nursery, make_case, fault_store, side):
    check_every_commit(nursery, make_case, side)


def check_every_commit(nursery, make_case, side, **points):
    def one_point(n: int) -> bool:
        case = make_case()
        status = nursery.run({**case.config, "point": {"side": side, "n": n}})
        if status == EXIT_AT_POINT:
            case.observed.look()
            assert nursery.run(case.config) == 0, f"restart after dying {side} commit {n}:\n{case.words}"
        else:
            assert status == 0, f"{side} commit {n}:\n{case.words}"
        assert case.broken() == [], f"after dying {side} commit {n}: {case.directory}"
        assert case.ledger.has("quiet")
        if status == 0:
            assert case.ledger.has("saw", step="tick"), "the schedule fires in an untouched life"
        return status == 0

    commits = each_until_untouched(one_point, **points)
    assert commits > 30, "the application has at least so many commits; the crash points were not reached"


@pytest.mark.long
@pytest.mark.parametrize("linger_ms", [0, 5000])
@pytest.mark.parametrize("second", [1, 2, 3, 5, 8, 13])
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.timeout(900)
def test_death_at_every_commit_and_again_during_recovery(nursery, make_case, side, second, linger_ms):
    def one_point(n: int) -> bool:
        case = make_case(linger_ms=linger_ms)
        status = nursery.run({**case.config, "point": {"side": side, "n": n}})
        if status != 0:
            case.observed.look()
            if nursery.run({**case.config, "point": {"side": side, "n": second}}) != 0:
                case.observed.look()
                assert nursery.run(case.config) == 0, f"{side} commit {n}, then {second}:\n{case.words}"
        assert case.broken() == [], f"after dying {side} commit {n}, then {second}: {case.directory}"
        return status == 0

    assert each_until_untouched(one_point) > 20
