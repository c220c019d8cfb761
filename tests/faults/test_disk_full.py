"""The disk is full: new events are refused with a reason, reading goes on, and all goes on by itself once there is room."""

from __future__ import annotations

from pathlib import Path

import fault_disk
import pytest
from fault_disk import Counters
from fault_http import Client, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


class Shop:
    """A server under test over a disk that can fail."""

    def __init__(self, nursery, case, **config) -> None:
        self.case = case
        self.counters = Counters(case.directory / "counters")
        self.port = free_port()
        self.finish = Path(case.directory / "finish")
        self.config = {
            **case.config, "counters": str(self.counters.path), "port": self.port, "finish": str(self.finish), **config
        }
        self.nursery = nursery
        self.http = Client(self.port)
        self.start()

    def start(self) -> None:
        self.child = self.nursery.start(self.config)
        assert self.child.expect("serving", 20) == self.port, self.case.words

    def order(self, n: int, name: str = "shop/order") -> tuple[int, object]:
        """Send one; what is acknowledged goes to the ledger."""
        key = f"{name.partition('/')[2]}-{n}"
        status, body = self.http.send(name, key, n=n)
        if status == 200:
            self.case.ledger.write("acknowledged", id=key, event=name)
        return status, body

    def completed(self, n: int) -> bool:
        """Whether so many runs have completed, as the API says."""
        _, body = self.http.request("GET", "/v1/runs?status=Completed&limit=100")
        return len(body["data"]) >= n

    def end(self) -> None:
        """Let it finish all work; then every promise must hold."""
        self.finish.write_text("")
        assert self.child.wait(40) == 0, self.case.words
        assert self.case.broken() == [], self.case.words


@pytest.fixture
def shop(faulty_nursery, make_case):
    shops = []

    def open_shop(**config) -> Shop:
        shops.append(Shop(faulty_nursery, make_case(), **config))
        return shops[-1]

    yield open_shop
    for one in shops:
        one.child.kill()


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
    here.http.until("the next order to be accepted", lambda: here.order(100)[0] == 200, 5)
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
