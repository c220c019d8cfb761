"""Bulk operations: an action on many runs, carried out in the background, a slice at a time, and taken up after a crash."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from holdfast.base.clock import TimerHandle
from holdfast.base.codec import decode_json
from holdfast.base.errors import ConfigurationError, HoldfastError, RunNotFoundError
from holdfast.base.ids import derived_id, ulid_bytes, ulid_ms, ulid_text
from holdfast.base.rate import rate_of
from holdfast.core.bulk import Act, CancelBulk, Progress, Slice
from holdfast.core.expressions import compile_expression
from holdfast.core.ingest import event_json
from holdfast.core.plan import Refused
from holdfast.core.restart import Discard, Write
from holdfast.core.rows import BulkRow, BulkState, EventRow, RunRow
from holdfast.engine.children import cancel_plan
from holdfast.engine.control import RunControl
from holdfast.engine.host import Host
from holdfast.engine.notices import Notice
from holdfast.engine.restarts import restart_plan
from holdfast.engine.selection import Selection, selection_of, stored
from holdfast.sdk.sender import BulkInfo
from holdfast.store.reads import RunView

_log = logging.getLogger("holdfast")

MAX_RUNNING: Final = 20
"""Operations that run at once at most."""
SLICE: Final = 50
"""Runs changed in one commit at most."""
_CROWDED_SLICE: Final = 20
_CROWDED_PAUSE_MS: Final = 250
"""While the node has no room, new runs are added at this pace, so that other events don't wait behind all of them."""
_RETRY_MS: Final = 5_000
_RATE_WINDOW_MS: Final = 250
_NO_CAP: Final = 1 << 62
_STATES: Final = {BulkState.RUNNING: "running", BulkState.DONE: "done", BulkState.CANCELLED: "cancelled"}


