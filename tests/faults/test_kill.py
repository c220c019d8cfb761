"""kill -9 at chosen and at random moments, while a customer sends events and doesn't take no for an answer."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter

import fault_disk
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

PHASES = [
    "Ingest before",
    "Ingest after",  # on disk, and nobody has been told
    "body before",
    "body after",  # the side effect is done, and nothing is recorded
    "Record before",
    "Record after",  # recorded, and the function has not heard of it
    "End before",
    "End after",
    "Register before",
    "RecordSend after",
    "FailAttempt after",
    "Park after",
    "Claim after",
    "Claim before",
    "random",
    "random",
]
KINDS = ["shop/order", "shop/order", "shop/report", "shop/doom"]


class Customer(threading.Thread):
    """Sends one event after the other, each until it is acknowledged."""

    def __init__(self, shop, seed: int) -> None:
        super().__init__(daemon=True)
        self.shop = shop
        self.random = random.Random(seed)
        self.stopping = threading.Event()
        self.sent = 0
        self.retried = 0

    def run(self) -> None:
        while not self.stopping.is_set():
            self.sent += 1
            name = self.random.choice(KINDS)
            while self.shop.order(self.sent, name)[0] != 200:
                self.retried += 1
                time.sleep(0.005)
            if self.random.random() < 0.2:
                self.shop.order(self.sent, name)  # a webhook is delivered twice
            time.sleep(self.random.uniform(0.005, 0.06))


def kill_and_restart(shop, seed: int, kills: int) -> Counter[str]:
    """So many deaths; which moments were hit, how often."""
    chosen = random.Random(seed)
    customer = Customer(shop, seed)
    hit: Counter[str] = Counter()
    shop.child.kill()
    shop.child.wait()
    customer.start()
    while hit.total() < kills:
        phase = PHASES[hit.total() % len(PHASES)]
        shop.config |= {"phase": phase, "nth": chosen.choice([1, 1, 2, 3])}
        shop.launch()
        if phase == "random":
            time.sleep(chosen.uniform(0, 0.2))
            hit[phase] += 1
        else:
            hit[phase if shop.child.expect("reached", 10) else "missed"] += 1
        shop.child.kill()
        assert shop.child.wait() == -9, shop.case.words
        if chosen.random() < 0.5 and shop.case.store is None:
            fault_disk.power_cut(shop.case.database, chosen)
        shop.case.observed.look()
    shop.config |= {"phase": None}
    shop.start()
    customer.stopping.set()
    customer.join(60)
    assert not customer.is_alive(), "the last event was never acknowledged"
    assert customer.retried > 0
    return hit


def check_kills(shop, seed: int, kills: int, *, each: int = 2) -> None:
    here = shop(max_crashes=1_000_000, linger_ms=seed % 2 * 5000)
    hit = kill_and_restart(here, seed, kills)
    try:
        here.end()
    except AssertionError as error:
        raise AssertionError(f"HOLDFAST_SEED={seed} ({here.case.directory}): {error}") from error
    aimed = {phase for phase in PHASES if phase != "random"}
    missed = {phase for phase in aimed if hit[phase] < each}
    assert len(missed) <= 3, f"HOLDFAST_SEED={seed}: hardly hit: {missed} of {dict(hit)}"
    for phase in ("Ingest after", "body before", "body after", "Record before", "Record after", "End before"):
        assert hit[phase] >= each, f"HOLDFAST_SEED={seed}: {phase} was hit {hit[phase]} times"


def test_fifty_kills(shop, seed):
    check_kills(shop, seed, 56)


@pytest.mark.parametrize("fault_store", ["postgres"], indirect=True)
def test_kills_on_postgresql(fault_store, shop, seed):
    check_kills(shop, seed, 16, each=1)


@pytest.mark.long
@pytest.mark.parametrize("fault_store", ["postgres"], indirect=True)
@pytest.mark.timeout(1800)
def test_two_hundred_kills_on_postgresql(fault_store, shop, seed):
    check_kills(shop, seed, 200)


@pytest.mark.long
@pytest.mark.parametrize("round_", range(10))
@pytest.mark.timeout(900)
def test_two_hundred_kills(shop, seed, round_):
    check_kills(shop, seed + round_, 200)
