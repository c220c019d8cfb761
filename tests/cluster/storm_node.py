"""A node of the storm: `python storm_node.py <json>`. Serves its API, executes, and stops when it is told to."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import holdfast.store.postgres.groups
import holdfast.store.postgres.store
from holdfast.base.clock import FollowingClock, TimerHandle
from holdfast.compose import build_engine
from holdfast.engine.engine import EngineOptions
from holdfast.server.serve import serving
from holdfast.server.settings import ServerSettings
from storm_app import PACE, make_storm
from storm_ledger import Ledger


class FastClock(FollowingClock):
    """The database's time, in which more time passes: the same on all nodes, as it is worked out from the same moment."""

    __slots__ = ("_origin",)

    def __init__(self, origin: int) -> None:
        super().__init__()
        self._origin = origin

    def now(self) -> int:
        return int(self._origin + (self._ahead + time.monotonic() * 1000 - self._origin) * PACE)

    def call_at(self, when: int, callback: Callable[[], None]) -> TimerHandle:
        return _FastTimer(self, when, callback)


class _FastTimer:
    def __init__(self, clock: FastClock, when: int, callback: Callable[[], None]) -> None:
        self._clock, self._when, self._callback = clock, when, callback
        self._arm()

    def _arm(self) -> None:
        delay = min(max(0, self._when - self._clock.now()) / PACE, 1000)
        self._handle = asyncio.get_running_loop().call_later(delay / 1000, self._look)

    def _look(self) -> None:
        if self._clock.now() >= self._when:
            self._callback()
        else:
            self._arm()

    def cancel(self) -> None:
        self._handle.cancel()


def believe_it_is_another_time(seconds: float) -> None:
    """A machine whose clock is wrong."""
    true, true_ns = time.time, time.time_ns
    time.time = lambda: true() + seconds
    time.time_ns = lambda: true_ns() + int(seconds * 1e9)


def take_the_fence_down() -> None:
    """What the storm must notice: whoever reports a result is believed, and the declared dead go on."""

    def holds(tx: Any, lease: Any) -> Any:
        from holdfast.core.rows import ItemRow

        return tx.get(ItemRow, lease.item_id)

    for name, module in list(sys.modules.items()):
        if name.startswith("holdfast.core.") and hasattr(module, "holds"):
            module.holds = holds  # type: ignore[attr-defined]
    holdfast.store.postgres.groups._check_node = lambda _cursor: None
    holdfast.store.postgres.store.PostgresStore._on_fenced = lambda _store: None  # type: ignore[method-assign]


async def main(config: dict[str, Any]) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    holdfast.store.postgres.store.FollowingClock = lambda: FastClock(config["origin"])  # type: ignore[assignment,misc]
    if config.get("unfenced"):
        take_the_fence_down()
    options = EngineOptions(
        capacity=60, claim_batch=20, max_crashes=1_000_000, linger_ms=config["linger_ms"], drain_seconds=10
    )
    engine = build_engine([make_storm(Ledger(Path(config["ledger"])))], config["url"], options=options)
    async with engine, serving(engine, ServerSettings(port=0)) as server:
        os.write(1, json.dumps({"port": server.port}).encode() + b"\n")
        await stop.wait()


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    believe_it_is_another_time(settings["clock_off_by"])
    asyncio.run(main(settings))
