"""One of several nodes on a store: what the others say, what they leave when they die, and what this one has not heard.

Everything here is a hint acted upon or a look taken: what is decided goes through plans, which check their rows. A node that
hears nothing, behind a pooler or while the network is away, finds out at its next look.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from holdfast.base.errors import HoldfastError
from holdfast.core.claiming import Recover
from holdfast.core.plan import StepsOf
from holdfast.core.rows import StepKind, StepState
from holdfast.engine.alarms import Alarms
from holdfast.engine.control import RunControl
from holdfast.engine.flow_control import open_lanes
from holdfast.engine.host import Host
from holdfast.engine.live import LiveRun
from holdfast.engine.notice_relay import NoticeRelay
from holdfast.store.api import SharedStore, Signal

_log = logging.getLogger("holdfast")
_FROM_OUTSIDE = frozenset({StepKind.WAIT_EVENT, StepKind.WAIT_SIGNAL, StepKind.INVOKE})
"""Steps whose results somebody else records."""


class Cluster:
    """Keeps a node in step with the others.

    Args:
        host: The node.
        store: What it shares with the others.
        live: The runs in memory.
        control: Who awaits results.
        alarms: Moments that other nodes may have set.
        take_up: Goes on with what else a node has begun that is gone: cancellations and bulk operations.
        follow_functions: Takes up functions and applications that were registered at other nodes.
    """

    def __init__(
        self,
        host: Host,
        store: SharedStore,
        live: dict[bytes, LiveRun],
        control: RunControl,
        alarms: Alarms,
        take_up: Callable[[], Coroutine[Any, Any, None]],
        follow_functions: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self._host = host
        self._store = store
        self._live = live
        self._control = control
        self._alarms = alarms
        self._take_up = take_up
        self._follow_functions = follow_functions
        self._relay = NoticeRelay(host.notices, store)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()

    def start(self) -> None:
        """Begin to listen and to look."""
        self._store.report(self._load)
        self._store.follow(self._signalled, self._look)
        self._relay.start()
        self._store.look_soon()  # and have the others see that this node has come

    def stop(self) -> None:
        """Listen and look no more."""
        self._store.follow(None, None)
        self._relay.stop()
        for task in self._tasks.values():
            task.cancel()

    def _load(self) -> tuple[int, int, bool]:
        """In the thread that renews the lease."""
        return self._host.in_flight, self._host.capacity, self._host.notices.watched

    # -- when ------------------------------------------------------------------------------------------------------------

    def _signalled(self, signal: Signal) -> None:
        if not self._host.running:
            return
        if signal.work:
            self._store.doubt_lanes()
            self._host.claim()
        if signal.alarms:
            self._alarms.arm(self._host.clock.now())
        if signal.ended:
            self._do("ended", self._tell_ended)
        if self._store.boot in signal.woken:
            self._do("woken", self._take_in)
        if signal.states:
            self._do("states", self._take_states)
        if signal.outbox:
            self._host.outbox_changed()
        if signal.functions:
            self._do("functions", self._follow_functions)
        if signal.changed:
            self._relay.heard(signal.changed)
        if signal.nodes:
            self._store.look_soon(tell=False)

    def _look(self) -> None:
        """Once in a while: whatever no signal told."""
        if not self._host.running:
            return
        self._relay.looked()
        if self._store.leads and self._store.dead_nodes:
            self._do("recover", self._recover)
        if self._store.alone:
            return
        boot = self._store.boot
        self._signalled(Signal(work=True, alarms=True, ended=True, states=True, functions=True, woken={boot}))

    def _do(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """One piece of work of a kind at a time, and once more if it was asked for meanwhile."""
        task = self._tasks.get(name)
        if task is not None and not task.done():
            self._again.add(name)
            return
        self._tasks[name] = self._host.loop.create_task(self._repeat(name, work))

    async def _repeat(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            self._again.discard(name)
            try:
                await work()
            except HoldfastError as error:
                _log.warning("looking at what other nodes did failed, and is tried again: %s", error)
            except Exception:  # the next look must not be kept from happening
                _log.exception("looking at what other nodes did failed")
            if name not in self._again:
                return

    # -- what ------------------------------------------------------------------------------------------------------------

    async def _recover(self) -> None:
        """Take up what dead nodes were executing."""
        while items := await self._store.left_behind():
            _log.warning("recovering %d runs that were being executed by a node that is gone", len(items))
            if not await self._host.submit(Recover(items)):
                break
        if await self._store.audit_places():
            self._store.doubt_lanes()
        self._host.claim()  # suspects are no backlog, and nobody else says that there are some
        await self._take_up()
        await self._store.settled()

    async def _tell_ended(self) -> None:
        for run_id in await self._store.ended(self._control.awaited):
            self._control.announce(run_id)

    async def _take_states(self) -> None:
        changed = self._host.take_states(await self._store.function_states_now())
        if changed:
            await open_lanes(self._host, changed)
            self._host.claim()

    async def _take_in(self) -> None:
        """Runs in memory that another node has resolved something for, or has taken away."""
        for run_id, ours in (await self._store.changed_elsewhere(list(self._live))).items():
            live = self._live.get(run_id)
            if live is None or live.abandoned:
                continue
            if not ours:
                live.abandon()
                continue
            rows = await self._store.read([StepsOf(run_id)])
            for step in sorted(rows.find(StepsOf(run_id)), key=lambda step: step.seq):
                if step.kind in _FROM_OUTSIDE and step.state != StepState.PENDING and step.key not in live.taken_in:
                    live.resolved(step, 0)
