"""The disk is full: new events are refused with a reason, reading goes on, and all goes on by itself once there is room."""

from __future__ import annotations

import fault_disk
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.mark.parametrize("linger_ms", [0, 5000])
@pytest.mark.parametrize("room", [0, 5000, 60_000])
def test_full_while_events_come_in(shop, room, linger_ms):
    here = shop(linger_ms=linger_ms)
    counters = here.counters
    assert here.order(1)[0] == 200
    here.http.until("the first order", lambda: here.completed(4))
    assert here.order(2)[0] == 200  # its run is under way when the disk fills up
    counters["space"] = room
    answers = [here.order(n) for n in range(3, 60)]
    refused = [body for status, body in answers if status == 507]
    assert refused, answers
    assert all(status in {200, 507} for status, _ in answers), answers
    assert "full" in str(refused[0])
    # reading goes on
    assert here.http.request("GET", "/v1/runs")[0] == 200
    assert here.http.request("GET", "/health")[0] == 200
    # and once there is room again, so does all the rest, without a restart
    counters["space"] = -1
    here.http.until("the next order to be accepted", lambda: here.order(100)[0] == 200, 60)
    here.end()


def test_full_while_the_log_moves_into_the_database(shop):
    here = shop()
    counters = here.counters
    counters["space_kinds"] = fault_disk.DATABASE
    counters["space"] = 0
    assert here.order(1)[0] == 200
    text = "x" * 200_000
    for n in range(60):
        assert here.http.send("shop/bulk", f"bulk-{n}", text=text)[0] == 200
    for n in range(2, 80):
        assert here.order(n)[0] == 200
    here.http.until("the orders made while no checkpoint could be", lambda: here.completed(100))
    counters["space"] = -1
    here.end()
    assert here.case.database.stat().st_size > 60 * len(text), "nothing was moved in the end"
