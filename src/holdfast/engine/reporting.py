"""`ctx.progress`: the latest a run has said, written with whatever its run writes next, or else a moment later.

It never costs a commit of its own where a step is recorded soon after, and at most a few in a second where none is: what
is said in between is passed over for what is said last.
"""

from __future__ import annotations

import logging

from holdfast.base.errors import HoldfastError
from holdfast.core.plan import Refused
from holdfast.core.reporting import Progress, Report, row_of
from holdfast.core.rows import ProgressRow
from holdfast.engine.host import Run
from holdfast.engine.notices import Notice

_log = logging.getLogger("holdfast")

WINDOW_SECONDS = 0.25
"""How long a report waits for another write of its run to go with."""


class Reporter:
    """What one lease of a run says about its progress. `report` may be called from any thread, the rest from the loop."""

    __slots__ = ("_armed", "_live", "_said")

    def __init__(self, live: Run) -> None:
        self._live = live
        self._said: Progress | None = None
        self._armed = False

    def report(self, progress: Progress) -> None:
        """Keep this, instead of what was said before and is not written yet."""
        self._said = progress
        if not self._armed and self._live.host.running:
            self._armed = True
            self._live.host.loop.call_soon_threadsafe(self._wait)

    def take(self) -> list[ProgressRow]:
        """What is to be written, to go with the next commit."""
        said, self._said = self._said, None
        return [] if said is None else [row_of(self._live.run.id, said)]

    def _wait(self) -> None:
        self._live.host.loop.call_later(WINDOW_SECONDS, self._write)

    def _write(self) -> None:
        """The window is over: write what no other write took along, and tell whoever watches."""
        self._armed = False
        live, host = self._live, self._live.host
        rows = self.take()
        if live.abandoned or not host.running or not (rows or host.notices.wanted):
            return
        # where it was taken along already, the plan only stands in line behind that write
        plan = Report(live.lease, rows[0] if rows else None)
        plan.then = self._written
        try:
            host.submit(plan)
        except HoldfastError as error:
            _log.warning("the progress of run %s could not be recorded: %s", live.run_id, error)

    def _written(self, kept: bool | Refused) -> None:
        live = self._live
        if kept is True and live.host.notices.wanted:
            live.host.notices.publish(Notice("progress", live.run_id, live.fn.id))
