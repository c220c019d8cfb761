"""Bringing runs into memory: claiming what is due, launching it, and what follows when a run has left."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from holdfast.base.codec import encode_json
from holdfast.base.errors import HoldfastError
from holdfast.core.claiming import Claim
from holdfast.core.ending import End, Ending
from holdfast.core.machine import Lease
from holdfast.core.plan import EventsOfBatch, StepsOf, Tx
from holdfast.core.queue import Leased
from holdfast.core.rows import EventRow, RunStatus, StepKind
from holdfast.engine import failures
from holdfast.engine.functions import Registered
from holdfast.engine.host import Host, Run
from holdfast.engine.live import LiveRun
from holdfast.engine.metrics import Metrics
from holdfast.engine.notices import Notice

_log = logging.getLogger("holdfast")


class Dispatch:
    """The runs in memory, and the way into it.

    Args:
        host: The node.
        metrics: Where starts are counted.
        claim_batch: Runs claimed at once.
        max_crashes: How often a run may take the process down, alone and without progress, before it fails for good.
    """

    def __init__(self, host: Host, metrics: Metrics, *, claim_batch: int, max_crashes: int) -> None:
        self._host = host
        self._metrics = metrics
        self._claim_batch = claim_batch
        self._max_crashes = max_crashes
        self.live: dict[bytes, LiveRun] = {}
        self.functions: dict[int, Registered] = {}
        self.claiming = False
        self.loading = 0
        """Runs leased to this node whose records are being read."""
        self._again = False
        self._put_off = False
        self._suspects: set[bytes] = set()
        self._empty: list[asyncio.Future[None]] = []

    def launch(self, leased: Sequence[Leased]) -> None:
        """Start runs that are leased to this node."""
        elsewhere = [one for one in leased if one.run.remote is not None]
        if elsewhere:
            self._host.call_out(elsewhere)
            leased = [one for one in leased if one.run.remote is None]
        stored = [one for one in leased if one.event is None]
        for one in leased:
            if one.event is not None:
                self._metrics.of(one.run.function_id).started += 1
                self._start(one, ())
        if stored:
            self._load(stored, self._start)

    def _start(self, leased: Leased, steps: Sequence[Any]) -> None:
        live = self._enter(leased)
        if steps:
            live.restore(list(steps))
        live.launch()
        if self._host.notices.wanted:
            self._host.notices.publish(Notice("run", live.run_id, live.fn.id))

    def _enter(self, leased: Leased) -> LiveRun:
        live = LiveRun(self._host, self.functions[leased.run.function_id], leased, {})
        live.batch = leased.batch
        self.live[leased.run.id] = live
        return live

    def _load(self, leased: Sequence[Leased], then: Any) -> None:
        """Read the events and steps of runs that come from the store. Until they are here, the runs take their room."""
        if not leased:
            return
        reads: list[Any] = [(EventRow, one.run.event_id) for one in leased]
        reads += [StepsOf(one.run.id) for one in leased]
        reads += [EventsOfBatch(one.run.id) for one in leased if one.run.batch]
        self.loading += len(leased)
        self._host.store.fetch_then(reads, partial(self._loaded, leased, then))

    def _loaded(self, leased: Sequence[Leased], then: Any, rows: Tx) -> None:
        places = {one.run.id: rows.find(EventsOfBatch(one.run.id)) for one in leased if one.run.batch}
        wanted: list[Any] = [(EventRow, place.event_id) for found in places.values() for place in found]
        if wanted:
            self._host.store.fetch_then(wanted, partial(self._complete, leased, then, rows, places))
        else:
            self._complete(leased, then, rows, places, rows)

    def _complete(
        self, leased: Sequence[Leased], then: Any, rows: Tx, places: dict[bytes, list[Any]], batches: Tx
    ) -> None:
        self.loading -= len(leased)
        for one in leased:
            item = self._host.store.cached_item(one.item.id)
            if item is None or item.epoch != one.item.epoch:
                self._suspects.discard(one.run.id)  # cancelled while its records were being read
                continue
            one.event = rows.get(EventRow, one.run.event_id)
            found = [batches.get(EventRow, place.event_id) for place in places.get(one.run.id, ())]
            one.batch = [event for event in found if event is not None]
            then(one, [step for step in rows.find(StepsOf(one.run.id)) if step.kind != StepKind.END])
        self.tell_if_empty()

    def claim(self) -> None:
        """Take from the store what is due, as much as fits."""
        if self.claiming:
            self._again = True
            return
        host = self._host
        room = host.room()
        self._put_off = room <= 0
        if not host.running or room <= 0:
            return
        self.claiming = True
        plan = Claim(min(room, self._claim_batch), self._host.executable, suspect=not self._suspects)
        plan.then = self._claimed
        try:
            host.submit(plan).add_done_callback(self._claim_done)
        except HoldfastError:
            self.claiming = False

    def _claimed(self, leased: list[Leased]) -> None:
        elsewhere = [one for one in leased if one.run.remote is not None]
        if elsewhere:
            self._host.call_out(elsewhere)
        more = bool(leased)
        leased = [one for one in leased if one.run.remote is None]
        self._suspects.update(one.run.id for one in leased if one.item.crashes)
        condemned = [one for one in leased if one.item.crashes > self._max_crashes]
        self._load([one for one in leased if one.item.crashes <= self._max_crashes], self._start)
        self._load(condemned, self._condemn)
        if more and self._host.room() > 0:
            self._again = True

    def _claim_done(self, future: asyncio.Future[Any]) -> None:
        self.claiming = False
        if future.exception() is not None:
            _log.warning("claiming work failed: %s", future.exception())
            return
        self._host.timers.arm(self._host.store.next_timer())
        if self._again:
            self._again = False
            self.claim()

    def _condemn(self, leased: Leased, steps: Sequence[Any]) -> None:
        """A run that took the process down too often fails for good."""
        error = encode_json(
            {
                "name": "ProcessDiedError",
                "message": f"the process died {leased.item.crashes} times in a row while it executed this run, "
                "without a step being recorded",
                "chain": ["ProcessDiedError"],
            },
            "error",
        )
        ending = Ending(RunStatus.FAILED, error=error, fingerprint=failures.fingerprint(error))
        live = self._enter(leased)
        plan = End(
            live.lease,
            ending,
            invoked=leased.run.origin == 1,
            waits=True,
            lifecycle=self._host.end_events(live.run, live.event_row, ending),
        )
        plan.then = partial(self._host.run_ended, live, ending)
        self._host.submit(plan)
        self.left(live)

    def resume(self, lease: Lease) -> None:
        """A run left memory in the moment something woke it: its lease holds, so its function starts over from the records."""
        item = self._host.store.cached_item(lease.item_id)
        run = self._host.store.cached_run(lease.run_id)
        if item is not None and run is not None and self._host.running:
            self.launch([Leased(run, item)])

    def left(self, live: Run) -> None:
        """A run's code has left memory."""
        if self.live.get(live.run.id) is live:
            del self.live[live.run.id]
        if live.run.id in self._suspects:
            self._suspects.discard(live.run.id)
            self.claim()
        elif self.wanted:
            self.claim()
        self.tell_if_empty()

    @property
    def wanted(self) -> bool:
        """Whether to claim as soon as there is room: something is in line, or came due when there was none."""
        return self._put_off or self._host.store.backlog()

    def tell_if_empty(self) -> None:
        """Whoever waits for the node to have nothing to do may look."""
        if not self._host.in_flight and self._empty:
            waiters, self._empty = self._empty, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def emptied(self) -> None:
        """Wait until no run is in memory, and no call under way."""
        while self._host.in_flight:
            waiter: asyncio.Future[None] = self._host.loop.create_future()
            self._empty.append(waiter)
            await waiter
