"""A write or a sync fails: the process stops accepting and doesn't try that sync again. After a restart all goes on."""

from __future__ import annotations

import random
import time

import fault_disk
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def orders_until_refused(shop, first: int = 1) -> tuple[int, object]:
    """Send orders until one is not accepted; that answer."""
    for n in range(first, first + 300):
        status, body = shop.order(n)
        if status != 200:
            return status, body
    raise AssertionError("300 orders were accepted and nothing failed")


def expect_refusal(shop) -> None:
    """Nothing is accepted any more, health says so, and reading goes on."""
    status, body = orders_until_refused(shop)
    assert status == 503, body
    assert "disk" in str(body), body
    for n in range(400, 405):
        assert shop.order(n)[0] == 503
    status, body = shop.http.request("GET", "/health")
    assert status == 503
    assert "restart" in str(body), body
    assert shop.http.request("GET", "/v1/runs")[0] == 200


@pytest.mark.parametrize("nth", [1, 2, 7, 30])
@pytest.mark.parametrize("stopped", [True, False], ids=["stopped", "power lost"])
def test_a_failed_sync_is_not_tried_again(shop, seed, nth, stopped):
    here = shop()
    here.counters["fail_kinds"] = fault_disk.WAL
    here.counters["fail_sync"] = nth
    expect_refusal(here)
    if stopped:
        assert here.stop() == 0, here.case.words
    else:
        here.lose_power(random.Random(seed))
    assert here.counters["sync_failures"] == 1
    assert here.counters["syncs_after"] == 0, "the file whose sync had failed was synced again"
    here.case.observed.look()
    here.start()
    assert here.order(500)[0] == 200
    here.end()


@pytest.mark.parametrize("nth", [1, 2, 9, 60])
def test_a_failed_write(shop, nth):
    here = shop()
    here.counters["fail_kinds"] = fault_disk.WAL
    here.counters["fail_write"] = nth
    expect_refusal(here)
    assert here.stop() == 0, here.case.words
    here.case.observed.look()
    here.start()
    assert here.order(500)[0] == 200
    here.end()


@pytest.mark.parametrize("kind", [fault_disk.DATABASE, fault_disk.WAL], ids=["database", "log"])
def test_a_failed_sync_while_the_log_moves_into_the_database(shop, kind):
    here = shop()
    assert here.order(1)[0] == 200
    if kind == fault_disk.DATABASE:
        here.counters["fail_kinds"] = kind
        here.counters["fail_sync"] = 1
    text = "x" * 200_000
    stopped = False
    for n in range(200):
        status, _ = here.http.send("shop/bulk", f"bulk-{n}", text=text)
        stopped = stopped or status == 503
        if stopped or (n > 150 and kind == fault_disk.WAL):
            break
        if n > 50 and kind == fault_disk.DATABASE:
            time.sleep(0.1)  # a checkpoint reaches the sync only when no commit overtakes it
    if kind == fault_disk.DATABASE:
        assert stopped, "the failed checkpoint did not stop it"
        assert here.http.request("GET", "/health")[0] == 503
        assert here.counters["sync_failures"] == 1
    assert here.stop() == 0, here.case.words
    assert here.counters["syncs_after"] == 0
    here.case.observed.look()
    here.start()
    assert here.order(500)[0] == 200
    here.end()