class Bulks:
    """The bulk operations of a node."""

    def __init__(self, host: Host, control: RunControl) -> None:
        self._host = host
        self._control = control
        self._running: dict[bytes, _Operation] = {}

    def boot(self) -> None:
        """Go on with what an earlier boot left."""
        self.take_up(self._host.store.running_bulks())

    def take_up(self, rows: Sequence[BulkRow]) -> None:
        """Go on with these. Should another node do so as well, each slice is still done once."""
        for row in rows:
            if row.id not in self._running:
                self._launch(row)

    async def stop(self) -> None:
        """Begin no more slices, and wait for those on their way."""
        operations = list(self._running.values())
        self.kill()
        await asyncio.gather(*(one.task for one in operations), return_exceptions=True)

    def kill(self) -> None:
        """Begin no more slices."""
        for operation in self._running.values():
            operation.task.cancel()

    async def count(self, action: str, where: Mapping[str, Any], *, rate: str | None = None) -> int:
        """How many runs an operation would come to. Errors as for `start`."""
        selection = selection_of(action, where, self._host.clock.now())
        if rate is not None:
            rate_of(rate)
        return await self._host.reader.count_runs(selection, cap=_NO_CAP)

    async def start(
        self, action: str, where: Mapping[str, Any], *, rate: str | None = None, actor: str = "python"
    ) -> BulkRow:
        """Begin an operation: it is on disk, and goes on by itself, when this returns.

        Args:
            action: cancel, rerun, redrive or discard.
            where: Which runs; see `selection_of`.
            rate: At most so many in so much time, such as `10/s`.
            actor: Who asked for it.

        Raises:
            ConfigurationError: the action, the filter or the rate can't be understood, or too many operations are running.
        """
        host = self._host
        selection = selection_of(action, where, host.clock.now())
        if rate is not None:
            rate_of(rate)
        total = await host.reader.count_runs(selection, cap=_NO_CAP)
        if len(self._running) >= MAX_RUNNING:
            raise ConfigurationError(f"{MAX_RUNNING} bulk operations are running; wait for one, or cancel it")
        now = host.clock.now()
        # ids of runs are made one millisecond ahead: this one is above those there are and below those to come
        bulk_id = host.ids.new(now + 1)
        row = BulkRow(bulk_id, action, selection.json(), actor[:200], now, rate=rate, total=total, cursor=bulk_id)
        if not total:
            row = msgspec.structs.replace(row, state=BulkState.DONE, ended_at=now)
        plan = Write([row])
        plan.then = lambda _: self._launch(row)
        await host.submit(plan)
        return row

    async def info(self, bulk_id: str) -> BulkInfo:
        """How far an operation is.

        Raises:
            RunNotFoundError: there is no such operation.
        """
        row = await self._find(bulk_id)
        return BulkInfo(
            bulk_id, row.action, _STATES[BulkState(row.state)], row.total, row.done, row.skipped, row.failed, row.error
        )

    async def cancel(self, bulk_id: str) -> bool:
        """Stop an operation where it is; False when it had ended. What it has done stays done.

        Raises:
            RunNotFoundError: there is no such operation.
        """
        row = await self._find(bulk_id)
        answer = await self._host.submit(CancelBulk(row.id))
        operation = self._running.get(row.id)
        if operation is not None:
            operation.task.cancel()
        self._publish(bulk_id)
        return not isinstance(answer, Refused)

    @property
    def busy(self) -> bool:
        """Whether an operation goes on without time passing."""
        return any(one.due is None for one in self._running.values())

    @property
    def next_due(self) -> int | None:
        """When the next slice of an operation with a rate is due."""
        return min((one.due for one in self._running.values() if one.due is not None), default=None)

    async def _find(self, bulk_id: str) -> BulkRow:
        try:
            raw = ulid_bytes(bulk_id)
        except ValueError as error:
            raise RunNotFoundError(f"{bulk_id[:60]!r} is not the id of a bulk operation") from error
        row = (await self._host.store.read([(BulkRow, raw)])).get(BulkRow, raw)
        if row is None:
            raise RunNotFoundError(f"there is no bulk operation {bulk_id}; it may have been removed by retention")
        return row

    def _launch(self, row: BulkRow) -> None:
        if row.state != BulkState.RUNNING:
            self._publish(ulid_text(row.id))
            return
        operation = _Operation(self._host, self._control, row, self._publish)
        self._running[row.id] = operation
        operation.task.add_done_callback(partial(self._ended, row.id))

    def _ended(self, bulk_id: bytes, task: asyncio.Task[None]) -> None:
        self._running.pop(bulk_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("bulk operation %s broke off and goes on after a restart", ulid_text(bulk_id), exc_info=error)

    def _publish(self, bulk_id: str) -> None:
        notices = self._host.notices
        if notices.wanted:
            notices.publish(Notice("bulk", bulk_id))


class _Operation:
    """One operation on its way."""

    def __init__(self, host: Host, control: RunControl, row: BulkRow, publish: Any) -> None:
        self._host = host
        self._control = control
        self._row = row
        self._publish = publish
        self._where: Selection = stored(row.filter)
        expression = self._where.expression
        self._expression = None if expression is None else compile_expression(expression)
        self._rate = None if row.rate is None else rate_of(row.rate)
        self._single = False
        """Whether the next slice is of one run, because one of several can't be written."""
        self.due: int | None = None
        """When it goes on; None: now."""
        # its own context, and not through the loop's factory: a run that asked for it doesn't own its task
        self.task = asyncio.Task(self._go(), loop=host.loop, context=contextvars.Context())

    async def _go(self) -> None:
        while self._row.state == BulkState.RUNNING and self._host.running and not self._host.draining:
            try:
                pause = await self._slice()
            except HoldfastError as error:
                if self._host.running:
                    _log.warning("bulk operation %s waits: %s", ulid_text(self._row.id), error)
                pause = _RETRY_MS
            if pause:
                await self._sleep(pause)

    async def _slice(self) -> int:
        """Act on the next runs; how many milliseconds to wait then."""
        host = self._host
        limit, pause = self._pace()
        views, more = await host.reader.runs(self._where, limit=limit, cursor=ulid_text(self._row.cursor))
        acts = await self._acts(views)
        problem = await self._commit(acts, last=more is None)
        if problem is not None and len(acts) > 1:
            self._single = True
            return 0
        if problem is not None:
            refused = [msgspec.structs.replace(act, plan=None, refused=problem) for act in acts]
            await self._commit(refused, last=more is None)
        self._single = False
        changed = sum(act.plan is not None for act in acts)
        return max(pause, 0 if self._rate is None else self._rate.ms_for(changed))

    def _pace(self) -> tuple[int, int]:
        """How many runs come next, and the least time to wait after them, in milliseconds."""
        host = self._host
        limit = SLICE if self._rate is None else min(SLICE, self._rate.within(_RATE_WINDOW_MS))
        pause = 0
        if self._row.action in {"rerun", "redrive"} and (host.room() * 2 <= host.capacity or host.store.backlog()):
            limit, pause = min(limit, _CROWDED_SLICE), _CROWDED_PAUSE_MS
        return (1 if self._single else limit), pause

    async def _commit(self, acts: Sequence[Act], *, last: bool) -> str | None:
        """Write a slice; why it can't be written, if it can't."""
        plan = Slice(self._row, acts, last=last)
        plan.then = partial(self._moved, acts)
        try:
            answer = await self._host.submit(plan)
        except HoldfastError:
            raise
        except Exception as error:  # of one run's plan; the others must go on
            _log.exception("bulk operation %s", ulid_text(self._row.id))
            return f"{type(error).__name__}: {error}"
        if not isinstance(answer, Refused):
            return None
        before = self._row.cursor
        rows = await self._host.store.read([(BulkRow, self._row.id)])
        self._row = rows.get(BulkRow, self._row.id) or msgspec.structs.replace(self._row, state=BulkState.CANCELLED)
        moved = self._row.cursor != before or self._row.state != BulkState.RUNNING
        return None if moved else "a row of the new run is there already"

    def _moved(self, acts: Sequence[Act], answer: Progress | Refused) -> None:
        """After the commit of a slice: what follows the change of each run."""
        if isinstance(answer, Refused):
            return
        self._row = answer.bulk
        for act, one in zip(acts, answer.answers, strict=True):
            if act.plan is not None and act.plan.then is not None:
                act.plan.then(one)
        self._publish(ulid_text(self._row.id))
        if self._host.notices.wanted and self._row.action in {"redrive", "discard"}:
            self._host.notices.publish(Notice("dead", ulid_text(self._row.cursor)))

    # -- one run -------------------------------------------------------------------------------------------------------

    async def _acts(self, views: Sequence[RunView]) -> list[Act]:
        raws = [ulid_bytes(view.id) for view in views]
        rows = await self._host.store.read([(RunRow, raw) for raw in raws])
        runs = [(raw, rows.get(RunRow, raw)) for raw in raws]
        events = await self._host.store.read([(EventRow, run.event_id) for _, run in runs if run is not None])
        return [
            self._act(raw, run, events.get(EventRow, run.event_id) if run is not None else None) for raw, run in runs
        ]

    def _act(self, raw: bytes, run: RunRow | None, event: EventRow | None) -> Act:
        if run is None or not self._chosen(event):
            return Act(raw)
        if self._row.action == "cancel":
            return self._cancel(run, event)
        if self._row.action == "discard":
            return Act(raw, Discard(raw))
        return self._restart(run, event)

    def _chosen(self, event: EventRow | None) -> bool:
        if self._expression is None:
            return True
        return event is not None and self._expression.matches(event=decode_json(event_json(event)))

    def _cancel(self, run: RunRow, event: EventRow | None) -> Act:
        if run.ended_at is not None:
            return Act(run.id)
        reason = f"cancelled by {self._row.actor}, bulk operation {ulid_text(self._row.id)}"
        return Act(run.id, cancel_plan(self._host, run, event, reason))

    def _restart(self, run: RunRow, event: EventRow | None) -> Act:
        # above the operation's own id, so that the operation doesn't come to it
        ms = max(self._host.clock.now(), ulid_ms(self._row.id)) + 1
        new_id = derived_id(ms, self._row.id, run.id)
        try:
            plan = restart_plan(self._host, run, event, redrive=self._row.action == "redrive", new_id=new_id)
        except ConfigurationError as error:
            return Act(run.id, refused=str(error))
        plan.then = self._control.restarted
        return Act(run.id, plan)

    # -- time ----------------------------------------------------------------------------------------------------------

    async def _sleep(self, ms: int) -> None:
        clock = self._host.clock
        awake: asyncio.Future[None] = self._host.loop.create_future()
        self.due = clock.now() + ms
        timer: TimerHandle = clock.call_at(self.due, partial(_wake, awake))
        try:
            await awake
        finally:
            timer.cancel()
            self.due = None


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
