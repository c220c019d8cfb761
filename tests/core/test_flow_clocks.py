"""Gates on several nodes, whose clocks differ by a little: what one has let start counts for the other."""

from __future__ import annotations

import pytest

from holdfast.core.flow import Gate, GateKind
from holdfast.core.gates import shut, take
from holdfast.core.plan import Tx
from holdfast.core.rows import ThrottleRow

NOW = 1_700_000_000_000
EVENLY = Gate(GateKind.THROTTLE, "t1", limit=10, period=1000)


def after_a_start(gate: Gate, ahead: int) -> Tx:
    """What a node decides on once another one, so many milliseconds ahead, has let a run start."""
    there, here = Tx(NOW + ahead, 1), Tx(NOW, 2)
    there.provide(ThrottleRow, gate.id, None)
    assert shut(there, [gate]) is None
    take(there, [gate])
    here.provide(ThrottleRow, gate.id, there.row(ThrottleRow, gate.id))
    return here


@pytest.mark.parametrize("ahead", [0, 1, 20, 200])
def test_a_throttle_holds_though_the_other_node_is_ahead(ahead):
    found = shut(after_a_start(EVENLY, ahead), [EVENLY])
    assert found is not None
    assert found.until == NOW + ahead + 100


def test_a_moment_from_a_clock_that_was_set_back_does_not_hold_starts_up():
    assert shut(after_a_start(EVENLY, 3_600_000), [EVENLY]) is None
