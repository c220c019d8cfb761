"""One lease of a run that is executed by calling its application."""

from __future__ import annotations

import msgspec

from holdfast.core.machine import Lease
from holdfast.core.progress import step_of_item
from holdfast.core.queue import Leased
from holdfast.core.rows import EventRow, RunRow, StepRow
from holdfast.engine.remote_functions import RemoteFunction
from holdfast.wire.calls import DISCOVERY


class RemoteRun(msgspec.Struct):
    """One lease of a run that is executed elsewhere, with what a call needs to know of it."""

    run: RunRow
    leased: Leased
    fn: RemoteFunction
    event: EventRow | None
    batch: list[EventRow]
    steps: list[StepRow]
    began: int
    given: frozenset[str] = frozenset()
    """The steps whose results the call has given."""
    attached: bool = False
    """Whether no call is reported on, but the request to a durable endpoint that began the run."""

    @property
    def lease(self) -> Lease:
        item = self.leased.item
        return Lease(item.id, item.run_id, item.owner, item.epoch)

    @property
    def target(self) -> str:
        """The step that is to be executed, or `step` for discovery."""
        return step_of_item(self.leased.item.id) or DISCOVERY
