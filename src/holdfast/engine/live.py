"""A run in memory: its function's coroutine, its recorded steps, and how it ends, parks or is abandoned."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any
from zlib import crc32

from holdfast.base.errors import HoldfastError, NonRetriableError, StepError, StepUsageError, Suspended
from holdfast.base.ids import ulid_text
from holdfast.base.masks import Masks, hide
from holdfast.core.ending import End, Ending
from holdfast.core.flow import GateKind
from holdfast.core.machine import FailAttempt, Lease, Park
from holdfast.core.overrides import input_of
from holdfast.core.plan import STALE, Refused
from holdfast.core.queue import Leased
from holdfast.core.reporting import checked
from holdfast.core.rows import AttemptRow, EventRow, NoteRow, RunStatus, StepKind, StepRow, StepState
from holdfast.engine import failures
from holdfast.engine.functions import Registered
from holdfast.engine.host import Host
from holdfast.engine.logs import RunLogger
from holdfast.engine.perform import perform
from holdfast.engine.places import Places
from holdfast.engine.reporting import Reporter
from holdfast.engine.residence import Residence
from holdfast.engine.tasks import current_run, current_step
from holdfast.engine.threads import Bridge
from holdfast.sdk.calls import StepCall
from holdfast.sdk.context import Context, SyncContext
from holdfast.sdk.triggers import Trigger

_log = logging.getLogger("holdfast")
_runs_log = logging.getLogger("holdfast.runs")


class LiveRun(Residence):
    """One lease of one run. What it decides goes through plans; this is only their memory."""

    __slots__ = (
        "_logger",
        "_reporter",
        "_used",
        "batch",
        "event_row",
        "fn",
        "has_waits",
        "lease",
        "notes",
        "recorded_at",
        "run",
        "timed_out",
    )

    def __init__(self, host: Host, fn: Registered, leased: Leased, recorded: dict[str, StepRow]) -> None:
        super().__init__(host, recorded, leased.item.woken)
        self.fn = fn
        self.run = leased.run
        item = leased.item
        self.lease = Lease(item.id, item.run_id, item.owner, item.epoch)
        if item.epoch > 1 and not item.due:
            self.woken_from_outside()
        self.event_row = leased.event
        self.batch: list[EventRow] = []
        """The events of a batch, in their order."""
        self.recorded_at: dict[str, int] = {}
        self.notes: list[str] = []
        flow = fn.flow
        self.has_waits = self.run.version != fn.version or (flow is not None and flow.watched)
        if flow is not None and flow.caps:
            gates = [gate for gate in flow.gates(self.run.lane, started=True) if gate.kind == GateKind.LEASE]
            self.places = Places(host.submit, self.lease, gates)
        self.timed_out: dict[str, int] = {}
        """Bodies cancelled because they took longer than this many ms."""
        self._used: dict[str, int] = {}
        self._logger: RunLogger | None = None
        self._reporter: Reporter | None = None

    # -- what the context asks -----------------------------------------------------------------------------------------

    @property
    def run_id(self) -> str:
        return ulid_text(self.run.id)

    @property
    def attempt(self) -> int:
        return self.run.attempt

    @property
    def triggers(self) -> Sequence[Trigger]:
        """See `StepDriver.triggers`."""
        return self.fn.function.triggers

    @property
    def function_slug(self) -> str:
        return self.fn.function.slug

    @property
    def resources(self) -> Any:
        return self.fn.resources

    def logger(self) -> RunLogger:
        if self._logger is None:
            self._logger = RunLogger(self)
        return self._logger

    def show_progress(self, fraction: float | None, text: str) -> None:
        """See `RunScope.show_progress`."""
        progress = checked(fraction, text, self.host.clock.now())
        # what stands before recorded steps was said when they began; the body of a step is never executed by a replay
        if self.abandoned or (self.recorded and current_step.get() is None):
            return
        if self._reporter is None:
            self._reporter = Reporter(self)
        self._reporter.report(progress)

    def report(self, level: int, what: str, error: BaseException) -> None:
        """Tell the program's log what became of an attempt; its page has the record."""
        _runs_log.log(
            level,
            "%s, run %s: %s: %s: %s",
            self.function_slug,
            self.run_id,
            what,
            type(error).__name__,
            hide(failures.message_of(error), self.hidden).partition("\n")[0][:300],
            extra={"run_id": self.run_id, "function_id": self.function_slug, "attempt": self.run.attempt},
        )

    @property
    def hidden(self) -> frozenset[str]:
        """The marked values of its event, which no record of an error is to show."""
        paths = self.fn.function.sensitive
        return Masks(paths).hidden_in(self.event_row.data) if paths and self.event_row is not None else frozenset()

    def take_logs(self) -> list[Any]:
        """Log lines and progress not yet written, to go with the next commit."""
        rows = self._logger.take() if self._logger is not None else []
        return rows if self._reporter is None else rows + self._reporter.take()

    @property
    def replaying(self) -> bool:
        """Whether recorded results are still to be reached."""
        return any(row.state != StepState.PENDING for row in self.recorded.values())

    def restore(self, steps: list[StepRow]) -> None:
        """Take up what earlier leases recorded."""
        self.recorded = {step.key: step for step in steps}
        self.taken_in.update(step.key for step in steps if step.state != StepState.PENDING)
        self.recorded_at = {step.key: step.ended_at for step in steps if step.ended_at is not None}
        self.has_waits = self.has_waits or any(step.kind in _WAITING for step in steps)
        if self.run.version != self.fn.version and steps:
            self.note(
                f"the function's configuration changed since this run began (version {self.run.version}, now {self.fn.version})"
            )

    # -- executing the function ----------------------------------------------------------------------------------------

    def launch(self) -> None:
        """Start the function."""
        # not through the loop's factory: the root is this run's own
        self.root = asyncio.Task(self._main(), loop=self.host.loop)

    async def _main(self) -> None:
        current_run.set(self)
        root = self.root
        if root is not None:
            self.adopt_root(root)
        try:
            result = await self._call()
            self._returning = True
            if self.multi:
                await self._join()
        except BaseException as error:
            current_run.set(None)
            await self._failed(error)
        else:
            current_run.set(None)
            self._completed(result)

    async def _call(self) -> Any:
        function = self.fn.function
        if self.event_row is None:
            raise NonRetriableError("the event of this run is no longer stored")
        event = self.fn.received(self.event_row)
        events = [self.fn.received(row) for row in self.batch] if self.batch else [event]
        if function.is_async:
            context: Any = Context(self, event, events)
            if self.fn.wrappers:
                return await self._wrapped(context, partial(function.fn, context))
            return await function.fn(context)
        context = SyncContext(self, event, events)
        self.bridge = Bridge(self.host.loop)
        current_run.set(None)  # its steps come through the bridge; no task of theirs is the function's
        if self.fn.wrappers:
            return await self._wrapped(context, partial(self.host.function_threads.run, function.fn, context))
        return await self.host.function_threads.run(function.fn, context)

    async def _wrapped(self, context: Any, call: Callable[[], Awaitable[Any]]) -> Any:
        for wrapper in reversed(self.fn.wrappers):
            call = partial(wrapper.around_function, context, call)
        return await call()

    async def _join(self) -> None:
        """Steps in flight when the function returns: bodies are awaited and recorded, waits are given up."""
        bodies = {task for task, key in self.in_step.items() if key in self.bodies and task is not self.root}
        rest = [task for task in self.tasks if not task.done() and task is not self.root and task not in bodies]
        if bodies:
            await asyncio.wait(bodies)
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest)

    # -- how it ends ---------------------------------------------------------------------------------------------------

    def _completed(self, result: Any) -> None:
        if self.abandoned:
            self.gone()
        elif self.unwinding:
            self._swallowed("it returned")
        else:
            self._end(self._outcome(result))

    def _outcome(self, result: Any) -> Ending:
        if result is None:
            return Ending(RunStatus.COMPLETED)
        try:
            output, tag = self.fn.codec.encode(result, f"result of function {self.fn.function.id!r}")
            self.host.check_size(output, f"the return value of {self.fn.function.id!r}")
        except NonRetriableError as error:
            return Ending(RunStatus.FAILED, error=failures.record(error, self.hidden))
        return Ending(RunStatus.COMPLETED, output, tag)

    async def _failed(self, error: BaseException) -> None:
        if self.abandoned:
            self.gone()
        elif self.unwinding:
            if _only_suspended(error) or isinstance(error, asyncio.CancelledError):
                self._park()
            else:
                self._swallowed(f"it raised {type(error).__name__}: {failures.message_of(error)}")
        elif _only_suspended(error):
            self._swallowed("it raised Suspended by itself")
        else:
            await self._attempt_failed(error)

    async def _attempt_failed(self, error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            error = NonRetriableError(f"the function raised {type(error).__name__}")
        recorded = failures.record(error, self.hidden)
        now = self.host.clock.now()
        attempt = self.run.attempt
        options = self.fn.function.options
        delay = failures.next_delay_ms(error, options.backoff, attempt, now) if attempt < options.retries else None
        row = AttemptRow(
            self.run.id, "", attempt, self.run.started_at or now, now, None if delay is None else now + delay, recorded
        )
        await self._drop_tasks()
        if delay is None:
            self.report(logging.ERROR, "failed for good", error)
            # a step's failure has its own attempts on record
            self._end(Ending(RunStatus.FAILED, error=recorded), None if isinstance(error, StepError) else row)
            return
        self.report(
            logging.WARNING, f"attempt {attempt + 1} failed and is followed by another in {delay / 1000:g} s", error
        )
        try:
            answer = await self.host.submit(FailAttempt(self.lease, row, None, self.take_logs()))
            if not isinstance(answer, Refused):
                await self.hand_back(now + delay)
                self.host.timers.arm(now + delay)
                self.host.retried(self)
        except HoldfastError as trouble:
            self.cut_off(trouble)
        self.gone()

    async def _drop_tasks(self) -> None:
        self.unwinding = True
        rest = [task for task in self.tasks if not task.done() and task is not self.root]
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest)

    def _swallowed(self, how: str) -> None:
        error = StepUsageError(
            f"the function did not let Suspended pass ({how}): it is thrown in when a run leaves memory, and code that catches "
            "BaseException, or raises or returns in a finally block, must let it through"
        )
        self._end(Ending(RunStatus.FAILED, error=failures.record(error, self.hidden)))

    def _end(self, ending: Ending, attempt: AttemptRow | None = None) -> None:
        if ending.error is not None and not ending.fingerprint:
            ending.fingerprint = failures.fingerprint(ending.error)
        self._note_unreached()
        lifecycle = self.host.end_events(self.run, self.event_row, ending)
        logs: list[Any] = self.take_logs()
        if attempt is not None:
            logs.append(attempt)
        plan = End(
            self.lease,
            ending,
            invoked=self.run.origin == 1,
            waits=self.has_waits,
            lifecycle=lifecycle,
            logs=logs,
            notes=self._note_rows(),
        )
        plan.then = partial(self.host.run_ended, self, ending)
        try:
            self.host.submit(plan)
        except Exception as error:
            _log.warning("run %s ended but could not be recorded: %s", self.run_id, error)
        self.gone()

    def gone(self) -> None:
        """This lease's code is out of memory."""
        if self._timer is not None:
            self._timer.cancel()
        for _, _, future in self._heap:
            future.cancel()
        if self.multi:
            for task in list(self.tasks):
                if task is not self.root and not task.done():
                    task.cancel()
        self.host.left(self)

    # -- notes ---------------------------------------------------------------------------------------------------------

    def _note_unreached(self) -> None:
        unreached = [
            row.key for row in self.recorded.values() if row.state == StepState.DONE and row.kind != StepKind.END
        ]
        if unreached:
            names = ", ".join(repr(key) for key in sorted(unreached)[:10])
            self.notes.append(f"recorded but no longer reached by the function's code: {names}")
        for row in self.recorded.values():
            if row.state == StepState.PENDING and input_of(row) is not None:
                self.notes.append(f"the edited input of step {row.key!r} was not used: the function did not come by it")

    def note(self, text: str) -> None:
        """Say something on the run's page, once."""
        if text not in self.notes:
            self.notes.append(text)

    def _note_rows(self) -> list[NoteRow]:
        now = self.host.clock.now()
        return [NoteRow(self.run.id, crc32(text.encode()), now, text) for text in self.notes]

    # -- steps: beginning and releasing --------------------------------------------------------------------------------

    def begin(self, call: StepCall[Any]) -> None:
        """See `StepDriver.begin`."""
        if self.unwinding or self.abandoned:
            raise Suspended
        inside = current_step.get()
        if inside is not None:
            raise StepUsageError(
                f"step {call.id!r} was called inside the body of step {inside!r}: a body is one unit of work; call steps from the function"
            )
        step_id = call.id
        used = self._used
        if step_id in used:
            count = used[step_id]
            if count < 0:
                raise StepUsageError(
                    f"step {step_id!r} is in flight already: steps that run at the same time need ids of their own, such as {step_id}-1"
                )
            call.key = f"{step_id}:{count}"
            used[step_id] = -count - 1
            if call.key in used:
                raise StepUsageError(
                    f"step id {call.key!r} is also what a repeated {step_id!r} is called: rename one of them"
                )
        else:
            used[step_id] = -1

    def finish_call(self, call: StepCall[Any]) -> None:
        """The call has its result: its id may be used again."""
        used = self._used
        count = used[call.id]
        if count < 0:
            used[call.id] = -count

    def perform(self, call: StepCall[Any]) -> Coroutine[Any, Any, Any]:
        """See `StepDriver.perform`."""
        return perform(self, call)

    def perform_sync(self, call: StepCall[Any]) -> Any:
        """See `StepDriver.perform_sync`."""
        assert self.bridge is not None
        return self.bridge.perform(self.perform(call))

    def _park(self) -> None:
        plan = Park(self.lease, self._due, self._seen, self.take_logs(), self._note_rows())
        plan.then = self._parked
        try:
            self.host.submit(plan).add_done_callback(self._unparked)
        except HoldfastError as error:
            self.cut_off(error)
            self.gone()

    def _unparked(self, parking: asyncio.Future[bool | Refused]) -> None:
        error = parking.exception()
        if error is not None:
            self.cut_off(error)
            self.gone()

    def _parked(self, answer: bool | Refused) -> None:
        self.gone()
        if answer is True:
            self.host.timers.arm(self._due)
        elif answer is False:
            self.host.resume(self.lease)

    async def hand_back(self, due: int) -> None:
        """End the lease though the function is still to go on: for a retry, or because the node stops."""
        parked: bool | Refused = False
        while parked is False:
            parked = await self.host.submit(
                Park(self.lease, due, self.host.woken(self.lease), self.take_logs(), self._note_rows())
            )

    def cut_off(self, error: BaseException) -> None:
        """The store takes no more: what the function does from here on can't be recorded, so it ends."""
        if not self.abandoned:
            self.abandoned = True
            _log.warning("run %s is cut off and goes on after a restart: %s", self.run_id, error)

    def lost(self, answer: Refused) -> None:
        """A report was refused: the lease is somebody else's, or the record was there already."""
        if not self.abandoned:
            self.abandoned = True
            if answer is not STALE:
                _log.warning("run %s: a step was recorded twice; this lease gives up", self.run_id)

    def step_recorded_at(self, step_id: str) -> int:
        """When a step of this run was recorded, for `since=`; the run's start where that isn't known."""
        return self.recorded_at.get(step_id, self.run.queued_at)

    def time_out(self, key: str, limit_ms: int) -> None:
        """Cancel a body that has run past the function's `step_timeout`; it counts as a failed attempt."""
        task = next((task for task, name in self.in_step.items() if name == key), self.root)
        if task is not None and key not in self.timed_out:
            self.timed_out[key] = limit_ms
            task.cancel()

    def abandon(self) -> None:
        """The run was cancelled, or somebody else holds it: cancel its code, which may clean up."""
        self.abandoned = True
        root = self.root
        for task in {*self.tasks, *self.in_step, *([root] if root is not None else [])}:
            if not task.done():
                task.cancel()
        if root is not None and inspect.getcoroutinestate(root.get_coro()) == inspect.CORO_CREATED:  # type: ignore[arg-type]
            self.gone()  # cancelled before its first line, it can't say so itself


_WAITING = frozenset({StepKind.WAIT_EVENT, StepKind.WAIT_SIGNAL, StepKind.INVOKE})


def _only_suspended(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_only_suspended(inner) for inner in error.exceptions)
    return isinstance(error, Suspended)
