"""A clock set by a server's time: as good as the quickest reading, and following a server whose clock was set."""

from __future__ import annotations

import time

import pytest

from holdfast.base.clock import FollowingClock

SERVER = 1_800_000_000_000


def reading(clock: FollowingClock, at: float, *, ahead: float, out: float = 0, back: float = 0) -> None:
    """A reading at a monotonic moment, whose question and answer took so many seconds."""
    clock.set(int((at + ahead) * 1000), at - out, at + back)


@pytest.fixture
def began() -> float:
    return time.monotonic()


def error(clock: FollowingClock, ahead: float) -> float:
    """Milliseconds by which it is ahead of the server."""
    return clock._ahead - ahead * 1000


@pytest.mark.parametrize(("out", "back"), [(0.4, 0), (0, 0.4), (3, 0.1)])
def test_a_slow_reading_says_little_after_a_quick_one(began, out, back):
    clock, ahead = FollowingClock(), SERVER / 1000 - began
    reading(clock, began, ahead=ahead, out=0.001, back=0.001)
    reading(clock, began + 5, ahead=ahead, out=out, back=back)
    assert -6 < error(clock, ahead) < 6


def test_several_slow_ones_narrow_it_down(began):
    clock, ahead = FollowingClock(), SERVER / 1000 - began
    reading(clock, began, ahead=ahead, out=0.5)
    assert error(clock, ahead) > 100
    reading(clock, began + 1, ahead=ahead, back=0.5)
    assert -10 < error(clock, ahead) < 10


@pytest.mark.parametrize("seconds", [-3600, -2, 2, 86_400])
def test_it_follows_a_server_whose_clock_was_set(began, seconds):
    clock, ahead = FollowingClock(), SERVER / 1000 - began
    reading(clock, began, ahead=ahead, out=0.001)
    reading(clock, began + 1, ahead=ahead + seconds, out=0.001)
    assert -6 < error(clock, ahead + seconds) < 6
