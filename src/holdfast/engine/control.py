"""Answering for runs: starting, reading, cancelling, and starting again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import msgspec

from holdfast.base.errors import (
    ConfigurationError,
    HoldfastError,
    RunCancelledError,
    RunFailedError,
    RunNotFoundError,
    RunRefusedError,
)
from holdfast.base.ids import ulid_bytes, ulid_text
from holdfast.core.ingest import Accepted, Ingest
from holdfast.core.plan import Refused
from holdfast.core.restart import Discard, Write
from holdfast.core.rows import AuditRow, EventRow, RunRow, RunStatus, StepRow
from holdfast.engine.children import cancel_run
from holdfast.engine.crons import tick
from holdfast.engine.following import follow
from holdfast.engine.host import Host
from holdfast.engine.notices import Notice
from holdfast.engine.restarts import restart_plan
from holdfast.sdk.sender import Edit, Outgoing, RunInfo
from holdfast.store.reads import RunFilter


class RunControl:
    """What can be asked of a node about its runs. The engine offers these methods as its own."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._waiters: dict[bytes, list[asyncio.Future[None]]] = {}

    def announce(self, run_id: bytes) -> None:
        """A run has ended: whoever waits for its result may look."""
        for waiter in self._waiters.pop(run_id, ()):
            if not waiter.done():
                waiter.set_result(None)

    @property
    def awaited(self) -> list[bytes]:
        """Runs whose results are waited for here."""
        return list(self._waiters)

    def close(self, error: HoldfastError) -> None:
        """Nobody will be told any more."""
        for waiters in self._waiters.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(error)

    async def start(self, function: str, event: Outgoing) -> str:
        """See `Control.start`."""
        _, run_id = await self.start_event(function, event)
        return run_id

    async def start_event(self, function: str, event: Outgoing) -> tuple[str, str]:
        """Start a function for an event: the event's id and the run's, which a batch or a debounce will have once it starts.

        Raises:
            ConfigurationError: there is no such function here.
            RunRefusedError: its flow control doesn't let a run start.
        """
        event_id, run_id, _ = await self.start_once(function, event)
        return event_id, run_id

    async def start_once(self, function: str, event: Outgoing) -> tuple[str, str, bool]:
        """The same, and whether an event with the same id had started the function within 24 hours: the run is that one then."""
        fn = self._host.functions.get(function) or self._host.applications.by_slug.get(function)
        if fn is None:
            raise ConfigurationError(
                f"there is no function {function!r} here; known are: {', '.join(sorted(self._host.functions)) or 'none'}"
            )
        now = self._host.clock.now()
        incoming = self._host.intake.prepare([event])[0]
        incoming.matches = [self._host.intake.match(incoming.event, self._host.ids.new(now + 1), fn.id, fn.version)]
        incoming.filtered = ()
        plan = Ingest([incoming], len(event.data) + 256)
        plan.then = self._host.accepted
        accepted = await self._host.submit(plan)
        if isinstance(accepted, Refused):
            raise HoldfastError(f"the run of {function!r} could not be started: {accepted.reason}")
        if accepted.refused:
            raise RunRefusedError(function, accepted.refused[0], ulid_text(accepted.runs[0]) if accepted.runs else None)
        return ulid_text(incoming.event.id), ulid_text(accepted.runs[0]), any(accepted.duplicates)

    async def result(self, run_id: str, timeout: float | None) -> bytes:
        """See `Control.result`."""
        raw = _run_key(run_id)
        waiter: asyncio.Future[None] = self._host.loop.create_future()
        self._waiters.setdefault(raw, []).append(waiter)
        try:
            async with asyncio.timeout(timeout):
                while True:
                    outcome = await self._outcome(raw)
                    if outcome is not None:
                        return outcome
                    await waiter
                    waiter = self._host.loop.create_future()
                    self._waiters.setdefault(raw, []).append(waiter)
        finally:
            waiting = self._waiters.get(raw)
            if waiting is not None:
                if waiter in waiting:
                    waiting.remove(waiter)
                if not waiting:
                    del self._waiters[raw]

    async def _outcome(self, raw: bytes) -> bytes | None:
        rows = await self._host.store.read([(RunRow, raw), (StepRow, (raw, ""))])
        run = rows.get(RunRow, raw)
        if run is None and await self._host.store.gather_of(raw) is not None:
            return None
        if run is None:
            raise RunNotFoundError(f"there is no run {ulid_text(raw)}; it may have been removed by retention")
        if run.ended_at is None:
            return None
        end = rows.get(StepRow, (raw, ""))
        if run.status == RunStatus.COMPLETED:
            return (end.data if end is not None else None) or b"null"
        if run.status == RunStatus.CANCELLED:
            raise RunCancelledError(f"run {ulid_text(raw)} was cancelled" + (f": {run.reason}" if run.reason else ""))
        if run.status == RunStatus.SKIPPED:
            raise RunCancelledError(f"run {ulid_text(raw)} was skipped: {run.reason}")
        error = msgspec.json.decode(end.error) if end is not None and end.error else {}
        step = error.get("step_name", error.get("step"))
        raise RunFailedError(
            ulid_text(raw), error.get("name", "Error"), error.get("message", ""), error.get("stack"), step
        )

    async def run_info(self, run_id: str) -> RunInfo:
        """See `Control.run_info`."""
        view = await self._host.reader.run_view(run_id)
        if view is None:
            raise RunNotFoundError(f"there is no run {run_id}; it may have been removed by retention")
        return _info(view)

    async def watch_run(self, run_id: str) -> AsyncIterator[RunInfo]:
        """See `Control.watch_run`."""
        async with aclosing(follow(self._host, run_id)) as changes:
            async for change in changes:
                if change is not None:
                    yield _info(change.run)

    async def list_runs(
        self,
        *,
        status: str | None = None,
        function: str | None = None,
        event_id: str | None = None,
        limit: int = 100,
    ) -> AsyncIterator[RunInfo]:
        """See `Control.list_runs`."""
        cursor: str | None = None
        left = limit
        where = RunFilter(status=(status,) if status else (), function=function, event_id=event_id)
        while left > 0:
            views, cursor = await self._host.reader.runs(where, limit=min(left, 100), cursor=cursor)
            for view in views:
                yield _info(view)
            left -= len(views)
            if cursor is None:
                return

    async def cancel(self, run_id: str) -> bool:
        """See `Control.cancel`."""
        cancelled = await cancel_run(self._host, _run_key(run_id))
        if cancelled is None:
            raise RunNotFoundError(f"there is no run {run_id}; it may have been removed by retention")
        return cancelled

    async def rerun(self, run_id: str, edit: Edit | None = None) -> str:
        """A new run of the same function for the same event, from the beginning or as the edit says.

        Raises:
            RunNotFoundError: there is no such run.
            ConfigurationError: its function is not part of this app any more, the run has not ended, or the edit names
                a step that it doesn't have.
            EventInvalidError: the edited event is not acceptable.
        """
        return await self._restart(run_id, redrive=False, edit=edit)

    async def redrive(self, run_id: str, edit: Edit | None = None) -> str:
        """A new run that goes on where a dead letter stopped; twice gives the same run. Errors as for `rerun`."""
        return await self._restart(run_id, redrive=True, edit=edit)

    async def _restart(self, run_id: str, *, redrive: bool, edit: Edit | None) -> str:
        raw = _run_key(run_id)
        run = (await self._host.store.read([(RunRow, raw)])).get(RunRow, raw)
        if run is None:
            raise RunNotFoundError(f"there is no run {run_id}; it may have been removed by retention")
        event = (await self._host.store.read([(EventRow, run.event_id)])).get(EventRow, run.event_id)
        plan = restart_plan(self._host, run, event, redrive=redrive, edit=edit)
        plan.then = self.restarted
        answer = await self._host.submit(plan)
        if isinstance(answer, Refused):
            raise ConfigurationError(f"run {run_id} can't be {'redriven' if redrive else 'rerun'}: {answer.reason}")
        if self._host.notices.wanted:
            self._host.notices.publish(Notice("dead", run_id, run.function_id))
        return ulid_text(answer[0])

    def restarted(self, answer: tuple[bytes, Accepted] | Refused) -> None:
        """After the commit of a restart: execute what was leased."""
        if not isinstance(answer, Refused):
            self._host.accepted(answer[1])

    async def discard(self, run_id: str) -> bool:
        """Set a dead letter aside for good; False when there is none."""
        done = await self._host.submit(Discard(_run_key(run_id)))
        if done and self._host.notices.wanted:
            self._host.notices.publish(Notice("dead", run_id))
        return done is True

    async def run_cron(self, slug: str, schedule: str) -> str:
        """Fire a schedule now, beside its occurrences; the run's id.

        Raises:
            ConfigurationError: there is no such function or schedule here.
        """
        fn = self._host.functions.get(slug)
        if fn is None or all(trigger.cron != schedule for trigger in fn.function.triggers):
            raise ConfigurationError(f"function {slug!r} has no schedule {schedule!r} here")
        plan = Ingest([tick(self._host, fn, schedule, self._host.clock.now())], 256)
        plan.then = self._host.accepted
        accepted = await self._host.submit(plan)
        if isinstance(accepted, Refused):
            raise HoldfastError(f"{slug!r} could not be started: {accepted.reason}")
        if accepted.refused:
            raise RunRefusedError(slug, accepted.refused[0], ulid_text(accepted.runs[0]) if accepted.runs else None)
        return ulid_text(accepted.runs[0])

    async def audit(self, actor: str, action: str, target: str, detail: str = "", origin: str = "") -> None:
        """Append to the audit log.

        Args:
            actor: Who changed something.
            action: What was done, as `run.cancel`.
            target: To what.
            detail: What else there is to say.
            origin: The address it came from, and by which way.
        """
        now = self._host.clock.now()
        row = AuditRow(
            self._host.ids.new(now), now, actor[:200], action[:100], target[:300], detail[:1000], origin[:100]
        )
        await self._host.submit(Write([row]))


def _run_key(run_id: str) -> bytes:
    try:
        return ulid_bytes(run_id)
    except ValueError as error:
        raise RunNotFoundError(f"{run_id!r:.60} is not a run id") from error


def _info(view: Any) -> RunInfo:
    return RunInfo(
        view.id,
        view.function,
        view.status,
        view.event_id,
        view.event_name,
        view.queued_at,
        view.started_at,
        view.ended_at,
        view.attempt,
        view.error,
        view.reason,
        view.progress,
        view.steps,
    )
