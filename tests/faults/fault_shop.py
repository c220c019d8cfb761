"""A server under test over a disk that can fail, and its customers."""

from __future__ import annotations

from typing import Any

import fault_disk
from fault_disk import Counters
from fault_http import Client
from ports import free_port


class Shop:
    """A server under test over a disk that can fail."""

    def __init__(self, nursery: Any, case: Any, **config: Any) -> None:
        self.case = case
        self.counters = Counters(case.directory / "counters")
        self.port = free_port()
        self.finish = case.directory / "finish"
        self.config = {
            **case.config,
            "counters": str(self.counters.path),
            "port": self.port,
            "finish": str(self.finish),
            **config,
        }
        self.nursery = nursery
        self.http = Client(self.port)
        self.start()

    def launch(self) -> None:
        """Start it, and don't wait for it to serve."""
        self.child = self.nursery.start(self.config)

    def start(self) -> None:
        """Start it, and wait until it serves."""
        self.launch()
        assert self.child.expect("serving", 60) == self.port, self.case.words

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

    def stop(self) -> int:
        """Let it stop at once, whatever there is to do; its exit status."""
        self.finish.write_text("at once")
        status = self.child.wait(90)
        self.finish.unlink()
        return status

    def lose_power(self, keep: Any = None) -> None:
        """The machine goes down: what was not synced may be gone."""
        self.child.kill()
        self.child.wait()
        fault_disk.power_cut(self.case.database, keep)
        self.case.observed.look()

    def end(self) -> None:
        """Let it finish all work; then every promise must hold."""
        self.finish.write_text("")
        assert self.child.wait(90) == 0, self.case.words
        assert self.case.broken() == [], self.case.words
