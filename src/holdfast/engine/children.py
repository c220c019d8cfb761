"""Cancelling a run cancels those it invoked with `cancel_with_parent`, also if the process dies in between."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import msgspec

from holdfast.base.errors import HoldfastError
from holdfast.base.ids import ulid_bytes
from holdfast.core.ending import Cancel, Ending
from holdfast.core.plan import StepsOf
from holdfast.core.rows import EventRow, RunRow, RunStatus, StepKind, StepState
from holdfast.engine.host import Host

_log = logging.getLogger("holdfast")


class _Invocation(msgspec.Struct):
    run_id: str
    cancel_with_parent: bool = False


class Children:
    """Follows cancelled runs to the runs they had invoked and were waiting for."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._tasks: set[asyncio.Task[None]] = set()

    def parent_cancelled(self, parent_id: bytes) -> None:
        """After the commit of a cancellation: cancel what was to be cancelled with it."""
        # not through the loop's factory: where a function has cancelled the parent, it would be taken for its own
        task = asyncio.Task(self._follow(parent_id), loop=self._host.loop)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish_cancelling(self) -> None:
        """At start: cancel what an earlier boot would have cancelled, had it lived a moment longer."""
        await self.follow_all(self._host.store.cancelled_with_children())

    async def follow_all(self, parents: Sequence[bytes]) -> None:
        """Cancel what was to be cancelled with these runs."""
        for parent_id in parents:
            await self._follow(parent_id)

    async def _bound(self, parent_id: bytes) -> list[bytes]:
        """The runs that are to be cancelled with this one."""
        found = []
        rows = await self._host.store.read([StepsOf(parent_id)])
        for step in rows.find(StepsOf(parent_id)):
            if step.kind == StepKind.INVOKE and step.state == StepState.PENDING and step.data is not None:
                invocation = msgspec.json.decode(step.data, type=_Invocation)
                if invocation.cancel_with_parent:
                    found.append(ulid_bytes(invocation.run_id))
        return found

    async def _follow(self, parent_id: bytes) -> None:
        try:
            for run_id in await self._bound(parent_id):
                await cancel_run(self._host, run_id)
        except HoldfastError as error:
            _log.warning("a run that was to be cancelled with its parent will be at the next start: %s", error)


async def cancel_run(host: Host, run_id: bytes) -> bool | None:
    """Cancel a run; False when it had ended already, None when there is none."""
    run = (await host.store.read([(RunRow, run_id)])).get(RunRow, run_id)
    if run is None:
        return None
    event = (await host.store.read([(EventRow, run.event_id)])).get(EventRow, run.event_id)
    return await host.submit(cancel_plan(host, run, event)) is not None


def cancel_plan(host: Host, run: RunRow, event: EventRow | None, reason: str | None = None) -> Cancel:
    """The plan that cancels a run as a person asks for it, with what follows its commit."""
    plan = Cancel(run.id, host.end_events(run, event, Ending(RunStatus.CANCELLED)), reason=reason)
    plan.then = lambda accepted: host.run_cancelled(run, accepted)
    return plan
