"""Mirroring the statuses of runs to sinks: after the commit, behind it, and never instead of it.

What has changed is only noted; the status is then read from the store, so that what is written is true whatever has
been missed, coalesced or repeated. A crash loses the notes, not the truth: at start, the runs that a sink remembers as
unfinished, those that are live, and those that were queued since its last checkpoint are written again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence

import msgspec

from holdfast.base.errors import HoldfastError
from holdfast.engine.host import Host
from holdfast.engine.notices import Notice
from holdfast.engine.timers import Timers
from holdfast.sdk.status import JobStatus, Status, StatusSink
from holdfast.store.reads import RunFilter, RunProgress

_log = logging.getLogger("holdfast")

_BATCH = 100
"""Runs written at once."""
_PAGE = 500
_MAX_NOTED = 100_000
"""Changed runs noted one by one, while a sink is down; beyond that, everything since its checkpoint is read again."""
_OVERLAP_MS = 60_000
"""A run is queued at a moment and committed a little later: how much of what was before a checkpoint is read again."""
_CHECKPOINT_MS = 5_000
_RETRY_MS = (1_000, 2_000, 5_000, 10_000, 30_000)
_LIVE = ("QUEUED", "RUNNING", "WAITING")
_STATUSES: dict[str, Status] = {
    "QUEUED": "queued",
    "RUNNING": "running",
    "WAITING": "running",
    "COMPLETED": "completed",
    "FAILED": "failed",
    "CANCELLED": "cancelled",
}


def job_status(progress: RunProgress) -> JobStatus | None:
    """The status of a run; None for one that was skipped, which is no job."""
    run = progress.run
    status = _STATUSES.get(run.status)
    if status is None:
        return None
    failures = progress.attempts
    last = progress.error or (failures[-1].error if failures else None)
    data = msgspec.json.decode(progress.event.data) if progress.event is not None else {}
    return JobStatus(
        run_id=run.id,
        app=run.app,
        function=run.function.removeprefix(f"{run.app}-"),
        event_name=run.event_name,
        event_data=data if isinstance(data, dict) else {},
        status="retrying" if progress.retrying else status,
        queued_at=run.queued_at,
        started_at=run.started_at,
        finished_at=run.ended_at,
        attempt=1 + sum(failure.retry_at is not None for failure in failures),
        last_error=None if last is None else str(last.get("message", "")),
    )


class Mirror:
    """Keeps one sink of one app up to date."""

    def __init__(self, host: Host, app_id: str, sink: StatusSink) -> None:
        self._host = host
        self._app_id = app_id
        self._sink = sink
        self._noted: dict[str, None] = {}
        self._behind = True
        """Whether runs may have changed that are not noted."""
        self._wake = asyncio.Event()
        self._timers = Timers(host.clock, self._wake.set)
        self._failures = 0
        self._stopping = False
        self._checkpoint_at = 0
        self._task: asyncio.Task[None] | None = None
        self.writing = False
        """Whether something is being read or written at this moment."""

    def start(self) -> None:
        """Begin: first with what may have been missed."""
        self.writing = True
        self._task = self._host.loop.create_task(self._run())

    async def stop(self) -> None:
        """Write what is noted, if the sink can be reached, and disconnect."""
        self.kill()
        await self._ended()
        try:
            if not self._failures:
                await self._drain()
            await self._sink.close()
        except Exception as error:
            _log.warning("the status sink of app %s was left behind: %s; the next start makes up for it",
                         self._app_id, _words(error))  # fmt: skip

    def kill(self) -> None:
        """End with the batch that is being written; what else is noted stays so."""
        self._timers.cancel()
        self._stopping = True
        self._wake.set()

    async def disconnect(self) -> None:
        """Close the sink, once the batch is written."""
        await self._ended()
        await self._sink.close()

    async def _ended(self) -> None:
        if self._task is not None:
            await asyncio.wait({self._task})
        self._stopping = False

    def put(self, notice: Notice) -> None:
        """Note that something has changed."""
        if notice.kind == "run":
            self.note((notice.id,))

    def note(self, run_ids: Iterable[str]) -> None:
        """Note that these runs have changed; an empty id stands for any."""
        for run_id in run_ids:
            self._noted[run_id] = None
        if len(self._noted) > _MAX_NOTED or "" in self._noted:
            self._noted.clear()
            self._behind = True
        if not self._failures:
            self.writing = True
            self._wake.set()

    async def _run(self) -> None:
        while not self._stopping:
            try:
                self.writing = True
                await self._catch_up_and_write()
                self._failures = 0
            except Exception as error:
                self._put_off(error)
            self.writing = False
            await self._wake.wait()
            self._wake.clear()

    def _put_off(self, error: Exception) -> None:
        delay = _RETRY_MS[min(self._failures, len(_RETRY_MS) - 1)]
        if not self._failures or not isinstance(error, HoldfastError | OSError):
            _log.warning("the status sink of app %s can't be written: %s; trying again in %g s",
                         self._app_id, _words(error), delay / 1000)  # fmt: skip
        self._failures += 1
        self._behind = True  # what the sink has taken is not known
        self._timers.arm(self._host.clock.now() + delay)

    async def _catch_up_and_write(self) -> None:
        if self._behind:
            self._behind = False
            try:
                await self._catch_up()
            except BaseException:
                self._behind = True
                raise
        started = self._host.clock.now()
        await self._drain()
        if not self._stopping and started >= self._checkpoint_at + _CHECKPOINT_MS:
            await self._sink.checkpoint(started)
            self._checkpoint_at = started

    async def _drain(self) -> None:
        while self._noted and not self._stopping:
            batch = list(self._noted)[:_BATCH]
            for run_id in batch:
                del self._noted[run_id]
            try:
                await self._write(batch)
            except BaseException:
                self._noted = dict.fromkeys(batch) | self._noted
                raise

    async def _catch_up(self) -> None:
        before = await self._sink.open()
        started = self._host.clock.now()
        await self._write(before.unfinished)
        async for run_ids in self._listed(RunFilter(app=self._app_id, status=_LIVE)):
            await self._write(run_ids)
        since = before.until - _OVERLAP_MS if before.until else None
        async for run_ids in self._listed(RunFilter(app=self._app_id, since=since)):
            if self._stopping:
                self._behind = True  # the next start goes on from the last checkpoint
                return
            await self._write(run_ids)
            await self._drain()  # what happens now doesn't wait for what has happened
        await self._sink.checkpoint(started)
        self._checkpoint_at = started

    async def _listed(self, where: RunFilter) -> AsyncIterator[Sequence[str]]:
        cursor: str | None = None
        while True:
            runs, cursor = await self._host.reader.runs(where, limit=_PAGE, cursor=cursor)
            # oldest first within the page: a newer run writes over an older one, not the other way round
            yield [run.id for run in reversed(runs)]
            if cursor is None:
                return

    async def _write(self, run_ids: Sequence[str]) -> None:
        for start in range(0, len(run_ids), _BATCH):
            statuses, gone = [], []
            for run_id in run_ids[start : start + _BATCH]:
                progress = await self._host.reader.progress(run_id)
                if progress is None:
                    gone.append(run_id)
                elif progress.run.app == self._app_id:
                    status = job_status(progress)
                    if status is not None:
                        statuses.append(status)
            if statuses:
                await self._sink.write(statuses)
            if gone:
                await self._sink.forget(gone)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
